"""Parts of the axes of a tensor: which of its steps are rows or columns of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

Window: TypeAlias = tuple[Fraction, Fraction]
_IMAGE: Window = (Fraction(0), Fraction(1))
_HARDLY = Fraction(
    1, 16
)  # of the image, by which a map may lie beside it, if not half a cell is more


@dataclass(frozen=True)
class Part:
    """A factor of an axis of a tensor.

    Attributes:
        axis: ``"row"`` or ``"col"`` of the image, ``"tokens"`` for a grid with further tokens around it, ``""`` for
            anything else.
        size: number of steps.
        stride: what a step is worth, in cells of the whole image axis.
        total: cells of the whole image axis, at the resolution at hand.
        shift: cells by which the axis was rolled.
        flipped: whether it runs backwards.
        window: where on the image it begins and ends: beyond 0 and 1 with padding, within them where it was cropped.
        front: tokens in front of the grid.
        inner: the grid among tokens.
    """

    axis: str
    size: int
    stride: int = 1
    total: int = 0
    shift: int = 0
    flipped: bool = False
    window: Window = _IMAGE
    front: int = 0
    inner: tuple[Part, ...] = ()

    @property
    def leads(self) -> bool:
        """Whether it runs over the whole image, be it in coarse steps."""
        return self.axis in ("row", "col") and self.size * self.stride == self.total

    @property
    def in_place(self) -> bool:
        """Whether it begins and ends where the image does, or hardly beside it."""
        begin, end = self.window
        return max(abs(begin), abs(end - 1)) <= max(_HARDLY, Fraction(1, 2 * max(1, self.total)))

    def cells(self, start: int, end: int) -> Window:
        """Where on the image the cells from ``start`` to ``end`` lie; those of padding lie outside of 0 and ``size``.

        A single cell more or less is below what a map resolves.
        """
        if max(abs(start), abs(self.size - end)) <= 1:
            return self.window
        if self.flipped:
            start, end = self.size - end, self.size - start
        begin, stop = self.window
        step = (stop - begin) / self.size
        return begin + step * start, begin + step * end

    def within(self, start: float, end: float) -> Part:
        """Without padding in front of the cell ``start`` and behind ``end``, where there is any."""
        begin, stop = self.window
        step = (stop - begin) / self.size
        if begin < 0 and start > 0:
            begin = min(Fraction(0), begin + step * Fraction(start))
        if stop > 1 and end < self.size:
            stop = max(Fraction(1), stop - step * Fraction(self.size - end))
        return replace(self, window=(begin, stop))


Parts: TypeAlias = tuple[Part, ...]
Axes: TypeAlias = tuple[Parts, ...]


def whole(axis: str, size: int, *, flipped: bool = False, window: Window = _IMAGE) -> Part:
    """An axis of the image, or as much of it as is left."""
    return Part(axis, size, 1, size, flipped=flipped, window=window)


def image_axes(shape: Sequence[int]) -> Axes:
    """Axes of the model's input ``(N, C, H, W)``."""
    return (
        other(shape[0]),
        other(shape[1]),
        join([whole("row", shape[2])]),
        join([whole("col", shape[3])]),
    )


def other(size: int) -> Parts:
    """An axis that is no axis of the image."""
    return (Part("", size),) if size != 1 else ()


def is_spatial(parts: Parts) -> bool:
    """Whether something of the image lies along it."""
    return any(part.axis for part in parts)


def join(parts: Sequence[Part]) -> Parts:
    """Neighbouring parts that are one: the steps of the first are as long as the second."""
    found: list[Part] = []
    for part in parts:
        if part.size == 1:
            continue
        last = found[-1] if found else None
        if last is not None and not last.axis and not part.axis:
            found[-1] = Part("", last.size * part.size)
        elif (
            last is not None
            and part.axis in ("row", "col")
            and replace(last, size=1, stride=1) == replace(part, size=1, stride=1)
            and last.stride == part.size * part.stride
        ):
            found[-1] = replace(last, size=last.size * part.size, stride=part.stride)
        else:
            found.append(part)
    return tuple(found)


def view(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The same elements in the same order, cut into axes anew."""
    rest = list(join([part for parts in axes for part in parts]))[::-1]
    found: list[Parts] = []
    for size in shape:
        need, taken = size, []
        while need > 1:
            if not rest:
                return None
            part = rest.pop()
            if need % part.size == 0:
                taken.append(part)
                need //= part.size
            elif part.size % need == 0 and part.axis != "tokens":
                inner = part.size // need
                taken.append(
                    replace(part, size=need, stride=part.stride * inner if part.axis else 1)
                )
                rest.append(replace(part, size=inner))
                need = 1
            else:
                return None
        found.append(join(taken))
    return tuple(found) if not rest else None


def agree(candidates: Sequence[Parts], size: int) -> Parts:
    """Axes of operands that lie on each other."""
    known = [parts for parts in candidates if is_spatial(parts)]
    # Where a branch has lost a part of the way, the other one tells it.
    known = [parts for parts in known if all(part.axis for part in parts)] or known
    known = [parts for parts in known if _sound(parts)] or known
    known = [parts for parts in known if all(part.in_place for part in parts)] or known
    if not known:
        return other(size)
    first = known[0]
    for parts in known[1:]:
        if parts != first and [_role(p) for p in parts] != [_role(p) for p in first]:
            return other(size)
    return first


def _sound(parts: Parts) -> bool:
    """Whether all parts of an axis of the image are of the same resolution."""
    totals = {(part.axis, part.total) for part in parts if part.axis in ("row", "col")}
    return len({axis for axis, _ in totals}) == len(totals)


def _role(part: Part) -> Any:
    """What a part stands for whatever the resolution that it was made at."""
    if part.axis == "tokens":
        return part.size, part.front, tuple(_role(p) for p in part.inner)
    if part.leads:
        return part.axis, part.size, part.shift, part.flipped, part.in_place or part.window
    return part
