"""How good maps of face pairs are: the verification accuracy left when their pixels are deleted or inserted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import Floats
from camlucida.metrics.ranking import MaskRule, removal_masks

Alteration: TypeAlias = Literal["delete", "insert"]

PERCENTAGES = tuple(range(0, 101, 10))
"""P of the paper."""

RULES: tuple[MaskRule, ...] = ("percentile", "rank")
MODES: tuple[Alteration, ...] = ("delete", "insert")


# ---------------------------------------------------------------------------------------- the threshold


@dataclass(frozen=True)
class Threshold:
    """Where a verification system decides, and how often it is wrong there.

    Attributes:
        value: pairs with ``score >= value`` are accepted.
        fmr: share of the impostors that are accepted (false match rate).
        fnmr: share of the genuine pairs that are rejected (false non-match rate).
    """

    value: float
    fmr: float
    fnmr: float

    @property
    def eer(self) -> float:
        """Equal error rate: the mean of both."""
        return (self.fmr + self.fnmr) / 2


@dataclass(frozen=True)
class ErrorCurves:
    """Both error rates at every threshold; the ROC is ``fmr`` against ``1 - fnmr``.

    Attributes:
        thresholds: the distinct scores, descending.
        fmr: false match rate at each.
        fnmr: false non-match rate at each.
    """

    thresholds: Floats
    fmr: Floats
    fnmr: Floats

    @property
    def roc(self) -> tuple[Floats, Floats]:
        """False and true match rates from 0 to 1."""
        ends = ([0.0], [1.0])
        fmr = np.concatenate([ends[0], self.fmr, ends[1]])
        return fmr, np.concatenate([ends[0], 1 - self.fnmr, ends[1]])

    @property
    def auc(self) -> float:
        """Area under the ROC: the chance that a genuine pair scores above an impostor, ties counting half."""
        fmr, tmr = self.roc
        return float(_trapezoids(tmr, fmr))


def error_curves(scores: npt.ArrayLike, same: npt.ArrayLike) -> ErrorCurves:
    """False match and non-match rates at all distinct scores.

    Raises:
        CamlucidaError: there are no genuine or no impostor pairs, or a score is not finite.
    """
    values, genuine = _checked(scores, same)
    thresholds = np.unique(values)[::-1]
    impostors = np.sort(values[~genuine])
    matches = np.sort(values[genuine])
    below = np.searchsorted(impostors, thresholds, side="left")
    fmr = (len(impostors) - below) / len(impostors)
    fnmr = np.searchsorted(matches, thresholds, side="left") / len(matches)
    return ErrorCurves(thresholds, fmr, fnmr)


def eer_threshold(
    scores: npt.ArrayLike,
    same: npt.ArrayLike,
    *,
    round_theta: bool = False,
    eer_midpoint: bool = False,
) -> Threshold:
    r"""The threshold at which both errors are nearest to each other.

    Candidates are the distinct scores, descending; the first with the smallest
    $|\mathrm{FMR} - \mathrm{FNMR}|$ is taken, so the largest of several.

    Args:
        scores: ``(N,)``, higher is more similar.
        same: ``(N,)``, whether each pair is genuine.
        round_theta: round to 4 decimals as the published pipeline does. Where the scores are separable the
            threshold is the lowest genuine score, and rounding up rejects that pair.
        eer_midpoint: take the middle between that score and the next lower one: the same decisions, but not on
            the edge of a genuine pair's score.

    Returns:
        The threshold; its rates are those at the value returned.

    Raises:
        CamlucidaError: there are no genuine or no impostor pairs, or a score is not finite.
    """
    values, genuine = _checked(scores, same)
    curves = error_curves(values, genuine)
    at = int(np.abs(curves.fmr - curves.fnmr).argmin())
    value = float(curves.thresholds[at])
    if eer_midpoint and at + 1 < len(curves.thresholds):
        value = (value + float(curves.thresholds[at + 1])) / 2
    return threshold_at(round(value, 4) if round_theta else value, values, genuine)


def check_threshold(value: float | None) -> None:
    """Refuse a threshold that decides nothing.

    Raises:
        CamlucidaError: it is not finite.
    """
    if value is not None and not np.isfinite(value):
        raise CamlucidaError(f"a threshold must be a finite number, got {value}")


def threshold_at(value: float, scores: npt.ArrayLike, same: npt.ArrayLike) -> Threshold:
    """A threshold that is given, with its rates.

    Raises:
        CamlucidaError: there are no genuine or no impostor pairs, or a score is not finite.
    """
    values, genuine = _checked(scores, same)
    check_threshold(value)
    accepted = values >= value
    return Threshold(value, float(accepted[~genuine].mean()), float((~accepted[genuine]).mean()))


def accuracy(scores: npt.ArrayLike, same: npt.ArrayLike, threshold: float) -> float:
    """Share of all pairs that ``score >= threshold`` decides right."""
    right = (np.asarray(scores) >= threshold) == np.asarray(same, dtype=bool)
    return float(right.mean())


def as_said(value: float, compare: str) -> float:
    """A similarity as people say it, or back: for networks that compare by distance the distance, its negative."""
    return (-value if compare == "distance" else value) + 0.0  # not minus 0


def decision(similarity: float, threshold: float | None, compare: str) -> str:
    """Similarity, threshold and decision, such as ``"distance 0.419 <= 0.600: match"``."""
    value = as_said(similarity, compare)
    if threshold is None:
        return f"{compare} {value:.3f}, no threshold known"
    bound = as_said(threshold, compare)
    # As many places as it takes to see on which side it lies.
    places = next((n for n in range(3, 8) if f"{value:.{n}f}" != f"{bound:.{n}f}"), 3)
    match, far = similarity >= threshold, compare == "distance"
    sign = ("<=" if far else ">=") if match else (">" if far else "<")
    return f"{compare} {value:.{places}f} {sign} {bound:.{places}f}: {'match' if match else 'no match'}"


@dataclass(frozen=True)
class HeldOut:
    """How a threshold does that was fitted on other pairs than those it decides.

    Attributes:
        accuracy: share of all pairs decided right, each by the threshold of the other folds.
        low: lower end of its 95 % interval, whole people resampled.
        high: upper end.
        folds: how many.
    """

    accuracy: float
    low: float
    high: float
    folds: int


def held_out(
    scores: npt.ArrayLike,
    same: npt.ArrayLike,
    people: Sequence[str],
    *,
    folds: int = 10,
    seed: int = 0,
) -> HeldOut | None:
    """Fit the threshold of the equal error rate on all folds but one, and decide that one; nobody is in two folds.

    Args:
        scores: similarities ``(N,)``.
        same: whether each pair is genuine, ``(N,)``.
        people: of each pair, who is kept together.
        folds: at most; fewer where there are fewer people.
        seed: of the folds.

    Returns:
        What was found; ``None`` where some fold leaves no genuine or no impostor pair to fit on.
    """
    values, genuine = _checked(scores, same)
    names = np.unique(people, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(int(names.max()) + 1)
    parts = np.array_split(order, min(folds, len(order)))
    right = np.zeros(len(values))
    for part in parts:
        out = np.isin(names, part)
        kept = genuine[~out]
        if len(parts) < 2 or kept.all() or not kept.any():
            return None
        fitted = eer_threshold(values[~out], kept).value
        right[out] = (values[out] >= fitted) == genuine[out]
    return HeldOut(float(right.mean()), *bootstrap(right, people, seed=seed), len(parts))


def _checked(scores: npt.ArrayLike, same: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, genuine = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if values.ndim != 1 or values.shape != genuine.shape:
        raise CamlucidaError(
            f"scores and same must be lists of one length, got {values.shape} and {genuine.shape}"
        )
    if not np.isfinite(values).all():
        raise CamlucidaError("a similarity score is not finite")
    if genuine.all() or not genuine.any():
        kind = "impostor" if len(genuine) and genuine.all() else "genuine"
        raise CamlucidaError(
            f"there is no {kind} pair among {len(genuine)}; a threshold needs genuine and impostor pairs"
        )
    return values, genuine


# ---------------------------------------------------------------------------------- deleting and inserting


def kept_pixels(
    maps: Tensor, percentages: Sequence[float], mode: Alteration, rule: MaskRule = "percentile"
) -> Tensor:
    """Which pixels stay at each percentage P.

    Args:
        maps: ``(N, H, W)``, higher is more important.
        percentages: P, in [0, 100].
        mode: ``"delete"`` removes the P % most important pixels, ``"insert"`` keeps only those.
        rule: which those are: ``"percentile"`` (default; the published protocol) are pixels strictly above the
            map's percentile 100 - P, interpolated linearly, so that none of a constant map ever is;
            ``"rank"`` are exactly ``round(P / 100 * H * W)`` pixels, of equal ones those that come first.

    Returns:
        ``(N, len(percentages), H, W)`` boolean.

    Raises:
        CamlucidaError: a percentage outside [0, 100], or an unknown mode or rule.
    """
    if mode not in get_args(Alteration):
        raise CamlucidaError(f"mode must be {' or '.join(map(repr, MODES))}, got {mode!r}")
    important = removal_masks(maps, percentages, rule)
    return important if mode == "insert" else ~important


def altered_scores(
    score: Callable[[Tensor, Tensor | None], Tensor],
    probe_map: Tensor,
    gallery_map: Tensor | None = None,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    rules: Sequence[MaskRule] = RULES,
    batch_size: int = 16,
) -> dict[tuple[MaskRule, Alteration], Floats]:
    """The scores of one pair as more and more of it is deleted or inserted.

    Args:
        score: from masks ``(n, H, W)`` of the probe, ``True`` where a pixel is kept, and of the gallery photo
            (``None`` leaves it whole) to scores ``(n,)``.
        probe_map: ``(H, W)``.
        gallery_map: alter the gallery photo too, by its own map; ``None`` (default) alters the probe only.
        percentages: P.
        rules: the rules by which pixels count, see :func:`kept_pixels`.
        batch_size: altered photos at a time.

    Returns:
        The scores ``(len(percentages),)`` by rule and mode.
    """
    keys = [(rule, mode) for rule in rules for mode in MODES]

    def masks(attribution: Tensor) -> Tensor:
        return torch.cat([
            kept_pixels(attribution[None], percentages, mode, rule)[0] for rule, mode in keys
        ])  # fmt: skip

    probe = masks(probe_map)
    gallery = None if gallery_map is None else masks(gallery_map)
    found = []
    for start in range(0, len(probe), batch_size):
        stop = start + batch_size
        part = score(probe[start:stop], None if gallery is None else gallery[start:stop])
        found.append(part.detach().double().cpu())
    scores = torch.cat(found).view(len(keys), len(percentages)).numpy()
    return dict(zip(keys, scores, strict=True))


# ------------------------------------------------------------------------------------------- the outcome


@dataclass(frozen=True)
class AccuracyCurve:
    """Verification accuracy as pixels are deleted or inserted.

    Attributes:
        percentages: P.
        accuracy: share of all pairs decided right at each P.
        auc: area under it over P / 100, times 100: lower is better for Delete, higher for Insert.
        low: lower end of the bootstrap interval of ``auc``.
        high: upper end.
        level: the level of that interval.
    """

    percentages: tuple[float, ...]
    accuracy: Floats
    auc: float
    low: float
    high: float
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "auc": self.auc, "low": self.low, "high": self.high, "level": self.level,
            "percentages": list(self.percentages), "accuracy": self.accuracy.tolist(),
        }  # fmt: skip


def area(heights: npt.ArrayLike, percentages: Sequence[float]) -> Floats:
    """Area under curves ``(..., P)`` by trapezoids over P, divided by the range of P, times 100."""
    at = np.asarray(percentages, dtype=np.float64)
    if len(at) < 2 or at[-1] <= at[0]:
        raise CamlucidaError(f"a curve needs two rising percentages, got {list(percentages)}")
    found: Floats = _trapezoids(np.asarray(heights, dtype=np.float64), at) / (at[-1] - at[0]) * 100
    return found


def _trapezoids(heights: Floats, at: Floats) -> Floats:
    found: Floats = ((heights[..., 1:] + heights[..., :-1]) / 2 * np.diff(at)).sum(axis=-1)
    return found


def accuracy_curve(
    scores: npt.ArrayLike,
    same: npt.ArrayLike,
    threshold: float,
    percentages: Sequence[float] = PERCENTAGES,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> AccuracyCurve:
    """The accuracy over P, its area, and the area's bootstrap interval.

    Args:
        scores: ``(N, P)``, of each pair at each percentage.
        same: ``(N,)``, whether each pair is genuine.
        threshold: the threshold of the unaltered pairs; held fixed in the bootstrap.
        percentages: P.
        groups: of each pair, who is on the probe: whole groups are drawn, since pairs of one person are not
            independent. ``None`` draws pairs.
        resamples: bootstrap samples.
        level: the level of the interval.
        seed: the seed of the bootstrap.

    Returns:
        The curve. The interval is that of the percentiles; NaN with fewer than two groups.

    Raises:
        CamlucidaError: the shapes do not fit.
    """
    table = np.asarray(scores, dtype=np.float64)
    genuine = np.asarray(same, dtype=bool)
    if table.shape != (len(genuine), len(percentages)) or not len(genuine):
        raise CamlucidaError(
            f"scores must be one row per pair and one column per percentage, "
            f"({len(genuine)}, {len(percentages)}), got {table.shape}"
        )
    right = ((table >= threshold) == genuine[:, None]).astype(np.float64)
    areas = area(right, percentages)
    low, high = bootstrap(areas, groups, resamples=resamples, level=level, seed=seed)
    heights = right.mean(axis=0)
    return AccuracyCurve(
        tuple(percentages), heights, float(area(heights, percentages)), low, high, level
    )


def bootstrap(
    values: npt.ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of values ``(N,)``, whole groups drawn with replacement.

    Returns:
        Its lower and upper end; NaN with fewer than two groups.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names = np.arange(len(numbers)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(names.max()) + 1 if len(names) else 0
    if count < 2:
        return float("nan"), float("nan")
    sums = np.bincount(names, numbers, count)
    sizes = np.bincount(names, minlength=count)
    draw = np.random.default_rng(seed).integers(count, size=(resamples, count))
    means = sums[draw].sum(axis=1) / sizes[draw].sum(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


# ------------------------------------------------------------------------------------------ random maps


def random_map(size: tuple[int, int], seed: int, index: int = 0, *, sigma: float = 0.0) -> Tensor:
    """A map that knows nothing, to hold methods against.

    Each pair has its own map, ``(H, W)`` in [0, 1]. Deleting single pixels all over a face does more harm than
    deleting a patch of the same area, so that smooth maps are to be held against one that is blurred by ``sigma``
    pixels.
    """
    from camlucida.engine.maps import normalise, smooth

    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
    drawn = torch.rand(1, *size, generator=generator)
    return normalise(smooth(drawn, sigma) if sigma else drawn)[0]
