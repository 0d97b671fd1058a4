"""The four cases as a page and a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from camlucida import render
from camlucida.cases.study import CASES, HIGH
from camlucida.explanation.names import name_of
from camlucida.pages import data_uri, page
from camlucida.patchiness import VARIANTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from camlucida.cases.study import CaseStudy, Dial

_MARKERS = {"exact": "o", "float32 bias": "x", "no alpha": "^", "no alpha, float32 bias": "+"}
_LINES = {"exact": "-", "float32 bias": "--", "no alpha": ":", "no alpha, float32 bias": "-."}


def study_page(study: CaseStudy, most: int) -> str:
    """The page, see :meth:`camlucida.cases.CaseStudy.html`."""
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
        plot=data_uri(render.png(study.figure()), "image/png"),
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
