"""What operations do to the axes of their arguments: one rule for each kind of operation.

What an operation of unknown kind returns has unknown axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from camlucida.engine.layers.parts import (
    Axes,
    Part,
    Parts,
    agree,
    is_spatial,
    join,
    other,
    view,
    whole,
)


@dataclass
class Run:
    """One operation: its arguments and what it returned."""

    axes_of: Callable[[Tensor], Axes | None]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Sequence[Any]

    def axes(self, tensor: Tensor) -> Axes:
        """Those that are known, and else axes that are none of the image."""
        return self.axes_of(tensor) or tuple(other(size) for size in tensor.shape)

    @property
    def first(self) -> Axes:
        """Of the first argument."""
        return self.axes(self.args[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first result."""
        return tuple(self.outputs[0].shape)

    def arg(self, place: int, name: str, default: Any = None) -> Any:
        """An argument, whichever way it was given."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


Rule: TypeAlias = Callable[[Run], list["Axes | None"]]


def tensors_in(values: Any) -> list[Tensor]:
    """Tensors among arguments, also inside of lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += tensors_in(value)
    return found


# ------------------------------------------------------------------------------------------------ operations


def pointwise(run: Run) -> list[Axes | None]:
    """Operands lie on each other."""
    shape = run.shape
    operands = [t for t in tensors_in((*run.args, *run.kwargs.values())) if t.ndim <= len(shape)]
    found: list[Parts] = []
    for place, size in enumerate(shape):
        candidates = []
        for tensor in operands:
            own = place - len(shape) + tensor.ndim
            if own >= 0 and tensor.shape[own] == size:
                candidates.append(run.axes(tensor)[own])
        found.append(agree(candidates, size))
    return [tuple(found)] * len(run.outputs)


def _same(run: Run) -> list[Axes | None]:
    """The first argument's axes for every result of its shape."""
    given = tuple(run.args[0].shape)
    return [
        run.first if isinstance(o, Tensor) and tuple(o.shape) == given else None
        for o in run.outputs
    ]


def _reshape(run: Run) -> list[Axes | None]:
    return [view(run.first, run.shape)]


def _expand(run: Run) -> list[Axes | None]:
    given, old = run.first, run.args[0].shape
    new = len(run.shape) - len(old)
    found = [other(size) for size in run.shape]
    for place, parts in enumerate(given):
        if old[place] == run.shape[new + place]:
            found[new + place] = parts
    return [tuple(found)]


def _permute(run: Run) -> list[Axes | None]:
    return [tuple(run.first[d] for d in run.args[1])]


def _transpose(run: Run) -> list[Axes | None]:
    axes = list(run.first)
    a, b = run.args[1:3] if len(run.args) > 2 else (0, len(axes) - 1)
    axes[a], axes[b] = axes[b], axes[a]
    return [tuple(axes)]


def _slice(run: Run) -> list[Axes | None]:
    dim = run.arg(1, "dim", 0) % len(run.first)
    start, end = run.arg(2, "start") or 0, run.arg(3, "end")
    size = run.args[0].shape[dim]
    start = max(start + size, 0) if start < 0 else min(start, size)
    end = size if end is None else end
    end = max(end + size, 0) if end < 0 else min(end, size)
    return [_cut(run.first, dim, start, end, run.arg(4, "step", 1), run.shape[dim])]


def _cut(axes: Axes, dim: int, start: int, end: int, step: int, size: int) -> Axes:
    """Axes of a slice."""
    parts, found = axes[dim], list(axes)
    found[dim] = other(size)
    length = 1
    for part in parts:
        length *= part.size
    if size == length:
        found[dim] = parts
    elif len(parts) == 1:
        (part,) = parts
        if part.axis == "tokens" and step == 1:
            grid = 1
            for inner in part.inner:
                grid *= inner.size
            if start <= part.front and end >= part.front + grid:
                found[dim] = _among(end - start, part.front - start, part.inner)
        elif part.leads and not part.shift:
            window = part.cells(start, end)
            found[dim] = join([whole(part.axis, size, flipped=part.flipped, window=window)])
    return tuple(found)


def _among(size: int, front: int, inner: Parts) -> Parts:
    grid = 1
    for part in inner:
        grid *= part.size
    return inner if grid == size else (Part("tokens", size, front=front, inner=inner),)


def _split(run: Run) -> list[Axes | None]:
    dim = run.arg(2, "dim", 0) % len(run.first)
    found: list[Axes | None] = []
    start = 0
    for output in run.outputs:
        size = output.shape[dim]
        found.append(_cut(run.first, dim, start, start + size, 1, size))
        start += size
    return found


def _without(axes: Axes, dims: Any, keepdim: bool) -> Axes:
    dims = {d % len(axes) for d in ([dims] if isinstance(dims, int) else dims)}
    if keepdim:
        return tuple(() if place in dims else parts for place, parts in enumerate(axes))
    return tuple(parts for place, parts in enumerate(axes) if place not in dims)


