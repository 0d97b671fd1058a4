"""Bring what a layer returns into the form of a feature map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from camlucida.common.errors import LayerError
from camlucida.engine.layers.parts import Axes, Parts


@dataclass(frozen=True)
class Grid:
    """How a layer's output is read as a feature map ``(N, K, h, w)``, and written back.

    Attributes:
        layout: ``"nchw"``; ``"nhwc"``; or ``"tokens"``, ``(N, T, K)`` in row-major order.
        prefix: number of class, register and prompt tokens in front, which are no part of the map. What stands
            behind the grid is none either.
        size: (h, w) of a token grid.
        order: for a token grid that is not in row-major order, which token behind the prefix shows each cell.

    Example:
        >>> camlucida.Grid("tokens", prefix=1, size=(2, 3)).to_map(torch.zeros(1, 7, 8)).shape
        torch.Size([1, 8, 2, 3])
    """

    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0
    size: tuple[int, int] | None = None
    order: tuple[int, ...] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """As the listings show it."""
        if self.size is None:
            return {"nchw": "channels first", "nhwc": "channels last"}[self.layout]
        behind = f" behind {self.prefix}" if self.prefix else ""
        order = " in an order of their own" if self.order else ""
        return f"{self.size[0]}x{self.size[1]} tokens{behind}{order}"

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an output of this shape can be read so."""
        if self.layout != "tokens":
            return len(shape) == 4
        if len(shape) != 3 or self.size is None or self.prefix < 0 or min(self.size) < 1:
            return False
        return self.tokens <= shape[1]

    def to_map(self, output: Tensor) -> Tensor:
        """The feature map ``(N, K, h, w)`` in a layer's output."""
        if self.layout == "nchw":
            return output
        if self.layout == "nhwc":
            return output.permute(0, 3, 1, 2)
        assert self.size is not None  # noqa: S101
        tokens = output[:, self.prefix : self.tokens]
        if self.order is not None:
            tokens = tokens[:, list(self.order)]
        return tokens.reshape(tokens.shape[0], *self.size, -1).permute(0, 3, 1, 2)

    def to_output(self, feature_map: Tensor, output: Tensor) -> Tensor:
        """The layer's output with its feature map replaced; the tokens around the grid stay ``output``'s own."""
        if self.layout == "nchw":
            return feature_map
        if self.layout == "nhwc":
            return feature_map.permute(0, 2, 3, 1)
        tokens = feature_map.flatten(2).transpose(1, 2)
        if self.order is not None:
            tokens = tokens[:, sorted(range(len(self.order)), key=self.order.__getitem__)]
        if self.prefix or self.tokens < output.shape[1]:
            tokens = torch.cat([output[:, : self.prefix], tokens, output[:, self.tokens :]], dim=1)
        return tokens

    @property
    def tokens(self) -> int:
        """Tokens up to the end of the grid; 0 without tokens."""
        return 0 if self.size is None else self.prefix + self.size[0] * self.size[1]


GridRule: TypeAlias = Grid | Callable[[Tensor], Tensor]
"""A grid, or a function from a layer's output to ``(N, K, h, w)`` (a ``reshape_transform``)."""


