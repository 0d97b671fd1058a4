"""Metrics that know where the object is; what they count is in :mod:`camlucida.metrics.localisation`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count, Limits, NotNegative
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, OneNumber, Scene
from camlucida.metrics.curves import area
from camlucida.metrics.localisation import (
    Component,
    PeakTies,
    Truth,
    box_iou,
    energy_pointing,
    iou,
    pointing_game,
    saliency_score,
    top_k_mass,
)
from camlucida.metrics.regions import Which, fill_boxes
from camlucida.metrics.registry import Facts, register

_SHARE: dict[str, Any] = {
    "direction": "higher", "range": (0.0, 1.0), "question": "localisation",
}  # fmt: skip
"""Facts of all metrics that say how well a map points at the object."""


@register(
    "iou",
    title="IoU",
    **_SHARE,
    source="Zhang & Günther 2026 (FAME), table 2",
    needs=("boxes",),
    remark="no box is fitted to the map; the object is the first box",
    numbers={"iou_area": Facts("IoU over all thresholds")},
    over="threshold",
    height="IoU",
)
@dataclass(frozen=True)
class IoU(Metric):
    """Intersection over union of the map above a threshold and the object (FAME's protocol).

    Numbers: ``iou@0.3`` and so on, and ``iou_area``, the area under IoU over the threshold, whose curve runs
    from threshold 0 (where every pixel counts) to 1. Higher is better; 0 to 1.

    An image without a box does not count (NaN); one whose first box the crop leaves out scores 0, as
    published. A zero map scores 0 above threshold 0.

    Attributes:
        thresholds: of the map in [0, 1]; 0.3, 0.5 and 0.7 by default, as published.
        truth: the ``"first"`` box, filled (default, as published), or the ``"mask"``: exact where the data has
            one, else the union of the boxes.
        points: thresholds of the curve, evenly spread over 0 to 1.

    Example:
        >>> camlucida.metrics.IoU(thresholds=(0.5,)).names
        ('iou@0.5', 'iou_area')
    """

    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    truth: Literal["first", "mask"] = "first"
    points: Annotated[int, Limits(2)] = 21

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        if not all(0 <= t <= 1 for t in self.thresholds):
            raise CamlucidaError(f"thresholds must lie between 0 and 1, got {self.thresholds}")

    @property
    def names(self) -> tuple[str, ...]:
        """One number per threshold, and the area."""
        return (*(f"iou@{t:g}" for t in self.thresholds), "iou_area")

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """All thresholds at once."""
        maps = explanation.maps
        if self.truth == "first":
            masks, counts = _boxes(scene, maps, "first")
        else:
            masks = scene.masks.to(maps.device)
            counts = masks.flatten(1).any(1)
        at = torch.linspace(0, 1, self.points, dtype=torch.float64, device=maps.device)
        levels = torch.cat([at.new_tensor(self.thresholds), at])
        found = torch.where(counts[:, None], iou(maps, masks, levels), math.nan)
        curve = found[:, len(self.thresholds) :]
        values = [*found[:, : len(self.thresholds)].unbind(1), area(curve, at)]
        return Measured(
            dict(zip(self.names, values, strict=True)), {"iou_area": curve}, {"iou_area": at}
        )


@register(
    "box_iou",
    title="Box IoU",
    **_SHARE,
    source="Singh et al. 2024 (Integrative CAM), average IoU",
    needs=("boxes", "labels", "logits"),
    remark="counts correctly predicted images only; the paper gives no threshold and no component rule",
)
@dataclass(frozen=True)
class BoxIoU(OneNumber):
    """Intersection over union of a box fitted to the map and the object's box (I-CAM's protocol).

    Higher is better; 0 to 1; 0 for a blank map; NaN for an image without a box or not correctly predicted.

    Attributes:
        threshold: share of the map's maximum, 0.5 by default.
        component: fit the box to the ``"largest"`` connected region (default) or to ``"all"``.
        gt: the ``"best"`` of the object's boxes (default), the ``"first"``, or their ``"union"``.
        correct_only: leave out images that are not correctly predicted, as published.

    Example:
        >>> camlucida.metrics.BoxIoU(threshold=0.2).names
        ('box_iou',)
    """

    threshold: Annotated[float, Limits(0, 1, open_low=True)] = 0.5
    component: Component = "largest"
    gt: Truth = "best"
    correct_only: bool = True

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """On the attribution maps, at the input's resolution."""
        return box_iou(
            explanation.maps,
            scene.boxes,
            self.threshold,
            component=self.component,
            gt=self.gt,
            correct=scene.correct if self.correct_only else None,
        )