def _select(run: Run) -> list[Axes | None]:
    return [_without(run.first, run.arg(1, "dim", 0), keepdim=False)] * len(run.outputs)


def _reduce(run: Run) -> list[Axes | None]:
    dims = run.arg(1, "dim")
    if dims is None or (isinstance(dims, list) and not dims):
        return [None] * len(run.outputs)
    keepdim = len(run.shape) == len(run.first)
    return [_without(run.first, dims, keepdim)] * len(run.outputs)


def _norm(run: Run) -> list[Axes | None]:
    dims = run.arg(2, "dim")
    if not dims:
        return [None]
    return [_without(run.first, dims, len(run.shape) == len(run.first))]


def _cat(run: Run) -> list[Axes | None]:
    pieces = [t for t in run.args[0] if t.ndim == len(run.shape)]
    dim = run.arg(1, "dim", 0) % len(run.shape)
    axes = [run.axes(t) for t in pieces]
    found = [agree([a[place] for a in axes], size) for place, size in enumerate(run.shape)]
    if any(is_spatial(a[place]) and not is_spatial(found[place]) for a in axes for place in range(len(found))
           if place != dim):  # fmt: skip
        return [None]
    at = [i for i, a in enumerate(axes) if is_spatial(a[dim])]
    found[dim] = other(run.shape[dim])
    if len(at) == 1:
        front = sum(t.shape[dim] for t in pieces[: at[0]])
        parts = axes[at[0]][dim]
        if len(parts) == 1 and parts[0].axis == "tokens":
            front, parts = front + parts[0].front, parts[0].inner
        found[dim] = _among(run.shape[dim], front, parts)
    return [tuple(found)]


def _stack(run: Run) -> list[Axes | None]:
    dim = run.arg(1, "dim", 0) % len(run.shape)
    axes = [run.axes(t) for t in run.args[0]]
    sizes = [size for place, size in enumerate(run.shape) if place != dim]
    found = [agree([a[place] for a in axes], size) for place, size in enumerate(sizes)]
    found.insert(dim, other(run.shape[dim]))
    return [tuple(found)]


def _maps(run: Run, spans: Sequence[tuple[float, float]] = ()) -> list[Axes | None]:
    """Sliding windows, resizing and padding over the last two axes; ``spans``: the cells that windows stand for."""
    *front, rows, columns = run.first
    shape = run.shape
    if any(is_spatial(parts) for parts in front[:-1] if len(shape) == 4) or len(shape) != len(
        run.first
    ):
        return [None] * len(run.outputs)
    kinds = [_kind(rows), _kind(columns)]
    if None in kinds or kinds[0] == kinds[1]:
        return [None] * len(run.outputs)
    ends = [
        join([replace(parts[0].within(*span), size=size, stride=1, total=size)])
        if parts
        else other(size)
        for parts, size, span in zip(
            (rows, columns), shape[-2:], spans or [(-math.inf, math.inf)] * 2, strict=True
        )
    ]
    if any(parts and parts[0].shift and parts[0].size != size
           for parts, size in zip((rows, columns), shape[-2:], strict=True)):  # fmt: skip
        return [None] * len(run.outputs)
    made: Axes = (*(other(size) for size in shape[:-2]), *ends)
    return [
        made if isinstance(o, Tensor) and tuple(o.shape) == shape else None for o in run.outputs
    ]


def _kind(parts: Parts) -> str | None:
    """``"row"`` or ``"col"`` of a whole axis, ``""`` where it has one cell, ``None`` for another."""
    if not parts:
        return ""
    return parts[0].axis if len(parts) == 1 and parts[0].leads else None


def _convolution(run: Run) -> list[Axes | None]:
    if len(run.shape) == 3:
        # Over a sequence that keeps its length: each token looks at its neighbours.
        first = run.first
        kept = run.args[0].shape[-1] == run.shape[-1]
        return [(first[0], other(run.shape[1]), first[2])] if kept else [None]
    transposed = run.args[6]
    return (
        _maps(run) if transposed else _maps(run, _spans(run, run.args[1].shape[2:], *run.args[3:6]))
    )


def _pooling(run: Run) -> list[Axes | None]:
    kernel = run.args[1]
    return _maps(
        run, _spans(run, kernel, run.arg(2, "stride") or kernel, run.arg(3, "padding", [0]))
    )


def _spans(run: Run, *options: Any) -> list[tuple[float, float]]:
    """From which cell to which the windows of kernel, stride, padding and dilation stand for, along each axis."""
    found = []
    for place, count in enumerate(run.shape[-2:]):
        kernel, stride, padding, dilation = ([*o, *o][place] for o in (*options, [1])[:4])
        begin = (dilation * (kernel - 1) + 1 - stride) / 2 - padding
        found.append((begin, begin + count * stride))
    return found


