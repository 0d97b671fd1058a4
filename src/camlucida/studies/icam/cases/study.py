"""Labelled photos in the four cases, with what was measured of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from camlucida.common.printable import name_of
from camlucida.common.statistics import mean, permutation_p, spearman
from camlucida.data.samples import Skipped
from camlucida.explanation import overlays
from camlucida.explanation.diagnostics import CASES
from camlucida.report.template import data_uri, page
from camlucida.studies.icam.cases.patchiness import VARIANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        patchiness: Geary's C of the map in each of
            :data:`camlucida.studies.icam.cases.patchiness.VARIANTS`; ``None`` for a constant map.
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
        return study_figure(self)

    def html(self, most: int = 24) -> str:
        """The page: a section per case, and what was measured about patchiness; nothing is fetched.

        Args:
            most: photos shown per case, the clearest ones; all are counted.
        """
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


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MARKERS = {"exact": "o", "float32 bias": "x", "no alpha": "^", "no alpha, float32 bias": "+"}


_LINES = {"exact": "-", "float32 bias": "--", "no alpha": ":", "no alpha, float32 bias": "-."}


def study_page(study: CaseStudy, most: int) -> str:
    """The page, see :meth:`camlucida.studies.icam.cases.CaseStudy.html`."""
    sections = [
        {
            "id": case,
            "title": title,
            "count": len(found := study.of(case)),
            "photos": [
                {
                    **photo.to_dict(),
                    "name": name_of(photo.file),
                    "seen": data_uri(photo.seen, "image/jpeg"),
                    "mapped": data_uri(photo.mapped, "image/jpeg"),
                }
                for photo in found[:most]
            ],
        }
        for case, title in CASES.items()
    ]
    return page(
        "cases.html",
        study=study,
        sections=sections,
        table=study.table(),
        titles=CASES,
        patchy=study.patchy(),
        variants=VARIANTS,
        high=HIGH,
        plot=data_uri(overlays.png(study.figure()), "image/png"),
    )


def study_figure(study: CaseStudy) -> Figure:
    """Patchiness against confidence: over the photos, and with confidence dialled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for variant in VARIANTS:
        points = [(p.confidence, p.patchiness[variant]) for p in study.photos]
        left.plot(
            [_stretched(c) for c, v in points if v is not None],
            [v for _, v in points if v is not None],
            _MARKERS[variant],
            color="black",
            fillstyle="none",
            markersize=5,
            label=variant,
        )
        if study.dial is not None:
            line = [math.nan if v is None else v for v in study.dial.patchiness[variant]]
            right.plot(
                [_stretched(c) for c in study.dial.confidences],
                line,
                _LINES[variant],
                marker=_MARKERS[variant],
                color="black",
                fillstyle="none",
                markersize=4,
                linewidth=0.9,
                label=variant,
            )
    for axis, title in ((left, "each photo"), (right, _dial_title(study.dial))):
        _confidence_axis(axis)
        axis.set_title(title, fontsize=9)
    left.set_ylabel("patchiness (Geary's C)\nsmooth at 0, no order at 1", fontsize=8)
    left.legend(fontsize=7, frameon=False)
    return figure


def _stretched(confidence: float) -> float:
    """Confidences by their odds, so that those near 1 are told apart."""
    kept = min(max(confidence, 1e-5), 1 - 1e-5)
    return math.log10(kept / (1 - kept))


def _confidence_axis(axis: Axes) -> None:
    ticks = (0.01, 0.1, 0.5, 0.9, 0.98, 0.999, 0.9999)
    axis.set_xticks([_stretched(t) for t in ticks], [f"{t:g}" for t in ticks], fontsize=7)
    axis.axvline(_stretched(HIGH), color="grey", linewidth=0.8, linestyle=":")
    axis.set_xlabel("confidence (by odds)", fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)


def _dial_title(dial: Dial | None) -> str:
    if dial is None:
        return "confidence dialled: not run"
    return f"confidence dialled, mean of {dial.images} photos"
