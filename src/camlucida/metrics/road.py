"""ROAD: what the model loses when relevant pixels are removed, and FAME's simpler ROAD-Delete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import NotNegative, Positive
from camlucida.common.seeds import ImageGenerators
from camlucida.data.preprocess import Preprocess
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.curves import area
from camlucida.metrics.imputation.impute import Imputer, impute
from camlucida.metrics.passes import pick, probability, scores_of
from camlucida.metrics.ranking import MaskRule, RemovalOrder, TieBreak, removal_masks
from camlucida.metrics.registry import Facts, MetricCost, Range, register

RoadScore = Literal["prob", "accuracy", "logit_drop"]

PERCENTAGES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
"""Those of the authors' evaluation."""

FAME_PERCENTAGES = tuple(range(0, 101, 10))
"""Those of FAME's code."""

FAME_SHOWN = (10, 30, 50)
"""Those of FAME's table 2."""

_ANY: Range = (-math.inf, math.inf)
_IMPUTED = 64
"""Imputed images that are kept at a time, unless the batch itself is larger."""


def road(
    model: nn.Module,
    pixels: Tensor,
    maps: Tensor,
    classes: Tensor,
    logits: Tensor,
    preprocess: Preprocess,
    *,
    percentages: Sequence[float] = PERCENTAGES,
    order: RemovalOrder = "morf",
    scores: Sequence[RoadScore] = ("prob",),
    imputer: Imputer = "linear",
    mask: MaskRule = "rank",
    tie_break: TieBreak = "index",
    noise: float = 0.01,
    tolerance: float = 1e-4,
    generators: ImageGenerators | None = None,
    batch_size: int = 32,
    known: dict[tuple[int, int, bytes], Tensor] | None = None,
) -> dict[RoadScore, Tensor]:
    r"""Scores of images whose most (or least) relevant pixels were removed and imputed.

    Rong et al. 2022 (ROAD, section 4): pixels are removed by rank, filled by noisy linear imputation in pixel
    space, normalised, and judged by the model. With ``imputer="zero"``, ``mask="percentile"`` and
    ``scores=("logit_drop",)`` it is what FAME's table 2 calls ROAD-Delete. Masks that remove nothing cost no
    forward pass.

    Args:
        model: returns logits ``(N, M)``.
        pixels: ``(N, C, H, W)`` in [0, 1], before normalisation.
        maps: ``(N, H, W)``.
        classes: whose score, ``(N,)``; -1 where it is not known, which gives NaN.
        logits: of the untouched images, ``(N, M)``.
        preprocess: how pixels become inputs.
        percentages: share of pixels removed, in percent.
        order: the most relevant first (``"morf"``) or the least relevant first (``"lerf"``).
        scores: ``"prob"``, the class's softmax probability; ``"accuracy"``, 1 where it is the predicted class,
            else 0; ``"logit_drop"``, how far its logit falls below that of the untouched image.
        imputer: what takes the place of removed pixels, see :func:`~camlucida.metrics.imputation.impute.impute`.
        mask: which pixels go, see :func:`~camlucida.metrics.ranking.removal_masks`.
        tie_break: the same.
        noise: of the linear imputer.
        tolerance: of the linear imputer.
        generators: one random stream per image, for noise.
        batch_size: images per forward pass.
        known: scores by image, percentage and mask that an earlier call with other masks found; the new ones are added.

    Returns:
        Of each score, ``(N, P)`` double; NaN for a map with NaN.

    Raises:
        CamlucidaError: an unknown word, or a percentage outside 0 to 100.
    """
    for score in scores:
        if score not in get_args(RoadScore):
            words = ", ".join(map(repr, get_args(RoadScore)))
            raise CamlucidaError(f"scores must be of {words}, got {score!r}")
    if generators is None:
        generators = ImageGenerators.of(0, pixels)
    clean = logits.double()

    def read(found: Tensor, which: Tensor) -> Tensor:
        wanted = classes[which]
        hit = (found.argmax(1) == wanted).double()
        values = {
            "prob": lambda: probability(model, found, wanted),
            "accuracy": lambda: torch.where(wanted >= 0, hit, torch.nan),
            "logit_drop": lambda: pick(clean[which], wanted) - pick(found, wanted),
        }
        return torch.stack([values[score]() for score in scores], 1)

    removed = removal_masks(maps, percentages, mask, order, tie_break, generators)
    touched = removed.flatten(2).any(2)
    n, p = touched.shape
    result = read(clean, torch.arange(n, device=pixels.device))[:, None].repeat(1, p, 1)
    known = {} if known is None else known
    keys = {
        (i, k): (i, k, np.packbits(removed[i, k].cpu().numpy()).tobytes())
        for i, k in touched.nonzero().tolist()
    }
    for place, key in keys.items():
        if key in known:
            result[place], touched[place] = known[key], False
    group = max(1, _IMPUTED // n)
    for start in range(0, p, group):
        part = slice(start, start + group)
        filled = impute(pixels, removed[:, part], imputer, 0.0, tolerance=tolerance)
        if imputer == "linear" and noise:
            # One draw after the other, so that the numbers do not depend on the size of the batch.
            drawn = [generators.randn(pixels.shape[1:], pixels) for _ in range(filled.shape[1])]
            noisy = filled + noise * torch.stack(drawn, 1)
            filled = torch.where(removed[:, part, None], noisy, filled)
        places = touched[:, part].nonzero()

        def make(i: Tensor, k: Tensor, filled: Tensor = filled) -> Tensor:
            return preprocess.normalise(filled[i, k])

        if len(places):
            values = scores_of(model, pixels, places.tolist(), make, read, batch_size)
            result[places[:, 0], start + places[:, 1]] = values
    known.update({key: result[place] for place, key in keys.items()})
    result[maps.flatten(1).isnan().any(1)] = torch.nan
    return {score: result[..., i] for i, score in enumerate(scores)}


# ------------------------------------------------------------------------------------------- metrics


def _check(percentages: Sequence[float]) -> tuple[float, ...]:
    found = (percentages,) if isinstance(percentages, int | float) else tuple(percentages)
    rising = all(a < b for a, b in pairwise(found))
    if not found or not rising or not 0 <= found[0] <= found[-1] <= 100:
        raise CamlucidaError(f"percentages must rise within 0 to 100, got {percentages}")
    return found


def _removed(
    scene: Scene, explanation: Explanation, classes: Tensor, **options: Any
) -> dict[RoadScore, Tensor]:
    return road(
        scene.model,
        scene.pixels,
        explanation.maps,
        classes,
        scene.logits,
        scene.normalised(),
        batch_size=scene.batch_size,
        **options,
    )


@register(
    "road",
    title="ROAD",
    direction="higher",
    range=(-0.5, 0.5),
    question="faithfulness",
    source="Rong et al. 2022, section 4; the combined score as pytorch-grad-cam's ROADCombined",
    needs=("model", "logits", "preprocess"),
    cost=MetricCost(forwards=18, imputations=18),
    over="pixels removed",
    remark="numbers for the accuracy are of use as a mean over images only",
    numbers={
        "road_morf": Facts("ROAD, most relevant first", "lower", (0.0, 1.0)),
        "road_lerf": Facts("ROAD, least relevant first", "higher", (0.0, 1.0)),
        "road_accuracy": Facts("ROAD accuracy", "higher", (-0.5, 0.5)),
        "road_accuracy_morf": Facts("ROAD accuracy, most relevant first", "lower", (0.0, 1.0)),
        "road_accuracy_lerf": Facts("ROAD accuracy, least relevant first", "higher", (0.0, 1.0)),
        "road_drop": Facts("ROAD logit drop", "higher", _ANY),
        "road_drop_morf": Facts("ROAD logit drop, most relevant first", "higher", _ANY),
        "road_drop_lerf": Facts("ROAD logit drop, least relevant first", "lower", _ANY),
    },
)
@dataclass(frozen=True)
class Road(Metric):
    """Remove and debias: scores after the most, and the least, relevant pixels were imputed away.

    For each score a curve over the percentages per order, and its mean height; ``road`` and
    ``road_accuracy`` are half the difference, (LeRF - MoRF) / 2, and ``road_drop`` half the opposite one:
    higher is better.

    Attributes:
        percentages: share of pixels removed, 10 to 90 by default.
        order: ``"both"`` (default), which combines them, or only ``"morf"`` or ``"lerf"``.
        score: ``"both"`` (default) the probability and the accuracy, or one of ``"prob"``, ``"accuracy"``,
            ``"logit_drop"``.
        of: the class that is scored: the ``"explained"`` one (default), or the true ``"label"``, NaN (not
            counted) where it is not known.
        imputer: ``"linear"`` (noisy linear imputation, default), ``"mean"`` (of the channel) or ``"zero"``.
        mask: pixels go by ``"rank"`` (default), exactly so many, or by ``"percentile"`` as numpy defines it.
        tie_break: pixels of equal value go in random order, by ``"noise"`` of 1e-4 on the scaled map
            (default, as the authors do), or in reading order, by ``"index"``.
        summary: ``"auc"`` (default), trapezoids over the range of percentages, or the ``"mean"`` of the
            heights, as pytorch-grad-cam.
        noise: of the linear imputation, in units of pixels in [0, 1].
        tolerance: of the linear imputation, in the same units.

    Example:
        >>> camlucida.metrics.Road(score="prob").names
        ('road', 'road_morf', 'road_lerf')
    """

    percentages: tuple[float, ...] = PERCENTAGES
    order: Literal["both", "morf", "lerf"] = "both"
    score: Literal["both", "prob", "accuracy", "logit_drop"] = "both"
    of: Literal["explained", "label"] = "explained"
    imputer: Imputer = "linear"
    mask: MaskRule = "rank"
    tie_break: TieBreak = "noise"
    summary: Literal["auc", "mean"] = "auc"
    noise: NotNegative = 0.01
    tolerance: Positive = 1e-4

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        object.__setattr__(self, "percentages", _check(self.percentages))

    @property
    def _scores(self) -> tuple[RoadScore, ...]:
        return ("prob", "accuracy") if self.score == "both" else (self.score,)

    @property
    def _orders(self) -> tuple[RemovalOrder, ...]:
        return ("morf", "lerf") if self.order == "both" else (self.order,)

    @property
    def names(self) -> tuple[str, ...]:
        """Of each score, the combined number and those of both orders."""
        found = []
        for score in self._scores:
            stem = _STEMS[score]
            found += [stem] if self.order == "both" else []
            found += [f"{stem}_{order}" for order in self._orders]
        return tuple(found)

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Impute and judge; the generators are those of the scene's seed."""
        generators = ImageGenerators.of(scene.seed, scene.inputs)
        heights = {
            order: _removed(
                scene,
                explanation,
                scene.labels if self.of == "label" else scene.classes,
                percentages=self.percentages,
                order=order,
                scores=self._scores,
                imputer=self.imputer,
                mask=self.mask,
                tie_break=self.tie_break,
                noise=self.noise,
                tolerance=self.tolerance,
                generators=generators,
            )
            for order in self._orders
        }
        curves: dict[str, Tensor] = {}
        for score in self._scores:
            stem = _STEMS[score]
            own = {order: heights[order][score] for order in self._orders}
            if self.order == "both":
                sign = -1 if score == "logit_drop" else 1
                curves[stem] = sign * (own["lerf"] - own["morf"]) / 2
            curves |= {f"{stem}_{order}": values for order, values in own.items()}
        at = torch.tensor(self.percentages, dtype=torch.float64, device=scene.inputs.device)
        mean = self.summary == "mean"
        return Measured(
            {k: v.mean(1) if mean else area(v, self.percentages) for k, v in curves.items()},
            curves,
            dict.fromkeys(curves, at),
        )


_STEMS: dict[RoadScore, str] = {
    "prob": "road",
    "accuracy": "road_accuracy",
    "logit_drop": "road_drop",
}


@register(
    "road_delete",
    title="ROAD-Delete",
    direction="higher",
    range=_ANY,
    unit="logit",
    question="faithfulness",
    source="FAME (Zhang and Günther 2026), table 2 and code",
    needs=("model", "logits", "labels", "preprocess"),
    cost=MetricCost(forwards=20),
    over="pixels removed",
    remark="no imputation although it is called ROAD; a map that is half zeros removes no more than half",
    numbers={"road_delete_rank": Facts("ROAD-Delete by rank")},
)
@dataclass(frozen=True)
class RoadDelete(Metric):
    """How far the true class's logit falls when the most relevant pixels are blackened; FAME's ROAD-Delete.

    Pixels above the percentile become 0 in [0, 1], before normalisation. Beside it stands the same with exactly
    as many pixels as were asked for, ``road_delete_rank``: curves of maps with many equal values, such as
    rectified ones, can be compared by that only. Higher is better. Images without a label do not count.

    Attributes:
        shown: percentages with a number each, 10, 30 and 50 by default, as in FAME's table.
        percentages: of the curve, 0 to 100 in steps of 10 by default; ``road_delete`` is its mean height.
        order: ``"morf"`` (default) or ``"lerf"``.
        score: ``"logit_drop"`` (default), ``"prob"`` or ``"accuracy"``.
        imputer: ``"zero"`` (default), ``"mean"`` or ``"linear"``.
        tie_break: for the rank, ``"index"`` (default) or ``"noise"``.

    Example:
        >>> camlucida.metrics.RoadDelete(shown=(50,)).names
        ('road_delete', 'road_delete@50', 'road_delete_rank', 'road_delete_rank@50')
    """

    shown: tuple[float, ...] = FAME_SHOWN
    percentages: tuple[float, ...] = FAME_PERCENTAGES
    order: RemovalOrder = "morf"
    score: RoadScore = "logit_drop"
    imputer: Imputer = "zero"
    tie_break: TieBreak = "index"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        object.__setattr__(self, "shown", _check(self.shown))
        object.__setattr__(self, "percentages", _check(self.percentages))

    @property
    def names(self) -> tuple[str, ...]:
        """The curve's mean height and the shown percentages, by percentile and by rank."""
        return tuple(
            name
            for stem in _RULES.values()
            for name in (stem, *(f"{stem}@{p:g}" for p in self.shown))
        )

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """One forward pass per percentage and rule that removes anything."""
        every = sorted({*self.shown, *self.percentages})
        values: dict[str, Tensor] = {}
        curves: dict[str, Tensor] = {}
        known: dict[tuple[int, int, bytes], Tensor] = {}
        for rule, stem in _RULES.items():
            generators = ImageGenerators.of(scene.seed, scene.inputs)
            heights = _removed(
                scene,
                explanation,
                scene.labels,
                percentages=every,
                order=self.order,
                scores=(self.score,),
                imputer=self.imputer,
                mask=rule,
                tie_break=self.tie_break if rule == "rank" else "index",
                generators=generators,
                known=known,
            )[self.score]
            curves[stem] = heights[:, [every.index(p) for p in self.percentages]]
            values[stem] = area(curves[stem], self.percentages)
            values |= {f"{stem}@{p:g}": heights[:, every.index(p)] for p in self.shown}
        at = torch.tensor(self.percentages, dtype=torch.float64, device=scene.inputs.device)
        return Measured(values, curves, dict.fromkeys(curves, at))


_RULES: dict[MaskRule, str] = {"percentile": "road_delete", "rank": "road_delete_rank"}
