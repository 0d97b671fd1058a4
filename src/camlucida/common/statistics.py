"""The one room for statistics: intervals and tests on plain arrays; ranks, correlations and SSIM on tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ties = Literal["average", "order"]
SSIM = Literal["global", "windowed"]

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
    from scipy import special

    n, m = values.shape
    if n < 2 or m == 0:
        return np.full(m, np.nan), np.full(m, np.nan)
    mean = values.mean(0)
    centred = values - mean
    tail = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    z = special.ndtri(tail)
    if n >= MANY:
        half = z[1] * centred.std(0, ddof=1) / np.sqrt(n)
        return mean - half, mean + half
    means = np.sort(_resampled(centred, seed, resamples).T, axis=1).T
    # Where rounding hides that a resample has the sample's mean.
    rounding = 1e-12 * np.abs(centred).max(0)
    below = (means < -rounding).mean(0) + (np.abs(means) <= rounding).mean(0) / 2
    with np.errstate(all="ignore"):
        bias = special.ndtri(below)
        spread = (centred**2).sum(0)
        acceleration = (centred * centred * centred).sum(0) / (6 * spread**1.5)
        shifted = bias + z[:, None]
        level = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    constant = spread == 0
    ends = np.empty((2, m))
    for j in range(m):
        # Where every resample lies on one side there is no bias to correct: the plain percentiles.
        chosen = level[:, j] if np.isfinite(level[:, j]).all() else tail
        ends[:, j] = 0.0 if constant[j] else np.quantile(means[:, j], chosen)
    return mean + ends[0], mean + ends[1]


def student_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's t interval of the mean of ``(n,)`` values, which holds for few of them too; NaN for fewer than two."""
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half


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
        values: ``(n, m)``; columns without a value are not ranked, and rows with a NaN beside them left out.
        direction: ``"higher"`` or ``"lower"`` is better; NaN for any other word.

    Returns:
        ``(m,)``; NaN where no row counts or there is one column only.
    """
    found: Floats = np.full(values.shape[1], np.nan)
    there = np.isfinite(values).any(0)
    whole = values[:, there][np.isfinite(values[:, there]).all(1)]
    if direction not in {"higher", "lower"} or len(whole) == 0 or whole.shape[1] < 2:
        return found
    signed = -whole if direction == "higher" else whole
    near = ROUNDING * np.abs(whole).max()
    # One half is for the value's own tie with itself.
    found[there] = [
        0.5 + ((signed < own - near) + 0.5 * (np.abs(signed - own) <= near)).sum(1).mean()
        for own in np.split(signed, signed.shape[1], axis=1)
    ]
    return found


def settled(differences: Floats, *values: Floats) -> Floats:
    """Paired differences, zero where rounding alone explains them beside the values that they come from."""
    largest = max((np.abs(v).max() for v in values if len(v)), default=0.0)
    return np.where(np.abs(differences) <= ROUNDING * largest, 0.0, differences)


def rank_sum(one: Floats, other: Floats) -> float:
    """Two-sided Wilcoxon rank-sum (Mann-Whitney) test: normal approximation, corrected for ties.

    Args:
        one: ``(n,)`` without NaN.
        other: ``(m,)`` without NaN.

    Returns:
        The p value; NaN where a sample is empty, 1 where all values are equal. No continuity correction, as in
        the published tables.
    """
    from scipy.stats import mannwhitneyu

    if not len(one) or not len(other):
        return float("nan")
    if np.ptp(np.concatenate([one, other])) == 0:
        return 1.0
    return float(mannwhitneyu(one, other, method="asymptotic", use_continuity=False).pvalue)


def signed_rank(differences: Floats) -> float:
    """Two-sided Wilcoxon signed-rank test of paired differences ``(n,)``; those of zero are left out.

    Exact for up to 50 differences, also where some are equal, else the normal approximation corrected for ties.

    Returns:
        The p value; NaN for no difference at all, 1 where all are zero.
    """
    from scipy.stats import rankdata, wilcoxon

    changed = differences[differences != 0]
    if not len(changed):
        return 1.0 if len(differences) else float("nan")
    if len(changed) > _EXACT:
        return float(wilcoxon(changed, method="asymptotic").pvalue)
    doubled = np.rint(2 * rankdata(np.abs(changed))).astype(int)  # whole numbers also among equals
    chance = np.ones(1)  # of each sum of the ranks of positive differences, if signs are random
    for rank in doubled:
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    off = np.abs(2 * np.arange(len(chance)) - doubled.sum())
    return float(chance[off >= abs(2 * doubled[changed > 0].sum() - doubled.sum())].sum())


_EXACT = 50
"""Differences up to which the signed-rank test is exact."""


def permuted_p(
    observed: npt.ArrayLike,
    shuffled: Callable[[np.random.Generator], npt.ArrayLike],
    permutations: int,
    seed: int,
) -> Floats:
    """P values of statistics under random relabelling; the observed labelling counts as one of the relabellings.

    Args:
        observed: the statistics, of any shape, none negative; larger ones speak against chance.
        shuffled: the same statistics after one random relabelling, drawn from the generator.
        permutations: how many relabellings.
        seed: of the generator.

    Returns:
        The share of relabellings that reach the observed value, in the shape of ``observed``.
    """
    # Equal statistics may differ by rounding.
    least = np.asarray(observed, np.float64) * (1 - 1e-9) - 1e-12
    generator = np.random.default_rng(seed)
    reached = np.ones(least.shape)
    for _ in range(permutations):
        reached += np.asarray(shuffled(generator)) >= least
    found: Floats = reached / (permutations + 1)
    return found


def permutation_p(a: Floats, b: Floats, seed: int, permutations: int = 9999) -> float | None:
    """Two-sided p of the difference of two means, by reassigning the values at random.

    Args:
        a: ``(n,)``.
        b: ``(m,)``.
        seed: of the reassignments.
        permutations: how many.

    Returns:
        The p value; ``None`` where a sample is empty.
    """
    if not len(a) or not len(b):
        return None
    both = np.concatenate([a, b])

    # As the sum of all stays the same, only that of the first sample is drawn anew.
    expected = both.mean() * len(a)
    # Equal sums may differ by rounding.
    least = abs(a.sum() - expected) - 1e-12 * np.abs(both).sum()
    generator = np.random.default_rng(seed)
    reached = 1
    for start in range(0, permutations, _DRAWN):
        places = generator.random((min(_DRAWN, permutations - start), len(both))).argsort(1)
        sums = both[places[:, : len(a)]].sum(1)
        reached += int((np.abs(sums - expected) >= least).sum())
    return reached / (permutations + 1)


_DRAWN = 1000
"""Reassignments that are drawn at a time."""


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


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; ``None`` where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def number(value: Tensor) -> float | None:
    """A finite number, else ``None``."""
    found = float(value)
    return found if math.isfinite(found) else None


# ---- rows of tensors, on their device --------------------------------------------------------------


def ranks(values: Tensor, ties: Ties = "average") -> Tensor:
    """Ranks from 1 along the last dimension.

    Args:
        values: ``(..., n)``, without NaN.
        ties: equal values share their mean rank (``"average"``, default), or are ranked in the order in which
            they stand (``"order"``).

    Returns:
        The same shape, double precision.
    """
    ordered, order = values.sort(dim=-1, stable=True)
    if ties == "order":
        place = torch.arange(1, order.shape[-1] + 1, device=order.device)
        return torch.zeros_like(order).scatter_(-1, order, place.expand_as(order)).double()
    low, high = (
        torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True)
    )
    return (low + high + 1).double() / 2


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the rows of two tensors ``(..., n)``, in double precision.

    Returns:
        ``(...)`` in [-1, 1]; NaN where a row is constant or holds NaN.
    """
    a, b = a.double(), b.double()
    constant = (a.amin(-1) == a.amax(-1)) | (b.amin(-1) == b.amax(-1))
    a, b = (_unit(row - row.mean(-1, keepdim=True)) for row in (a, b))
    return torch.where(constant, torch.nan, (a * b).sum(-1).clamp(-1, 1))


