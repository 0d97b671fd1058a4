"""Axes of charts: where numbers lie and which of them are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from camlucida.report.tables import number


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: the number at its start.
        high: the number at its end, larger than ``low``.
        ticks: numbers and how they are written.
        log: whether steps are powers.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a number lies, 0 at the start and 1 at the end, never outside."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            at = math.log10(max(value, self.low))
        else:
            low, high, at = self.low, self.high, value
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def written(self, text: Callable[[float], str]) -> Scale:
        """The same with its ticks written otherwise."""
        return replace(self, ticks=tuple((v, text(v)) for v, _ in self.ticks))


def linear(
    values: Sequence[float], limits: tuple[float, float] | None = None, count: int = 5
) -> Scale:
    """An axis over the finite values, its ends rounded outwards to ticks.

    Args:
        values: what must lie on it; without any it goes from 0 to 1.
        limits: ends that are used as they are.
        count: about how many ticks.
    """
    known = [v for v in values if math.isfinite(v)]
    low, high = limits or ((min(known), max(known)) if known else (0.0, 1.0))
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) * 0.1 or 0.5
        low, high = low - room, high + room
    step = _step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if limits is None:
        low, high = first * step, last * step
    places = max(0, -math.floor(math.log10(step)))
    ticks = [
        i * step
        for i in range(first, last + 1)
        if low - 1e-9 * step <= i * step <= high + 1e-9 * step
    ]
    return Scale(low, high, tuple((t, number(t, min(places, 9))) for t in ticks))


def logarithmic(values: Sequence[float]) -> Scale:
    """An axis in powers of ten over the positive values, with ticks at 1, 2 and 5 where there is room."""
    known = [v for v in values if math.isfinite(v) and v > 0] or [1.0]
    low, high = min(known) / 1.3, max(known) * 1.3
    decades = math.log10(high / low)
    heads = (1, 2, 5) if decades < 2.5 else (1,)
    found = [
        head * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for head in heads
    ]
    ticks = [t for t in found if low <= t <= high]
    if len(ticks) < 3:
        ticks = [t for t, _ in linear([low, high]).ticks if low <= t <= high]
    return Scale(low, high, tuple((t, f"{t:g}") for t in ticks), log=True)


def _step(rough: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(head * power for head in (1, 2, 5, 10) if head * power >= rough * (1 - 1e-9))
