"""Walls: what a model provably cannot see, for any model and without training.

A wall stands in front of the input (pixels that the model never gets) or behind a layer (cells of a feature
map that the rest of the model never gets), as in "CAM-Based Methods Can See Through Walls" (Taimeskhanov,
Sicre and Garreau, ECML 2024), where the first dense layer of a VGG ignores the lower part of its feature map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn

from camlucida.common.arguments import argument
from camlucida.common.errors import CamlucidaError, LayerError, ModelError
from camlucida.data.regions import Region
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers import (
    INPUT,
    Grid,
    GridRule,
    Layer,
    Reading,
    reading,
    resolve,
    single_tensor,
)

Where = Region | Tensor
"""A region, or a boolean mask ``(h, w)`` that is true where nothing is seen."""


@dataclass(frozen=True)
class Wall:
    """Where a wall stands.

    Attributes:
        region: what is hidden, in pixels of the input or cells of the layer's map.
        layer: the layer behind which it stands; ``None`` is the input.

    Example:
        >>> str(camlucida.audits.Wall.parse("rows:5-6@layer4"))
        'cells in rows 5-6 of layer4'
    """

    region: Region
    layer: str | None = None

    @classmethod
    def parse(cls, text: str) -> Wall:
        """A wall from ``rows:170-223`` (input) or ``rows:5-13@features.29`` (behind a layer).

        Raises:
            CamlucidaError: the text is no wall.
        """
        region, at, layer = text.partition("@")
        if at and not layer.strip():
            raise CamlucidaError(f"{text!r} names no layer after the @")
        layer = layer.strip()
        return cls(Region.parse(region), None if layer in {"", INPUT} else layer)

    def build(self, model: nn.Module, inputs: Tensor | None = None) -> nn.Module:
        """The model behind this wall; ``inputs`` ``(N, C, H, W)`` let other layouts than NCHW be found."""
        if self.layer is None:
            return input_wall(model, self.region)
        return feature_wall(model, self.layer, self.region, inputs=inputs)

    def __str__(self) -> str:
        return (
            f"pixels in {self.region}"
            if self.layer is None
            else f"cells in {self.region} of {self.layer}"
        )


def input_wall(model: nn.Module, where: Where, *, fill: float = 0.0) -> nn.Module:
    """A model that never sees some pixels of its input.

    The result is a twin: it has the model's class, names, layers and weights, which are shared; the model
    itself is left as it is. Every layer is addressed by the name it had.

    Args:
        model: any module whose first argument is ``(N, C, H, W)``.
        where: a :class:`Region` in pixels, or a boolean mask ``(H, W)``.
        fill: what the model gets there instead, in its input space.

    Raises:
        ModelError: for a TorchScript module.

    Example:
        >>> lower = camlucida.audits.Wall.parse("rows:16-31").region
        >>> blind = camlucida.audits.input_wall(model, lower)
        >>> bool((blind(images) == model(images)).all())
        False
    """
    twin = _twin(unwrap(model))
    parent = type(twin)
    hidden = _Hide(where, fill, None)

    def forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return parent.forward(self, hidden(x), *args, **kwargs)

    own = twin.__dict__.get("forward")
    if own is not None:
        twin.__dict__["forward"] = lambda x, *a, **k: own(hidden(x), *a, **k)
    else:
        _become(twin, {"forward": forward})
    return twin


def feature_wall(
    model: nn.Module,
    layer: Layer,
    where: Where,
    *,
    inputs: Tensor | None = None,
    grid: GridRule | None = None,
    fill: float = 0.0,
) -> nn.Module:
    """A model whose head never sees some cells of a layer's feature map.

    The wall stands *behind* the layer: its own output, which explanations read, is whole, and what follows
    gets ``fill`` in the hidden cells, so that the gradient there is exactly zero. The result is a twin as
    :func:`input_wall` makes them; only the modules on the way to the layer are copied, without their
    weights.

    Args:
        model: any module.
        layer: dotted name or module.
        where: a :class:`Region` in cells, or a boolean mask ``(h, w)``.
        inputs: ``(N, C, H, W)``, to try the wall on at once, so that one that does not fit is refused here and
            not when it is first used.
        grid: how the layer's output is a map; found from the shapes, whenever the model runs, by default.
        fill: what is put in the hidden cells.

    Raises:
        LayerError: for an unknown layer, or an output that is no map.
        ModelError: for a TorchScript module.

    Example:
        >>> lower = camlucida.audits.Wall.parse("rows:8-15").region
        >>> blind = camlucida.audits.feature_wall(model, "3", lower)
        >>> camlucida.audits.dead_zone(blind, images, "3", draws=1).rows
        (8, 15)
    """
    module = unwrap(model)
    name, found = resolve(module, layer)
    if found is None:
        raise LayerError("a wall in front of the input is an input_wall")
    if found is module:
        raise LayerError("a wall stands behind a layer inside the model, got the model itself")
    if grid is not None and not isinstance(grid, Grid):
        raise LayerError("a wall needs a Grid, which can be written back; got a function")
    root = parent = _twin(module)
    for part in name.split("."):
        child = parent._modules[part]  # noqa: SLF001
        assert child is not None  # noqa: S101
        parent._modules[part] = twin = _twin(child)  # noqa: SLF001
        parent = twin
    kind, whole = type(parent), type(root)
    hide = _Hide(where, fill, grid, module, name)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # After the hooks, so that they see the layer's own output.
        return hide.output(kind.__call__(self, *args, **kwargs), name)

    def enter(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        given = (a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim == 4)
        with hide.inside(next(given, None)):
            return whole.__call__(self, *args, **kwargs)

    _become(parent, {"__call__": call})
    _become(root, {"__call__": enter})
    if inputs is not None:
        with borrowed(root, inputs) as tried, torch.no_grad():
            tried(inputs[:1])
        if not hide.ran:
            raise LayerError(f"layer {name!r} did not run, so no wall can stand there")
    return root


class _Hide:
    """Puts a constant where nothing is to be seen."""

    def __init__(
        self,
        where: Where,
        fill: float,
        grid: Grid | None,
        model: nn.Module | None = None,
        name: str = INPUT,
    ) -> None:
        if isinstance(where, Tensor) and (where.ndim != 2 or where.dtype != torch.bool):
            raise CamlucidaError(
                f"a mask must be boolean (h, w), got {where.dtype} of shape {tuple(where.shape)}"
            )
        if isinstance(where, Tensor) and (where.all() or not where.any()):
            raise CamlucidaError("a mask must hide something and leave something to be seen")
        self.where, self.fill, self.grid = where, fill, grid
        self.model, self.name = model, name
        self.found: Reading | None = None  # for the images that last went through the whole model
        self.count: int | None = None  # of the images that are going through it now
        self.ran = False

    @contextmanager
    def inside(self, images: Tensor | None) -> Iterator[None]:
        """While these images go through the whole model."""
        if images is not None:
            if self.grid is None and self.model is not None:
                self.found = reading(self.model, images, self.name)
            self.count = len(images)
        try:
            yield
        finally:
            self.count = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ModelError(f"a wall needs a map (N, K, h, w), got shape {tuple(x.shape)}")
        size = (int(x.shape[-2]), int(x.shape[-1]))
        if isinstance(self.where, Region):
            mask = self.where.mask(size, x.device)
        elif tuple(self.where.shape) == size:
            mask = self.where.to(x.device)
        else:
            raise CamlucidaError(
                f"the wall's mask has shape {tuple(self.where.shape)}, but the map is {size}"
            )
        return torch.where(mask, torch.full((), self.fill, dtype=x.dtype, device=x.device), x)

    def output(self, output: Any, name: str) -> Any:
        """A module's output, a tensor or something that holds just one."""
        if isinstance(output, fx.Proxy):
            # An operation of its own, so that what is replayed from the layer on goes through the wall.
            return output.tracer.create_proxy("call_function", self.output, (output, name), {})
        tensor = single_tensor(output)
        if tensor is None:
            raise LayerError(f"layer {name!r} returns no single tensor, so no wall can stand there")
        self.ran = True
        grid = self.grid or self._grid(tensor, name)
        hidden = grid.to_output(self(grid.to_map(tensor)), tensor)
        if isinstance(output, Tensor):
            return hidden
        items = [hidden, *output[1:]]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)

    def _grid(self, output: Tensor, name: str) -> Grid:
        if self.found is None:
            raise LayerError(
                f"the wall behind {name!r} was reached without images (N, C, H, W) going through the whole model, "
                f"so that it is not known how the output is a map; say it with {argument('grid')}"
            )
        if self.count is not None and len(output) != self.count:
            raise LayerError(
                f"layer {name!r} returns shape {tuple(output.shape)} for {self.count} images (windowed attention "
                "folds its windows into the batch); choose the block around it"
            )
        if self.found.grid is None:
            raise LayerError(
                f"no wall can stand behind {name!r}, which is no feature map of the image, because "
                f"{self.found.reason}; say how it is read with {argument('grid')}"
            )
        return self.found.grid


def _twin(module: nn.Module) -> nn.Module:
    """A second module over the same parameters, buffers and children."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a TorchScript module cannot get a wall; use the original nn.Module")
    twin = copy.copy(module)
    # The registries must be its own, or a hook on the twin would be one on the model.
    for name, blank in vars(nn.Module()).items():
        if isinstance(blank, dict | set) and name in twin.__dict__:
            twin.__dict__[name] = copy.copy(twin.__dict__[name])
    # A forward that was put on the object runs the model's own modules, not the twin's.
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and value.__self__ is module:
            twin.__dict__[name] = MethodType(value.__func__, twin)
    return twin


def _become(module: nn.Module, members: dict[str, Callable[..., Any]]) -> None:
    kind = type(module)
    members = {**members, "__module__": kind.__module__, "__doc__": kind.__doc__}  # type: ignore[dict-item]
    module.__class__ = type(kind.__name__, (kind,), members)
