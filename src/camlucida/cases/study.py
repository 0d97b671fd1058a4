"""Labelled photos in the four cases, with what was measured of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from camlucida.cases.numbers import mean, permutation_p, spearman
from camlucida.data.folders import Skipped
from camlucida.patchiness import VARIANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = {
    "confident-right": "confident and right",
    "confident-wrong": "confident and wrong",
    "unsure-right": "unsure and right",
    "unsure-wrong": "unsure and wrong",
}
HIGH = 0.98
"""Above this confidence the I-CAM authors see patchy maps."""

DIALLED = (0.1, 0.4, 0.6, 0.9, 0.98, 0.99, 0.999, 0.9999)
"""Confidences that images are dialled to."""


@dataclass(frozen=True)
class Case:
    """One photo.

    Attributes:
        file: the photo.
        case: a key of :data:`CASES`.
        true_class: name of its label's class.
        predicted_class: name of the most probable class, which is explained.
        confidence: its probability.
        saliency: share of the map inside the boxes (I-CAM eq. 32); ``None`` without boxes that the model sees.
        patchiness: Geary's C of the map in each of :data:`camlucida.patchiness.VARIANTS`; ``None`` for a
            constant map.
        levels: different values in the layer maps, as a share of their cells, likewise.
        islands: regions of the map above half its maximum.
        pole_share: entries of positive gradient beyond a pole of alpha; ``None`` for a map that is not finite.
        same: correlation of each variant's map with the exact one.
        messages: warnings about the map.
        seen: what the model saw, as JPEG, boxes drawn.
        mapped: the same under its map.
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
    messages: tuple[str, ...] = ()
    seen: bytes = field(default=b"", repr=False)
    mapped: bytes = field(default=b"", repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        return {k: v for k, v in vars(self).items() if k not in {"seen", "mapped"}}


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
        method: I-CAM's options.
        seed: of the perturbed copies and the permutation tests.
    """

    photos: tuple[Case, ...]
    threshold: float
    dial: Dial | None
    skipped: tuple[Skipped, ...]
    model: str
    method: dict[str, Any]
    seed: int

    def of(self, case: str) -> tuple[Case, ...]:
        """The photos of a case: the most confident first, of unsure ones the least."""
        found = [photo for photo in self.photos if photo.case == case]
        sign = -1 if case.startswith("confident") else 1
        return tuple(sorted(found, key=lambda photo: sign * photo.confidence))

    def table(self) -> list[dict[str, Any]]:
        """One row per case: number, mean confidence, saliency and patchiness."""
        return [
            {
                "case": case,
                "photos": len(found := self.of(case)),
                "confidence": mean([p.confidence for p in found]),
                "saliency": mean([p.saliency for p in found]),
                "with_boxes": sum(p.saliency is not None for p in found),
                "patchiness": mean([p.patchiness["exact"] for p in found]),
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
            "cases": self.table(),
            "saliency_of_right_predictions": mean(right),
            "patchiness_and_confidence": self.patchy(),
            "confidence_dialled": None if self.dial is None else vars(self.dial),
            "photos": [photo.to_dict() for photo in self.photos],
            "skipped": [{"file": str(path), "reason": reason} for path, reason in self.skipped],
        }

    def figure(self) -> Figure:
        """Patchiness against confidence: over the photos, and with confidence dialled."""
        from camlucida.cases.page import study_figure

        return study_figure(self)

    def html(self, most: int = 24) -> str:
        """The page: a section per case, and what was measured about patchiness; nothing is fetched.

        Args:
            most: photos shown per case, the clearest ones; all are counted.
        """
        from camlucida.cases.page import study_page

        return study_page(self, most)

    def __rich__(self) -> Any:
        """A table for the terminal."""
        from rich.table import Table

        table = Table(box=None, header_style="bold")
        for name in ("case", "photos", "confidence", "saliency", "patchiness"):
            table.add_column(name, justify="left" if name == "case" else "right")
        for row in self.table():
            table.add_row(
                CASES[row["case"]],
                str(row["photos"]),
                *(
                    "-" if row[k] is None else f"{row[k]:.3f}"
                    for k in ("confidence", "saliency", "patchiness")
                ),
            )
        return table