def map_shape(grid: Grid, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(K, h, w) of the map in an output of this shape."""
    if grid.size is not None:
        return (shape[2], *grid.size)
    return (
        (shape[1], shape[2], shape[3]) if grid.layout == "nchw" else (shape[3], shape[1], shape[2])
    )


# ------------------------------------------------------------------------------- what the operations say


def read_axes(axes: Axes, shape: Sequence[int]) -> Grid | str | None:
    """The grid that an output's axes make, why they make none, or ``None`` where too little is known.

    Args:
        axes: where rows and columns lie in the output, see :mod:`camlucida.engine.layers.axes`.
        shape: of the output, of one image.
    """
    found = {place: _parts(parts) for place, parts in enumerate(axes)}
    kinds = {
        place: tuple(part.axis for part in parts)
        for place, parts in found.items()
        if any(part.leads for part in parts)
    }
    if not kinds or len(shape) < 3:
        return None
    grid: Grid | str | None
    elsewhere = [part for parts in found.values() for part in parts if not part.in_place]
    if elsewhere:
        begin, end = elsewhere[0].window
        names = ("rows", "height") if elsewhere[0].axis == "row" else ("columns", "width")
        grid = (
            f"its {names[0]} run from {float(begin):.0%} to {float(end):.0%} of the image's {names[1]}, as the model "
            "crops or pads the image"
        )
    elif 0 in kinds:
        first = set(kinds[0]) == {"row", "col"} and len(shape) == 3 and len(kinds) == 1
        grid = (
            "its tokens stand on the first axis and the images on the second"
            if first and shape[1] == 1
            else "it folds windows or rows into the batch"
        )
    elif sum(set(kind) == {"row", "col"} for kind in kinds.values()) > 1:
        grid = "it relates positions to positions, as attention weights do"
    elif len(shape) == 3 and set(kinds) == {1}:
        grid = _read_tokens(axes[1])
    elif any(part.flipped or part.shift for parts in found.values() for part in parts):
        grid = "its rows or columns are flipped or shifted against the image"
    elif len(shape) == 4:
        grid = _read_map(kinds, shape)
    elif 1 in kinds:
        grid = "it has rows and columns, but no channels"
    else:
        grid = "its positions do not stand between the image and the channels"
    return grid


def _read_map(kinds: dict[int, tuple[str, ...]], shape: Sequence[int]) -> Grid | str | None:
    """The grid in an output of four axes, by the axes of the image that lead along each."""
    for layout, rows, columns in (("nchw", 2, 3), ("nhwc", 1, 2)):
        wanted = {rows: ("row",), columns: ("col",)}
        # An axis of one cell carries no mark.
        whole = {
            place: kind for place, kind in wanted.items() if place in kinds or shape[place] > 1
        }
        if kinds == whole:
            return Grid("nchw" if layout == "nchw" else "nhwc")
        if kinds == {rows: ("col",), columns: ("row",)}:
            return "its rows and columns are exchanged"
    if any(len(kind) > 1 for kind in kinds.values()):
        return "its positions stand in an order of their own"
    return None


def _parts(parts: Parts) -> Parts:
    """Those of a token axis are the grid's."""
    if len(parts) == 1 and parts[0].axis == "tokens":
        return parts[0].inner
    return tuple(part for part in parts if part.axis)


def token_axes(axes: Axes, shape: Sequence[int]) -> dict[int, Grid]:
    """Token grids along any axis of an output, by the length of the axis."""
    found = {}
    for parts, size in zip(axes, shape, strict=True):
        if {part.axis for part in _parts(parts)} == {"row", "col"}:
            grid = _read_tokens(parts)
            if isinstance(grid, Grid):
                found[size] = grid
    return found


def _read_tokens(parts: Parts) -> Grid | str | None:
    """The grid along an axis of tokens."""
    prefix = parts[0].front if len(parts) == 1 and parts[0].axis == "tokens" else 0
    inner = parts[0].inner if len(parts) == 1 and parts[0].axis == "tokens" else parts
    if any(not part.axis for part in inner):
        return "its positions are mixed with something else on one axis"
    if {part.axis for part in inner} != {"row", "col"}:
        return "its tokens are whole rows or columns of the image, and no grid"
    places = _places(inner)
    if places is None:
        return "its tokens are no whole grid"
    size, cells = places
    if cells == list(range(len(cells))):
        return Grid("tokens", prefix, size)
    return Grid("tokens", prefix, size, tuple(sorted(range(len(cells)), key=cells.__getitem__)))


def _places(parts: Parts) -> tuple[tuple[int, int], list[int]] | None:
    """Height and width of the grid that tokens make, and the cell of each token; ``None`` where cells are missing."""
    sizes, steps, shifts, flips = {}, {}, {}, {}
    for axis in ("row", "col"):
        own = sorted((p for p in parts if p.axis == axis), key=lambda p: -p.stride)
        # From coarse to fine without a gap; the finest steps may be left out.
        gaps = any(a.stride != b.stride * b.size for a, b in pairwise(own))
        if gaps or not all(part.leads for part in own[:1]):
            return None
        sizes[axis] = math.prod(p.size for p in own)
        steps[axis] = own[-1].stride if own else 1
        shifts[axis] = own[0].shift if own else 0
        flips[axis] = own[0].flipped if own else False
    cells = []
    for token in range(math.prod(p.size for p in parts)):
        at, rest = {"row": 0, "col": 0}, token
        for part in reversed(parts):
            rest, digit = divmod(rest, part.size)
            at[part.axis] += digit * part.stride // steps[part.axis]
        for axis, size in sizes.items():
            if flips[axis]:
                at[axis] = size - 1 - at[axis]
            at[axis] = (at[axis] - shifts[axis]) % size
        cells.append(at["row"] * sizes["col"] + at["col"])
    return (sizes["row"], sizes["col"]), cells


# -------------------------------------------------------------------------------------- what a shape allows


def possible_grids(shape: Sequence[int], input_size: tuple[int, int]) -> Iterator[Grid]:
    """Every reading that an output's shape allows, whatever stands around a token grid.

    A map has the input's aspect ratio up to rounding.
    """
    if len(shape) == 4:
        for layout, size in (("nchw", shape[2:4]), ("nhwc", shape[1:3])):
            if math.prod(size) > 1 and mismatch(tuple(size), input_size) < math.log(1.5):
                yield Grid("nchw" if layout == "nchw" else "nhwc")
    elif len(shape) == 3 and shape[2] > 1:
        tokens = shape[1]
        for rows, columns in token_sizes(tokens, input_size):
            extra = tokens - rows * columns
            for prefix in range(extra + 1):
                yield Grid("tokens", prefix, (rows, columns))


_MOST_EXTRA = 64


def token_sizes(tokens: int, input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Heights and widths that some stride makes of the input and that a token count has room for."""
    height, width = input_size
    found: dict[tuple[int, int], None] = {}
    for stride in range(1, min(height, width) + 1):
        for size in (
            (height // stride, width // stride),
            (-(-height // stride), -(-width // stride)),
        ):
            extra = tokens - size[0] * size[1]
            if size[0] * size[1] > 1 and 0 <= extra <= min(_MOST_EXTRA, size[0] * size[1]):
                found[size] = None
    return list(found)


def mismatch(size: tuple[int, ...], input_size: tuple[int, int]) -> float:
    """How far the two strides that a map of this size implies differ, beyond rounding."""
    best = math.inf
    for rows, columns in ((size[0], size[1]), (size[0] - 1, size[1]), (size[0], size[1] - 1)):
        if rows > 0 and columns > 0:
            ratio = (input_size[0] / rows) / (input_size[1] / columns)
            best = min(best, abs(math.log(ratio)))
    return best


def single_tensor(output: Any) -> Tensor | None:
    """The one tensor that a layer returned, also inside a tuple of its own; ``None`` if not exactly one."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        tensors = [item for item in output if isinstance(item, Tensor)]
        if len(tensors) == 1 and isinstance(output[0], Tensor):
            return output[0]
    return None


def check_map(name: str, feature_map: Tensor) -> None:
    """Raise ``LayerError`` unless a grid function returned ``(N, K, h, w)``."""
    if feature_map.ndim != 4:
        raise LayerError(
            f"the grid function of layer {name!r} returned shape {tuple(feature_map.shape)}, "
            "expected (N, K, h, w)"
        )