def _patches(run: Run) -> list[Axes | None]:
    """Windows of a map in a row, one after the other."""
    sizes, ends = run.args[0].shape[-2:], []
    for place, parts in enumerate(run.first[-2:]):
        kernel, dilation, padding, stride = (values[place] for values in run.args[1:5])
        count = (sizes[place] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if not _kind(parts) or parts[0].shift:
            return [None]
        ends.append(replace(parts[0], size=count, stride=1, total=count))
    return [(*(other(size) for size in run.shape[:-1]), join(ends))]


def _padding(run: Run) -> list[Axes | None]:
    amounts = [*run.arg(1, "pad"), *[0] * 8]
    dims = len(run.shape)
    found: list[Parts] = []
    for place, (parts, old, new) in enumerate(
        zip(run.first, run.args[0].shape, run.shape, strict=True)
    ):
        if old == new:
            found.append(parts)
        elif _kind(parts) and not parts[0].shift:
            last = 2 * (dims - 1 - place)
            window = parts[0].cells(-amounts[last], old + amounts[last + 1])
            found.append(join([whole(parts[0].axis, new, flipped=parts[0].flipped, window=window)]))
        else:
            found.append(other(new))
    return [tuple(found)]


def _roll(run: Run) -> list[Axes | None]:
    axes = list(run.first)
    shifts, dims = run.args[1], run.arg(2, "dims", [])
    for shift, dim in zip(shifts, dims, strict=True):
        parts = axes[dim]
        if not is_spatial(parts):
            continue
        if len(parts) != 1 or not parts[0].leads:
            return [None]
        axes[dim] = (replace(parts[0], shift=(parts[0].shift + shift) % parts[0].size),)
    return [tuple(axes)]


def _unfold(run: Run) -> list[Axes | None]:
    """Windows that lie side by side; those that overlap are no grid."""
    _, dim, size, step = run.args
    if size != step or run.args[0].shape[dim] % size:
        return [None]
    shape = list(run.args[0].shape)
    dim %= len(shape)
    cut = view(run.first, [*shape[:dim], shape[dim] // size, size, *shape[dim + 1 :]])
    if cut is None:
        return [None]
    return [(*cut[: dim + 1], *cut[dim + 2 :], cut[dim + 1])]


def _flip(run: Run) -> list[Axes | None]:
    axes = list(run.first)
    for dim in run.args[1]:
        if any(part.axis == "tokens" for part in axes[dim]):
            return [None]
        axes[dim] = tuple(replace(p, flipped=not p.flipped) if p.axis else p for p in axes[dim])
    return [tuple(axes)]


def _product(run: Run) -> list[Axes | None]:
    left, right = [t for t in tensors_in(run.args) if t.ndim >= 2][-2:]
    a, b = run.axes(left), run.axes(right)
    front = [agree([x, y], s) for x, y, s in zip(a[:-2], b[:-2], run.shape[:-2], strict=True)]
    return [(*front, a[-2], b[-1])]


def _linear(run: Run) -> list[Axes | None]:
    return [(*run.first[:-1], other(run.shape[-1]))]


def attention(run: Run) -> list[Axes | None]:
    """A result for each query, of the values' channels."""
    query, value = run.first, run.axes(run.args[2])
    rest: list[Axes | None] = [None] * (len(run.outputs) - 1)
    return [(*query[:-1], value[-1]), *rest]


_NAMES: dict[Rule, str] = {
    _same: """
        clone _to_copy detach alias lift_fresh contiguous to native_dropout dropout bernoulli _softmax _safe_softmax
        _log_softmax native_layer_norm layer_norm native_batch_norm cudnn_batch_norm miopen_batch_norm batch_norm
        _native_batch_norm_legit _native_batch_norm_legit_no_training native_group_norm _fused_rms_norm rms_norm cumsum
        hardswish hardsigmoid hardtanh gelu silu mish elu celu selu leaky_relu prelu _prelu_kernel rrelu_with_noise
        softplus log_sigmoid_forward threshold softshrink hardshrink relu6
        _native_multi_head_attention _transformer_encoder_layer_fwd
    """,
    _reshape: "view _unsafe_view reshape _reshape_alias unsqueeze squeeze",
    _expand: "expand repeat",
    _permute: "permute",
    _transpose: "transpose t",
    _slice: "slice",
    _split: "split split_with_sizes chunk",
    _select: "select unbind",
    _reduce: "mean sum amax amin max min var std logsumexp prod any all argmax",
    _norm: "linalg_vector_norm norm",
    _cat: "cat",
    _stack: "stack",
    _convolution: "convolution _convolution mkldnn_convolution cudnn_convolution",
    _pooling: "max_pool2d_with_indices max_pool2d avg_pool2d",
    _maps: """
        _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d
        fractional_max_pool2d max_unpool2d pixel_shuffle pixel_unshuffle upsample_nearest2d _upsample_nearest_exact2d
        upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    """,
    _patches: "im2col",
    _padding: "constant_pad_nd reflection_pad2d replication_pad2d pad",
    _roll: "roll",
    _flip: "flip",
    _unfold: "unfold",
    _product: "mm addmm bmm baddbmm matmul",
    _linear: "linear",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
ATTENTIONS = frozenset({"_native_multi_head_attention", "_transformer_encoder_layer_fwd"})
