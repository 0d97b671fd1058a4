"""Run a whole model whose layer returns another feature map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from camlucida.common.errors import LayerError
from camlucida.common.turns import here
from camlucida.engine.layers import INPUT, Grid, GridRule, Layers, grid_of, resolve, resolve_all
from camlucida.engine.tap import run
from camlucida.targets import Target


class Outputs:
    """What the layers themselves returned, and how it is read as a feature map.

    Args:
        model: the model, borrowed.
        inputs: ``(N, C, H, W)``.
        grid: how layer outputs are read, for all layers or by name; found by evidence by default.

    Attributes:
        raw: what each layer returned, by name, once :meth:`watch` has seen it.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        grid: GridRule | Mapping[str, GridRule] | None,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._found: dict[str, Grid] = {INPUT: Grid()}
        self.grid = grid
        self.raw: dict[str, Any] = {INPUT: inputs}

    @contextmanager
    def watch(self, model: nn.Module, layers: Layers) -> Iterator[None]:
        """Keep the outputs of the layers in a forward pass."""

        def keeping(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                # Copied: something behind the layer may write to it.
                self.raw[name] = tree_map(cloned, output)

            return hook

        chosen = resolve_all(model, layers)
        handles = [
            module.register_forward_hook(here(keeping(name)))
            for name, module in chosen.items()
            if module is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def rule(self, name: str) -> Grid:
        """How the layer's output is read and written back; ``LayerError`` for a function, which only reads."""
        rule = self.grid.get(name) if isinstance(self.grid, Mapping) else self.grid
        if rule is None or name == INPUT:
            if name not in self._found:
                self._found[name] = grid_of(self._model, self._inputs, name)
            return self._found[name]
        if not isinstance(rule, Grid):
            raise LayerError(
                f"the grid of layer {name!r} is a function, which reads a feature map but cannot write an "
                "altered one back; pass a camlucida.Grid"
            )
        return rule

    def replaced(self, name: str, altered: Tensor, index: Tensor) -> Any:
        """The layer's output for the images ``index``, with another feature map in it."""
        raw = self.raw[name]
        rule, first = self.rule(name), layer_tensor(raw)
        own = first[index] if rule.layout == "tokens" else first
        tensor = rule.to_output(altered.to(first.dtype), own)
        if tensor.data_ptr() == altered.data_ptr():
            tensor = tensor.clone()
        if isinstance(raw, Tensor):
            return tensor
        items = [tensor, *raw[1:]]
        return type(raw)(*items) if hasattr(raw, "_fields") else type(raw)(items)


def cloned(value: Any) -> Any:
    """A copy of a tensor; everything else itself."""
    return value.clone() if isinstance(value, Tensor) else value


def layer_tensor(output: Any) -> Tensor:
    """The tensor in what a layer returned, which stands first."""
    tensor = output if isinstance(output, Tensor) else output[0]
    assert isinstance(tensor, Tensor)  # noqa: S101
    return tensor


class Whole:
    """The whole model, with a hook that replaces the layer's output."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, layer: str, target: Target, outputs: Outputs
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.layer = layer
        self.target = target
        self.outputs = outputs
        _, self.module = resolve(model, layer)

    def __call__(self, altered: Tensor, index: Tensor) -> Tensor:
        """The model's output, or the feature map of the target's layer.

        Args:
            altered: feature maps ``(n, K, h, w)``.
            index: ``(n,)``, the image that each belongs to.
        """
        replaced = self.outputs.replaced(self.layer, altered, index)
        return run(
            self.model,
            self.inputs[index],
            {self.layer: self.module},
            lambda *_: layer_tensor(replaced),
            self.target,
        )
