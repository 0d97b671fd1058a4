"""Intervals, ranks and tests, on plain arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camlucida.common.optional import require

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1999
MANY = 100_000
"""From so many values on the interval is the normal one, which the bootstrap's then hardly differs from."""
ROUNDING = 1e-6
"""Differences up to this share of the largest value are rounding and count as none."""
_BLOCK = 4_000_000  # weights held at a time


def interval(
    values: Floats, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Bootstrap interval of each column's mean, bias-corrected and accelerated (BCa).

    The columns share their resamples, so that a thousand of them cost one matrix product. The acceleration is
    the jackknife's, which for a mean is its skewness over ``6 sqrt(n)``.

    Args:
        values: ``(n, m)`` without NaN.
        seed: of the resamples.
        resamples: how many.
        confidence: that the interval holds the mean, in (0, 1).

    Returns:
        Lower and upper ends, ``(m,)`` each; NaN for fewer than two values. From :data:`MANY` values on,
        mean ± z·std/√n.

    Source: Efron, "Better bootstrap confidence intervals", JASA 1987; Efron and Tibshirani, "An Introduction
    to the Bootstrap", 1993, section 14.3.
    """
    normal = require("scipy.special", "benchmark")
    n, m = values.shape
    if n < 2 or m == 0:
        return np.full(m, np.nan), np.full(m, np.nan)
    mean = values.mean(0)
    centred = values - mean
    tail = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    z = normal.ndtri(tail)
    if n >= MANY:
        half = z[1] * centred.std(0, ddof=1) / np.sqrt(n)
        return mean - half, mean + half
    means = np.sort(_resampled(centred, seed, resamples).T, axis=1).T
    rounding = 1e-12 * np.abs(centred).max(
        0
    )  # where rounding hides that a resample has the sample's mean
    below = (means < -rounding).mean(0) + (np.abs(means) <= rounding).mean(0) / 2
    with np.errstate(all="ignore"):
        bias = normal.ndtri(below)
        spread = (centred**2).sum(0)
        acceleration = (centred * centred * centred).sum(0) / (6 * spread**1.5)
        shifted = bias + z[:, None]
        level = normal.ndtr(bias + shifted / (1 - acceleration * shifted))
    constant = spread == 0
    ends = np.empty((2, m))
    for j in range(m):
        # Where every resample lies on one side there is no bias to correct: the plain percentiles.
        chosen = level[:, j] if np.isfinite(level[:, j]).all() else tail
        ends[:, j] = 0.0 if constant[j] else np.quantile(means[:, j], chosen)
    return mean + ends[0], mean + ends[1]


def _resampled(centred: Floats, seed: int, resamples: int) -> Floats:
    """Means of the columns over resampled rows, ``(resamples, m)``."""
    n = len(centred)
    random = np.random.default_rng(seed)
    found = np.empty((resamples, centred.shape[1]))
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        weights = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        found[start : start + rows] = weights.astype(np.float64) @ centred / n
    return found


def mean_ranks(values: Floats, direction: str) -> Floats:
    """The mean rank of each column, 1 for the best; values that are equal but for rounding share their ranks.

    Args:
        values: ``(n, m)``; rows with a NaN are left out.
        direction: ``"higher"`` or ``"lower"`` is better; NaN for any other word.

    Returns:
        ``(m,)``; NaN where no row counts or there is one column only.
    """
    whole = values[np.isfinite(values).all(1)]
    if direction not in {"higher", "lower"} or len(whole) == 0 or values.shape[1] < 2:
        return np.full(values.shape[1], np.nan)
    signed = -whole if direction == "higher" else whole
    near = ROUNDING * np.abs(whole).max()
    # One half is for the value's own tie with itself.
    return np.array(
        [
            0.5 + ((signed < own - near) + 0.5 * (np.abs(signed - own) <= near)).sum(1).mean()
            for own in np.split(signed, signed.shape[1], axis=1)
        ]
    )


def settled(differences: Floats, *values: Floats) -> Floats:
    """Paired differences, zero where rounding alone explains them beside the values that they come from."""
    largest = max((np.abs(v).max() for v in values if len(v)), default=0.0)
    return np.where(np.abs(differences) <= ROUNDING * largest, 0.0, differences)


def rank_sum(one: Floats, other: Floats) -> float:
    """Two-sided Wilcoxon rank-sum (Mann-Whitney) test: normal approximation, corrected for ties.

    Args:
        one: sorted values, none NaN.
        other: the same of the other sample.

    Returns:
        The p value; NaN where a sample is empty, 1 where all values are equal. No continuity correction, as in
        the published tables.
    """
    special = require("scipy.special", "benchmark")
    n, m = len(one), len(other)
    if n == 0 or m == 0:
        return float("nan")
    wins = np.searchsorted(other, one, "left").sum(dtype=np.float64)
    ties = np.searchsorted(other, one, "right").sum(dtype=np.float64)
    u = (wins + ties) / 2
    total = n + m
    together = np.sort(np.concatenate([one, other]), kind="stable")
    variance = n * m / 12 * (total + 1 - _ties(together) / (total * max(total - 1, 1)))
    if variance <= 0:
        return 1.0
    z = (u - n * m / 2) / np.sqrt(variance)
    return float(2 * special.ndtr(-abs(z)))


def signed_rank(differences: Floats) -> float:
    """Two-sided Wilcoxon signed-rank test of paired differences; those of zero are left out.

    Exact for up to 50 differences without ties, else the normal approximation corrected for ties.

    Returns:
        The p value; NaN for no difference at all, 1 where all are zero.
    """
    stats = require("scipy.stats", "benchmark")
    if len(differences) == 0:
        return float("nan")
    changed = differences[differences != 0]
    if len(changed) == 0:
        return 1.0
    if len(changed) > 50:
        return _signed_rank_normal(changed)
    return float(stats.wilcoxon(changed, zero_method="wilcox", method="auto").pvalue)


def _signed_rank_normal(changed: Floats) -> float:
    special = require("scipy.special", "benchmark")
    size = np.abs(changed)
    order = np.argsort(size)
    size = size[order]
    starts = np.flatnonzero(np.concatenate([[True], size[1:] != size[:-1]]))
    equal = np.diff(np.append(starts, len(size)))
    rank = np.repeat(starts + (equal + 1) / 2, equal)
    n = len(size)
    positive = rank[changed[order] > 0].sum()
    variance = n * (n + 1) * (2 * n + 1) / 24 - _ties(size) / 48
    z = (positive - n * (n + 1) / 4) / np.sqrt(variance)
    return float(2 * special.ndtr(-abs(z)))


def _ties(ordered: Floats) -> float:
    """The sum of t³ - t over the groups of t equal values."""
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    length = np.diff(edges)
    several = length[length > 1].astype(np.float64)
    return float((several * (several * several - 1)).sum())


def holm(p: Any) -> Floats:
    r"""P values corrected by Holm's procedure; NaN are left as they are and not counted.

    With the m values in ascending order, $\tilde p_k = \min(1, \max_{j \le k} (m - j + 1) p_j)$.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    found = np.asarray(p, np.float64).copy()
    there = np.flatnonzero(np.isfinite(found))
    order = there[np.argsort(found[there], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(factors * found[order]), 1)
    return found


def mean_std(values: Iterable[float | None]) -> tuple[float, float]:
    """Mean and unbiased standard deviation; the latter is 0 for one value, both NaN for none."""
    numbers = np.array([v for v in values if v is not None], np.float64)
    if len(numbers) == 0:
        return float("nan"), float("nan")
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0


Array = npt.NDArray[np.float64]


_PERMUTATIONS = 9999


def number(value: Tensor) -> float | None:
    """A finite number, else ``None``."""
    number = float(value)
    return number if math.isfinite(number) else None


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; ``None`` where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, ``None`` where a map is constant."""
    x, y = (t.double().flatten() - t.double().mean() for t in (a, b))
    length = float(x.norm() * y.norm())
    return float(x @ y) / length if length > 0 else None


def ranks(values: Array) -> Array:
    """Ranks from 1; equal values share theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = counts.cumsum() - (counts - 1) / 2
    return np.asarray(middle[which], dtype=np.float64)


def spearman(x: Array, y: Array) -> float | None:
    """Spearman's rank correlation; ``None`` for fewer than three values."""
    if len(x) < 3:
        return None
    return correlation(torch.from_numpy(ranks(x)), torch.from_numpy(ranks(y)))


def permutation_p(a: Array, b: Array, seed: int) -> float | None:
    """Two-sided p of the difference of two means, by reassigning the values at random."""
    if not len(a) or not len(b):
        return None
    both, generator = np.concatenate([a, b]), np.random.default_rng(seed)
    observed = abs(a.mean() - b.mean())
    reached = 1
    for _ in range(_PERMUTATIONS):
        shuffled = generator.permutation(both)
        reached += abs(shuffled[: len(a)].mean() - shuffled[len(a) :].mean()) >= observed - 1e-12
    return float(reached / (_PERMUTATIONS + 1))
