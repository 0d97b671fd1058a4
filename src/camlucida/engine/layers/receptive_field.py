"""The theoretical receptive field of every layer, read off the operations of one forward pass.

The arithmetic follows tensors, not modules: skips, functional calls, concatenations and padding layers are
seen as what they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from camlucida.common.turns import here, watchable
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import single_tensor
from camlucida.engine.layers.operations import tensors_in

Pair: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels of the input a cell of a feature map can depend on.

    Cell (r, c) sees rows ``start[0] + r * stride[0]`` up to ``size[0]`` rows further, columns alike; what lies
    outside the image is padding.

    Attributes:
        size: height and width in pixels; infinite where pooling or attention mixes all positions.
        stride: distance of neighbouring cells in pixels.
        start: first row and column that cell (0, 0) sees.
        cells: number of cells of the map that it was computed for.
    """

    size: Pair = (1.0, 1.0)
    stride: Pair = (1.0, 1.0)
    start: Pair = (0.0, 0.0)
    cells: int = 0

    @property
    def is_global(self) -> bool:
        """Whether every cell sees the whole image."""
        return math.inf in self.size

    def box(self, row: int, col: int) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) in pixels seen by a cell, ends exclusive, not cut to the image."""
        if self.is_global:
            return (-math.inf, -math.inf, math.inf, math.inf)
        top = self.start[0] + row * self.stride[0]
        left = self.start[1] + col * self.stride[1]
        return (top, left, top + self.size[0], left + self.size[1])

    def __str__(self) -> str:
        if self.is_global:
            return "global"
        return "x".join(f"{side:g}" for side in self.size)


_GLOBAL = ReceptiveField((math.inf, math.inf))


def receptive_fields(model: nn.Module, inputs: Tensor) -> dict[str, ReceptiveField | None]:
    """Theoretical receptive field of every module's output.

    Statistics of normalisation layers are not counted; global pooling that feeds back into the map
    (squeeze-and-excite) and attention are, and make a field global (an upper bound for windowed attention).

    Args:
        model: the model; returned as it was.
        inputs: ``(N, C, H, W)``, one image is enough.

    Returns:
        Dotted names to fields, in network order; ``None`` where the output does not depend on the input
        through known operations, or is no single tensor. A module that runs several times has the field of
        its last run.
    """
    fields: dict[str, ReceptiveField | None] = {}
    with borrowed(model, inputs) as module, torch.no_grad(), _Follow() as follow:
        x = inputs[:1].detach().clone()
        follow.fields[x] = ReceptiveField(cells=x.shape[-1] * x.shape[-2])

        def watch(name: str, child: nn.Module) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                tensor = single_tensor(output)
                fields[name] = None if tensor is None else follow.fields.get(tensor)

            return child.register_forward_hook(here(hook))

        handles = [watch(name, child) for name, child in watchable(module) if name]
        try:
            module(x)
        finally:
            for handle in handles:
                handle.remove()
        return {name: fields[name] for name, _ in module.named_modules() if name in fields}


class _Follow(TorchDispatchMode):
    """Carries receptive fields from the arguments of each operation to its results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fields: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        known = [self.fields[t] for t in tensors_in(args) if t in self.fields]
        result = func(*args, **(kwargs or {}))
        if known:
            name = func.overloadpacket.__name__
            rule = _attention if "attention" in name else _RULES.get(name, _merge)
            field = rule(known, args, kwargs or {})
            for tensor in tensors_in((result,)):
                cells = tensor.shape[-1] * tensor.shape[-2] if tensor.ndim == 4 else field.cells
                self.fields[tensor] = replace(
                    field, cells=cells if name in _SPATIAL else field.cells
                )
        return result


Rule: TypeAlias = Callable[[list[ReceptiveField], Sequence[Any], Mapping[str, Any]], ReceptiveField]


def _merge(
    fields: list[ReceptiveField],
    _args: Sequence[Any] = (),
    _kwargs: Mapping[str, Any] | None = None,
) -> ReceptiveField:
    """What a cell sees that is made of cells of several maps at the same place."""
    if any(f.is_global for f in fields):
        return replace(_GLOBAL, stride=fields[0].stride, cells=fields[0].cells)
    start = tuple(min(f.start[i] for f in fields) for i in (0, 1))
    end = tuple(max(f.start[i] + f.size[i] for f in fields) for i in (0, 1))
    stride = tuple(max(f.stride[i] for f in fields) for i in (0, 1))
    return ReceptiveField(
        (end[0] - start[0], end[1] - start[1]), (stride[0], stride[1]), (start[0], start[1]),
        max(f.cells for f in fields),
    )  # fmt: skip