@register(
    "saliency_score",
    title="Saliency score",
    **_SHARE,
    source="Singh et al. 2024 (Integrative CAM), equation 32",
    needs=("boxes", "labels", "logits"),
    remark="counts correctly predicted images only",
)
@dataclass(frozen=True)
class SaliencyScore(OneNumber):
    """Share of the map that lies in the boxes (I-CAM).

    Higher is better; 0 to 1; 0 for a blank map; NaN for an image without a box or not correctly predicted.

    Attributes:
        correct_only: leave out images that are not correctly predicted, as published.

    Example:
        >>> camlucida.metrics.SaliencyScore().names
        ('saliency_score',)
    """

    correct_only: bool = True

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """With the union of all boxes, also where an exact mask is known."""
        maps = explanation.maps
        masks, counts = _boxes(scene, maps)
        if self.correct_only:
            counts &= scene.correct.to(maps.device)
        return torch.where(counts, saliency_score(maps, masks), math.nan)


@dataclass(frozen=True)
class _OnObject(OneNumber):
    """What metrics share that look at the object's mask: exact where there is one, else the boxes.

    Attributes:
        counts: ``(N,)`` from maps and boolean masks ``(N, H, W)``, with the metric's options.
    """

    counts: ClassVar[Callable[..., Tensor]]

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """On the attribution maps, at the input's resolution."""
        masks = scene.masks.to(explanation.maps.device)
        return type(self).counts(explanation.maps, masks, **vars(self))


@register(
    "energy_pointing",
    title="Energy on the object",
    **_SHARE,
    source="Wang et al. 2020 (Score-CAM), section 4.3; Arras et al. 2022, relevance mass accuracy",
    needs=("masks",),
)
@dataclass(frozen=True)
class EnergyPointing(_OnObject):
    """Share of the map's energy that lies on the object.

    Higher is better; 0 to 1; 0 for a blank map; NaN (not counted) for an empty mask.

    Example:
        >>> camlucida.metrics.EnergyPointing().names
        ('energy_pointing',)
    """

    counts: ClassVar = energy_pointing


@register(
    "pointing_game",
    title="Pointing game",
    **_SHARE,
    source="Zhang et al. 2018 (Excitation Backprop), the pointing game",
    needs=("masks",),
    remark="an empty mask does not count",
)
@dataclass(frozen=True)
class PointingGame(_OnObject):
    """Whether the map's maximum lies on the object.

    Higher is better; 0 or 1, between them where the maximum is shared; a blank map scores the object's share
    of the image; NaN (not counted) for an empty mask.

    Attributes:
        tolerance: distance in pixels up to which a maximum beside the object is a hit; 0 by default, 15 in
            the paper.
        ties: the ``"mean"`` over the pixels that share the maximum (default), or ``"any"``.

    Example:
        >>> camlucida.metrics.PointingGame(tolerance=15).names
        ('pointing_game',)
    """

    counts: ClassVar = pointing_game

    tolerance: NotNegative = 0.0
    ties: PeakTies = "mean"


@register(
    "top_k_mass",
    title="Top pixels on the object",
    **_SHARE,
    source="Arras et al. 2022 (CLEVR-XAI), relevance rank accuracy",
    needs=("masks",),
)
@dataclass(frozen=True)
class TopKMass(_OnObject):
    """Share of the k most salient pixels that lie on the object.

    Higher is better; 0 to 1; a blank map scores the object's share of the image; NaN (not counted) for an
    empty mask.

    Attributes:
        k: how many pixels; ``None`` (default) for as many as the object has.

    Example:
        >>> camlucida.metrics.TopKMass(k=100).names
        ('top_k_mass',)
    """

    counts: ClassVar = top_k_mass

    k: Count | None = None


def _boxes(scene: Scene, maps: Tensor, which: Which = "union") -> tuple[Tensor, Tensor]:
    """The filled boxes ``(N, H, W)`` of each image, and whether it has any, ``(N,)``."""
    filled = fill_boxes(scene.boxes, (int(maps.shape[1]), int(maps.shape[2])), which)
    return filled.to(maps.device), torch.tensor([len(b) > 0 for b in scene.boxes]).to(maps.device)