def _unit(rows: Tensor) -> Tensor:
    # By the largest value first: squares of very small ones would vanish.
    rows = rows / rows.abs().amax(-1, keepdim=True)
    return rows / rows.square().sum(-1, keepdim=True).sqrt()


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of the rows of two tensors ``(..., n)``; equal values share their mean rank.

    Returns:
        ``(...)`` in [-1, 1]; NaN where a row is constant or holds NaN.
    """
    found = correlation(ranks(a), ranks(b))
    return torch.where((a.isnan() | b.isnan()).any(-1), torch.nan, found)


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Spearman's correlation of two lists; ``None`` for fewer than three values, or a constant list."""
    a, b = (torch.from_numpy(np.asarray(v, np.float64)) for v in (x, y))
    return number(rank_correlation(a, b)) if len(a) >= 3 else None


def gaussian(width: int, sigma: float, like: Tensor) -> Tensor:
    """A Gaussian window ``(width,)`` around its middle that sums to 1, with type and device of ``like``."""
    offsets = torch.arange(width, dtype=like.dtype, device=like.device) - width // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def ssim(x: Tensor, y: Tensor, extent: Tensor | float = 1.0, *, how: SSIM = "global") -> Tensor:
    r"""Structural similarity of images, pair by pair (Wang et al. 2004, equation 13).

    $\frac{(2\mu_x\mu_y + c_1)(2\sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}$
    with $c_1 = (0.01 R)^2$ and $c_2 = (0.03 R)^2$.

    Args:
        x: ``(N, C, H, W)``.
        y: ``(N, C, H, W)``.
        extent: the dynamic range R, a number or ``(N,)``.
        how: ``"global"`` (means and biased variances of whole images, over all pixels and channels) or
            ``"windowed"`` (an 11x11 Gaussian window of sigma 1.5 that lies inside each channel, then the
            average; the window is cut to the largest odd size that fits a smaller image).

    Returns:
        ``(N,)`` in [-1, 1], 1 for equal images.
    """
    mean = _overall_mean if how == "global" else _window_mean
    mu_x, mu_y = mean(x), mean(y)
    if how == "global":
        var_x, var_y = mean((x - mu_x).square()), mean((y - mu_y).square())
        cov = mean((x - mu_x) * (y - mu_y))
    else:
        var_x, var_y = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
        cov = mean(x * y) - mu_x * mu_y
    extent = torch.as_tensor(extent, device=x.device, dtype=x.dtype).reshape(-1, 1, 1, 1)
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    similarity = ((2 * mu_x * mu_y + c1) * (2 * cov + c2)) / (
        (mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2)
    )
    return similarity.mean(dim=(1, 2, 3))


def _overall_mean(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3), keepdim=True)


def _window_mean(images: Tensor) -> Tensor:
    channels, *size = images.shape[1:]
    width = min(11, *(n - (n + 1) % 2 for n in size))
    window = gaussian(width, 1.5, images).expand(channels, 1, 1, width)
    across = F.conv2d(images, window, groups=channels)
    return F.conv2d(across, window.transpose(2, 3), groups=channels)
