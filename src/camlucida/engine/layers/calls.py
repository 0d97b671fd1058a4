"""What runs in a forward pass, and which of it can be explained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from camlucida.common.turns import here, watchable
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers.again import FirstRun, version_of
from camlucida.engine.layers.evidence import Evidence, Survey, survey
from camlucida.engine.layers.grids import Grid, map_shape, single_tensor


@dataclass(frozen=True)
class LayerInfo:
    """A module seen in a forward pass.

    Attributes:
        name: dotted name.
        kind: class name of the module.
        calls: how often it ran, each run that returned the same counted once; only layers that ran once can be
            explained.
        shape: (K, h, w) of its feature map, ``None`` where it has none.
        grid: how the map is read.
        evidence: why it is read so.
        reason: why it cannot be explained, in words that follow "because"; empty where it can.
    """

    name: str
    kind: str
    calls: int
    shape: tuple[int, int, int] | None
    grid: Grid | None = field(repr=False, default=None)
    evidence: Evidence | None = None
    reason: str = ""

    @property
    def candidate(self) -> bool:
        """Whether the layer can be explained."""
        return self.calls == 1 and self.shape is not None and self.shape[1] * self.shape[2] > 1


def layer_info(
    found: Survey, module: nn.Module, inputs: Tensor, name: str, child: nn.Module
) -> LayerInfo:
    """What is known about a layer that ran; a pass of nine small images where the operations do not tell."""
    read = found.reading(module, inputs, name)
    kind = type(child).__name__
    if read.grid is None or read.shape is None:
        return LayerInfo(name, kind, read.calls, None, reason=read.reason)
    shape = map_shape(read.grid, read.shape)
    reason = "" if shape[1] * shape[2] > 1 else "it has a single cell"
    reason = reason if read.calls == 1 else f"it runs {read.calls} times"
    return LayerInfo(name, kind, read.calls, shape, read.grid, read.evidence, reason)


@dataclass
class Call:
    """The first run of a module in a forward pass that builds a graph.

    Attributes:
        name: dotted name.
        module: the module.
        calls: how often it ran.
        input: its first argument, where that is a tensor.
        output: what it returned, where that is one tensor; kept alive, as identity is told by ``id()``.
        identity: tensor and version: two modules may return the very same map.
        node: graph node of what it returned, when it returned it; in-place operations to come give the same
            tensor another one.
        signed: whether it has negative values.
    """

    name: str
    module: nn.Module
    calls: int
    input: Tensor | None
    output: Tensor | None
    identity: tuple[int, int] | None
    node: Any
    signed: bool


def observe(model: nn.Module, inputs: Tensor) -> tuple[list[Call], Any]:
    """Run once and list all modules that ran, in the order in which they first ended, and the result.

    Behind a part that the model runs without gradients the graph begins anew, so that it reaches as far back as
    gradients can.
    """
    calls: dict[str, Call] = {}
    first: dict[str, FirstRun] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if name in calls:
                if output is not None and first[name].is_same(args, single_tensor(output)):
                    return _in_place_of(output, first[name].passed_on)
                calls[name].calls += 1
                return None
            tensor, fresh = single_tensor(output), None
            if (
                tensor is not None
                and tensor is output
                and torch.is_grad_enabled()
                and tensor.is_floating_point()
                and not tensor.requires_grad
                and not is_functorch_wrapped_tensor(tensor)
            ):
                tensor = fresh = tensor.detach().clone().requires_grad_().clone()
            calls[name] = Call(
                name,
                module,
                1,
                args[0] if args and isinstance(args[0], Tensor) else None,
                tensor,
                (id(tensor), version_of(tensor)) if tensor is not None else None,
                tensor.grad_fn if tensor is not None else None,
                tensor is not None and _is_signed(tensor),
            )
            first[name] = FirstRun(args, single_tensor(output), fresh)
            return fresh

        handles.append(module.register_forward_hook(here(hook)))

    for name, module in watchable(model):
        if name:
            watch(name, module)
    try:
        result = model(inputs.clone())
    finally:
        for handle in handles:
            handle.remove()
    return list(calls.values()), result


def _is_signed(tensor: Tensor) -> bool:
    if is_functorch_wrapped_tensor(tensor) or not tensor.is_floating_point():
        return False
    return bool((tensor < 0).any())


def _in_place_of(output: Any, tensor: Tensor | None) -> Any:
    """A module's output with another tensor in it; ``None`` leaves it as it is."""
    return tensor if isinstance(output, Tensor) else None


def list_layers(model: nn.Module, inputs: Tensor) -> list[LayerInfo]:
    """Every module that runs, in network order (the order of ``named_modules``).

    Args:
        model: the model, wrapped or not; returned as it was.
        inputs: ``(N, C, H, W)``, one image is enough.

    Example:
        >>> [layer.name for layer in camlucida.list_layers(model, images) if layer.candidate]
        ['0', '1', '2', '3', '4']
    """
    with borrowed(model, inputs) as module, torch.no_grad():
        found = survey(module, inputs)
        ran = set(found.names)
        return [
            layer_info(found, module, inputs, name, child)
            for name, child in module.named_modules()
            if name in ran
        ]
