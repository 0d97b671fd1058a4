"""Labelled photos in the four cases, with what was measured of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import mean, permutation_p, spearman
from camlucida.data.samples import Skipped
from camlucida.explanation.diagnostics import CASES
from camlucida.report import Table
from camlucida.studies.icam.four_cases.page import cases_table, patchiness_tables, study_page
from camlucida.studies.icam.four_cases.patchiness import HIGH, VARIANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIALLED = (0.1, 0.4, 0.6, 0.9, 0.98, 0.99, 0.999, 0.9999)
"""Confidences that images are dialled to."""


@dataclass(frozen=True)
class NearPhoto:
    """A training photo near a wrongly predicted one.

    Attributes:
        file: the photo.
        distance: one minus the cosine of the features.
        seen: what the model saw, as JPEG.
        mapped: the same under its map for its own class.
    """

    file: str
    distance: float
    seen: bytes = field(default=b"", repr=False)
    mapped: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class CaseSide:
    """A class that a wrongly predicted photo is explained for.

    Attributes:
        role: ``"predicted"`` or ``"true"``.
        class_name: its name.
        mapped: the photo under its map for this class, as JPEG.
        nearest: the nearest training photos of this class.
    """

    role: str
    class_name: str
    mapped: bytes = field(default=b"", repr=False)
    nearest: tuple[NearPhoto, ...] = ()


@dataclass(frozen=True)
class CasePhoto:
    """One photo, and what was measured of its map.

    Attributes:
        file: the photo.
        case: a key of :data:`CASES`.
        true_class: name of its label's class.
        predicted_class: name of the most probable class.
        confidence: its probability.
        saliency: share of the map inside the boxes (I-CAM eq. 32); ``None`` without boxes that the model sees.
        patchiness: Geary's C of the map in each of
            :data:`camlucida.studies.icam.four_cases.patchiness.VARIANTS`; ``None`` for a constant map. It and the three
            that belong to it are empty where I-CAM's numerics were not studied.
        levels: different values in the layer maps, as a share of their cells, likewise.
        islands: regions of the map above half its maximum.
        pole_share: entries of positive gradient beyond a pole of alpha; ``None`` for a map that is not finite.
        same: correlation of each variant's map with the exact one.
        explained: what was explained, with its value, in words.
        messages: warnings about the map.
        seen: what the model saw, as JPEG, boxes drawn.
        mapped: the same under its map.
        sides: of a wrong prediction, the maps of the predicted and of the true class, and what is near in each.
    """

    file: str
    case: str
    true_class: str
    predicted_class: str
    confidence: float
    saliency: float | None
    patchiness: dict[str, float | None]
    levels: dict[str, float | None]
    islands: int
    pole_share: float | None
    same: dict[str, float | None]
    explained: str = ""
    messages: tuple[str, ...] = ()
    seen: bytes = field(default=b"", repr=False)
    mapped: bytes = field(default=b"", repr=False)
    sides: tuple[CaseSide, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        told = {k: v for k, v in vars(self).items() if k not in {"seen", "mapped"}}
        told["sides"] = [
            {
                "role": side.role,
                "class_name": side.class_name,
                "nearest": [{"file": n.file, "distance": n.distance} for n in side.nearest],
            }
            for side in self.sides
        ]
        return told


@dataclass(frozen=True)
class Dial:
    """Means over images whose confidence was dialled.

    Attributes:
        images: their number.
        confidences: the confidences.
        patchiness: of each variant, one mean per confidence, without constant maps; ``None`` if all are.
        levels: of each variant, likewise.
        same: correlation with the exact map at the same confidence, likewise.
        constant: of each variant, the number of constant maps at each confidence.
        pole_share: one mean per confidence.
    """

    images: int
    confidences: tuple[float, ...]
    patchiness: dict[str, list[float | None]]
    levels: dict[str, list[float | None]]
    same: dict[str, list[float | None]]
    constant: dict[str, list[int]]
    pole_share: list[float | None]


@dataclass(frozen=True)
class CaseStudy:
    """All photos of a folder, by case.

    Attributes:
        photos: in the folder's order.
        threshold: confidence from which on a prediction is confident.
        dial: the experiment on confidence alone; ``None`` if it was not run.
        skipped: what could not be used, with the reason.
        model: its name.
        method: the method and its options.
        seed: of methods that draw random numbers, and of the permutation tests.
        selection: F1 of the classes that the paper's selection leaves; empty where all photos were taken.

    Example:
        >>> study = camlucida.studies.icam.cases(loaded, "photos")
        >>> page = study.html()
    """

    photos: tuple[CasePhoto, ...]
    threshold: float
    dial: Dial | None
    skipped: tuple[Skipped, ...]
    model: str
    method: dict[str, Any]
    seed: int
    selection: dict[str, float] = field(default_factory=dict)

    @property
    def has_numerics(self) -> bool:
        """Whether what I-CAM's numerics do to its maps was studied."""
        return any(photo.patchiness for photo in self.photos)

    def of(self, case: str) -> tuple[CasePhoto, ...]:
        """The photos of a case: the most confident first, of unsure ones the least."""
        found = [photo for photo in self.photos if photo.case == case]
        sign = -1 if case.startswith("confident") else 1
        return tuple(sorted(found, key=lambda photo: sign * photo.confidence))

    def table(self) -> list[dict[str, Any]]:
        """One row per case: number, mean confidence, the map's share in the boxes, and its number of spots."""
        return [
            {
                "case": case,
                "photos": len(found := self.of(case)),
                "confidence": mean([p.confidence for p in found]),
                "saliency": mean([p.saliency for p in found]),
                "with_boxes": sum(p.saliency is not None for p in found),
                "patchiness": mean([p.patchiness.get("exact") for p in found]),
                "islands": mean([float(p.islands) for p in found]),
            }
            for case in CASES
        ]

    def patchy(self) -> list[dict[str, Any]]:
        """One row per variant: how patchiness goes with confidence, and how far maps are from the exact ones.

        ``p`` is that of a permutation test (two-sided) of the difference of the means above and up to 0.98;
        ``None`` where one of the two groups is empty.
        """
        rows = []
        for variant in VARIANTS:
            pairs = [
                (p.confidence, c) for p in self.photos if (c := p.patchiness[variant]) is not None
            ]
            confidence = np.array([c for c, _ in pairs])
            value = np.array([v for _, v in pairs])
            above, below = value[confidence > HIGH], value[confidence <= HIGH]
            rows.append({
                "variant": variant,
                "photos": len(pairs),
                "constant_maps": len(self.photos) - len(pairs),
                "spearman": spearman(confidence, value),
                "above": mean(above.tolist()),
                "above_photos": len(above),
                "below": mean(below.tolist()),
                "p": permutation_p(above, below, self.seed),
                "same": mean([p.same[variant] for p in self.photos]),
                "levels": mean([p.levels[variant] for p in self.photos]),
            })  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        right = [p.saliency for p in self.photos if p.case.endswith("right")]
        return {
            "model": self.model,
            "method": self.method,
            "seed": self.seed,
            "threshold": self.threshold,
            "selection": self.selection,
            "cases": self.table(),
            "saliency_of_right_predictions": mean(right),
            "patchiness_and_confidence": self.patchy() if self.has_numerics else None,
            "confidence_dialled": None if self.dial is None else vars(self.dial),
            "photos": [photo.to_dict() for photo in self.photos],
            "skipped": [{"file": str(path), "reason": reason} for path, reason in self.skipped],
        }

    @property
    def tables(self) -> tuple[Table, ...]:
        """The cases, patchiness over the photos, and what dialling the confidence does."""
        return (cases_table(self), *(patchiness_tables(self) if self.has_numerics else ()))

    def figure(self) -> Figure:
        """Of the study of I-CAM's numerics: patchiness against confidence, over photos and with confidence dialled.

        Raises:
            CamlucidaError: it was not made.
        """
        if not self.has_numerics:
            raise CamlucidaError("I-CAM's numerics were not studied; say dial=0 or more photos")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for variant in VARIANTS:
            pen = {
                "color": "black",
                "fillstyle": "none",
                "marker": _MARKERS[variant],
                "label": variant,
            }
            points = [
                (_stretched(p.confidence), v)
                for p in self.photos
                if (v := p.patchiness[variant]) is not None
            ]
            left.plot(
                [c for c, _ in points], [v for _, v in points], linestyle="", markersize=5, **pen
            )
            if self.dial is not None:
                line = [math.nan if v is None else v for v in self.dial.patchiness[variant]]
                places = [_stretched(c) for c in self.dial.confidences]
                right.plot(places, line, _LINES[variant], markersize=4, linewidth=0.9, **pen)
        left.set_title("each photo", fontsize=9)
        dialled = "not run" if self.dial is None else f"mean of {self.dial.images} photos"
        right.set_title(f"confidence dialled: {dialled}", fontsize=9)
        for axis in (left, right):
            axis.set_xticks([_stretched(t) for t in _TICKS], [f"{t:g}" for t in _TICKS], fontsize=7)
            axis.axvline(_stretched(HIGH), color="grey", linewidth=0.8, linestyle=":")
            axis.set_xlabel("confidence (by odds)", fontsize=8)
            axis.tick_params(axis="y", labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
        left.set_ylabel("patchiness (Geary's C)\nsmooth at 0, no order at 1", fontsize=8)
        left.legend(fontsize=7, frameon=False)
        return figure

    def html(self, most: int = 24) -> str:
        """The page: a section per case, and the study of I-CAM's numerics where it was made; nothing is fetched.

        Args:
            most: photos shown per case, the clearest ones; all are counted.
        """
        return study_page(self, most)

    def __rich__(self) -> Any:
        """The cases, as a table for the terminal."""
        return cases_table(self).rich()


_MARKERS = {"exact": "o", "float32 bias": "x", "no alpha": "^", "no alpha, float32 bias": "+"}
_LINES = {"exact": "-", "float32 bias": "--", "no alpha": ":", "no alpha, float32 bias": "-."}
_TICKS = (0.01, 0.1, 0.5, 0.9, 0.98, 0.999, 0.9999)


def _stretched(confidence: float) -> float:
    """Confidences by their odds, so that those near 1 are told apart."""
    kept = min(max(confidence, 1e-5), 1 - 1e-5)
    return math.log10(kept / (1 - kept))