def _window(
    field: ReceptiveField, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> ReceptiveField:  # fmt: skip
    """A sliding window over the map: convolution or pooling."""
    if field.is_global:
        return field
    axes = [
        (
            field.size[i] + (_at(kernel, i) - 1) * _at(dilation, i) * field.stride[i],
            field.stride[i] * _at(stride, i),
            field.start[i] - _at(padding, i) * field.stride[i],
        )
        for i in (0, 1)
    ]
    size, strides, start = zip(*axes, strict=True)
    return ReceptiveField(size, strides, start, field.cells)


def _at(values: Sequence[int] | int, axis: int) -> int:
    if isinstance(values, int):
        return values
    return values[axis] if len(values) > 1 else values[0]


def _convolution(
    fields: list[ReceptiveField], args: Sequence[Any], _: Mapping[str, Any]
) -> ReceptiveField:
    weight, stride, padding, dilation, transposed = args[1], *args[3:7]
    field = _merge(fields)
    if weight.ndim != 4:
        return replace(_GLOBAL, cells=field.cells)
    if transposed:
        # Each output cell is made of the input cells whose windows reach it.
        reach = [math.ceil(weight.shape[2 + i] / _at(stride, i)) for i in (0, 1)]
        wide = _window(field, reach, (1, 1), [r - 1 for r in reach], (1, 1))
        strides = (field.stride[0] / _at(stride, 0), field.stride[1] / _at(stride, 1))
        return replace(wide, stride=strides)
    return _window(field, weight.shape[2:4], stride, padding, dilation)


def _pool(
    fields: list[ReceptiveField], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ReceptiveField:
    values: dict[int, Any] = dict(enumerate(args))
    kernel: Any = values.get(1, kwargs.get("kernel_size"))
    stride: Any = values.get(2, kwargs.get("stride")) or kernel
    padding: Any = values.get(3, kwargs.get("padding", 0))
    dilation: Any = values.get(4, 1)
    # Average pooling has ceil_mode where maximum pooling has its dilation.
    dilation = 1 if isinstance(dilation, bool) else dilation
    return _window(fields[0], kernel, stride, padding, dilation)


def _adaptive(
    fields: list[ReceptiveField], args: Sequence[Any], _: Mapping[str, Any]
) -> ReceptiveField:
    height, width = args[0].shape[-2:]
    rows, columns = args[1]
    if (rows, columns) == (height, width):
        return fields[0]
    if rows * columns == 1:
        return replace(_GLOBAL, cells=fields[0].cells)
    kernel = (math.ceil(height / rows) + (height % rows != 0), math.ceil(width / columns))
    return _window(fields[0], kernel, (height // rows or 1, width // columns or 1), (0, 0), (1, 1))


def _pad(fields: list[ReceptiveField], args: Sequence[Any], _: Mapping[str, Any]) -> ReceptiveField:
    field, amounts = fields[0], [*args[1], 0, 0, 0, 0]
    if args[0].ndim != 4:
        return field
    start = (
        field.start[0] - amounts[2] * field.stride[0],
        field.start[1] - amounts[0] * field.stride[1],
    )
    return replace(field, start=start)


def _reduce(
    fields: list[ReceptiveField], args: Sequence[Any], _: Mapping[str, Any]
) -> ReceptiveField:
    dims = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else args[1:2]
    if list(dims) in ([1], [-3]) and args[0].ndim == 4:
        return fields[0]
    return replace(_GLOBAL, cells=fields[0].cells)


def _product(
    fields: list[ReceptiveField], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ReceptiveField:
    """Matrix products: with a weight they mix channels, among activations they mix positions."""
    field = _merge(fields)
    mixed = tensors_in(args)[-2].shape[-1] if len(tensors_in(args)) > 1 else 0
    if len(fields) > 1 or (mixed == field.cells and mixed > 1):
        return replace(_GLOBAL, cells=field.cells)
    return _merge(fields, args, kwargs)


def _attention(
    fields: list[ReceptiveField], _args: Sequence[Any], _kwargs: Mapping[str, Any]
) -> ReceptiveField:
    return replace(_GLOBAL, cells=fields[0].cells)


def _enlarge(
    fields: list[ReceptiveField], args: Sequence[Any], _: Mapping[str, Any]
) -> ReceptiveField:
    field = fields[0]
    if field.is_global or args[1] is None:
        return field
    height, width = args[0].shape[-2:]
    wide = _window(field, (2, 2), (1, 1), (0, 0), (1, 1))
    strides = (field.stride[0] * height / args[1][0], field.stride[1] * width / args[1][1])
    return replace(wide, stride=strides)


_RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "max_pool2d_with_indices": _pool,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "_adaptive_avg_pool2d": _adaptive,
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "constant_pad_nd": _pad,
    "reflection_pad2d": _pad,
    "mean": _reduce,
    "sum": _reduce,
    "amax": _reduce,
    "mm": _product,
    "bmm": _product,
    "addmm": _product,
    "baddbmm": _product,
    "matmul": _product,
    "upsample_bilinear2d": _enlarge,
    "upsample_nearest2d": _enlarge,
}
_SPATIAL = frozenset({"convolution", "_convolution", "max_pool2d_with_indices", "avg_pool2d"})
