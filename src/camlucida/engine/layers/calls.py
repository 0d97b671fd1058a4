"""What runs in a forward pass, and which of it can be explained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.errors import LayerError
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers.grids import Grid, find_grid, mismatch, single_tensor


@dataclass(frozen=True)
class LayerInfo:
    """A module seen in a forward pass.

    Attributes:
        name: dotted name.
        kind: class name of the module.
        calls: how often it ran; only layers that ran once can be explained.
        shape: (K, h, w) of its feature map, ``None`` where it has none.
        grid: how the map is read.
        candidate: whether it can be explained: it ran once and returns a spatial map.
    """

    name: str
    kind: str
    calls: int
    shape: tuple[int, int, int] | None
    grid: Grid | None = field(repr=False, default=None)

    @property
    def candidate(self) -> bool:
        """Whether the layer can be explained."""
        return self.calls == 1 and self.shape is not None and self.shape[1] * self.shape[2] > 1


@dataclass
class Call:
    """One run of a module in a forward pass.

    Attributes:
        name: dotted name.
        module: the module.
        info: what is known about its output.
        input: its first argument, where that is a tensor.
        output: what it returned, where that is one tensor; kept alive, as identity is told by ``id()``.
        identity: tensor and version: two modules may return the very same map.
    """

    name: str
    module: nn.Module
    info: LayerInfo
    input: Tensor | None
    output: Tensor | None
    identity: tuple[int, int] | None


def observe(model: nn.Module, inputs: Tensor) -> tuple[list[Call], Any]:
    """Run once and list all module calls in the order in which they end."""
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    calls: list[Call] = []
    counts: dict[str, int] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            counts[name] = counts.get(name, 0) + 1
            tensor = single_tensor(output)
            grid, shape = None, None
            # Windowed attention folds its windows into the batch: no map of the image.
            whole = tensor is not None and tensor.shape[:1] == inputs.shape[:1]
            if tensor is not None and whole and tensor.is_floating_point():
                try:
                    grid = find_grid(tensor, size, name)
                    k, h, w = grid.to_map(tensor).shape[1:]
                    shape = (int(k), int(h), int(w))
                    # An attention head's (N, heads, T, d) is four-dimensional, but no map of the image.
                    if grid.layout != "tokens" and mismatch((h, w), size) > math.log(1.5):
                        grid, shape = None, None
                except LayerError:
                    pass
            info = LayerInfo(name, type(module).__name__, 1, shape, grid)
            identity = None if tensor is None else (id(tensor), tensor._version)  # noqa: SLF001
            first = args[0] if args and isinstance(args[0], Tensor) else None
            calls.append(Call(name, module, info, first, tensor, identity))

        handles.append(module.register_forward_hook(hook))

    for name, module in model.named_modules():
        if name:
            watch(name, module)
    try:
        result = model(inputs.clone())
    finally:
        for handle in handles:
            handle.remove()
    for call in calls:
        call.info = LayerInfo(
            call.name, call.info.kind, counts[call.name], call.info.shape, call.info.grid
        )
    return calls, result


def list_layers(model: nn.Module, inputs: Tensor) -> list[LayerInfo]:
    """Every module that runs, in network order (the order of ``named_modules``).

    Args:
        model: the model, wrapped or not; returned as it was.
        inputs: ``(N, C, H, W)``, one image is enough.
    """
    with borrowed(model, inputs) as module, torch.no_grad():
        calls, _ = observe(module, inputs)
        seen = {call.name: call.info for call in calls}
        return [seen[name] for name, _ in module.named_modules() if name in seen]
