"""What a run says: which method is best at what, how certain that is, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from camlucida.common.statistics import Floats
from camlucida.metrics.registry import Number
from camlucida.report.tables import SYMBOLS, Column, Mark

LEVEL = 0.05
"""Corrected p below which two methods are told apart."""

MARKED = (
    f"{SYMBOLS['best']} is better than every other method beyond chance; {SYMBOLS['tied']} has the best mean or is not "
    f"told apart from it (signed-rank test on the same images, Holm's correction, p of {LEVEL} or more)."
)
"""What the marks of a table of means say."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean: over the images that count; NaN without any.
        low: lower end of the 95 % interval.
        high: upper end.
        rank: mean rank over images, 1 is best; NaN where nothing is judged.
        images: how many count.
    """

    mean: float
    low: float
    high: float
    rank: float
    images: int


@dataclass(frozen=True)
class Finding:
    """What one number says about the methods.

    Attributes:
        number: which.
        estimates: of each method.
        p: of each pair of methods, in the order of the methods: Wilcoxon's signed-rank test on the same images,
            two-sided, corrected by Holm over the pairs of the number; NaN where there is no test.
    """

    number: Number
    estimates: dict[str, Estimate]
    p: dict[tuple[str, str], float]

    @classmethod
    def of(
        cls,
        number: Number,
        rows: Iterable[Mapping[str, Any]],
        pairs: Iterable[Mapping[str, Any]] = (),
    ) -> Finding:
        """What the rows of a summary's tables say about a number."""
        estimates = {
            row["method"]: Estimate(row["mean"], row["low"], row["high"], row["rank"], row["n"])
            for row in rows
        }
        judges = number.direction != "none"
        p = {(pair["a"], pair["b"]): pair["signed_rank_holm"] for pair in pairs if judges}
        return cls(number, estimates, p)

    @property
    def judges(self) -> bool:
        """Whether one way is better."""
        return self.number.direction != "none"

    @cached_property
    def ranked(self) -> list[str]:
        """The methods that have a mean, the best first."""
        known = [m for m, e in self.estimates.items() if math.isfinite(e.mean)]
        sign = -1 if self.number.direction == "higher" else 1
        return sorted(known, key=lambda m: sign * self.estimates[m].mean)

    @property
    def best(self) -> str | None:
        """The method with the best mean; ``None`` where fewer than two have one, or nothing is judged."""
        return self.ranked[0] if self.judges and len(self.ranked) > 1 else None

    @cached_property
    def tied(self) -> list[str]:
        """Methods that are not told apart from the best."""
        best = self.best
        return [] if best is None else [m for m in self.ranked[1:] if not self.beats(best, m)]

    def beats(self, one: str, other: str) -> bool:
        """Whether ``one`` is better than ``other``: by mean and by mean rank, and beyond chance."""
        if not self.judges or not self.p_of(one, other) < LEVEL:
            return False
        return self.ahead(one, other) and not self.estimates[one].rank >= self.estimates[other].rank

    def ahead(self, one: str, other: str) -> bool:
        """Whether the mean of ``one`` is better."""
        gain = self.estimates[one].mean - self.estimates[other].mean
        return gain > 0 if self.number.direction == "higher" else gain < 0

    def p_of(self, one: str, other: str) -> float:
        """Corrected p of a pair, in either order."""
        return self.p.get((one, other), self.p.get((other, one), math.nan))

    def mark(self, method: str) -> Mark:
        """How the method is marked in tables: nothing is claimed without tests."""
        if self.best is None or not self.p or method not in {self.best, *self.tied}:
            return ""
        return "tied" if self.tied else "best"

    @property
    def column(self) -> Column:
        """What stands over it in tables."""
        digits = 3 if self.number.question == "cost" else None
        return Column(self.number.title, self.number.direction, self.number.unit, digits=digits)


def wins(methods: Sequence[str], found: Sequence[Finding]) -> Floats:
    """On how many judged numbers the method of the row beats that of the column, ``(M, M)``."""
    judged = [f for f in found if f.judges and f.number.question != "cost"]
    counts = np.zeros((len(methods), len(methods)))
    for r, one in enumerate(methods):
        for c, other in enumerate(methods):
            if r != c:
                counts[r, c] = sum(f.beats(one, other) for f in judged)
    return counts
