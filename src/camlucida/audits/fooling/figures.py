"""Pictures of the fooling audits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.report import Illustration
from camlucida.audits.trial import Trial
from camlucida.common.statistics import mean_std
from camlucida.engine.maps import normalise, rectify, resize
from camlucida.explanation.overlays import View, colourise, grid, overlay
from camlucida.report.charts import Point, bars, matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 224  # pixels of a drawn map

FIGURE2 = (
    Candidate("gradcam"), Candidate("gradcam", "mean"), Candidate("gradcam", "max"), Candidate("gradcam", "lse"),
    Candidate("eigencam"),
)  # fmt: skip
"""The methods of the paper's Figure 2."""


def moves_drawn(
    trial: Trial,
    fooled: nn.Module,
    mask: Tensor,
    methods: Sequence[Candidate],
    found: Mapping[str, Mapping[str, Any]],
    control: Mapping[str, Mapping[str, Any]],
    named: Sequence[str] | None = None,
) -> list[Illustration]:
    """The paper's Figure 2 of a few images, and how far each method's maps were moved.

    Args:
        trial: the clean model, and the images that are drawn.
        fooled: the other.
        mask: that maps were pushed to, ``(h, w)``.
        methods: which were measured.
        found: what happened to their maps, by label.
        control: the same of the control.
        named: what the classes are called.
    """

    def mean(numbers: Mapping[str, Any]) -> tuple[float, float]:
        return mean_std(numbers.get("susceptibility", []))

    known = [one for one in methods if "error" not in found[one.label]]
    rows = [(o.label, *mean(found[o.label]), mean(control.get(o.label, {}))[0]) for o in known]
    rows.sort(key=lambda row: -row[1])
    shown = [one for one in FIGURE2 if any(k.label == one.label for k in known)]
    pictures = []
    if shown:
        caption = (
            "The same images explained on the clean and on the fooled model, as in Figure 2 of the paper; on the right "
            "the mask that the maps were pushed to."
        )
        pictures.append(panel(trial, fooled, shown, mask, caption, named))
    if rows:
        pictures.append(bar_chart(rows))
    return pictures


def panel(
    trial: Trial,
    fooled: nn.Module,
    methods: Sequence[Candidate],
    mask: Tensor,
    caption: str,
    named: Sequence[str] | None = None,
) -> Illustration:
    """Each image with its maps on the clean and on the fooled model, and the ``(h, w)`` mask they were pushed to.

    Raises:
        CamlucidaError: a method cannot explain the model.
    """
    size = (_SIDE, _SIDE)
    sides = (trial, replace(trial, model=fooled))
    drawn = [side.explain([one])[one.label] for one in methods for side in sides]
    wanted = colourise(resize(mask[None].float(), size, "nearest")[0])
    pictures = []
    for i in range(len(trial.inputs)):
        seen = drawn[0].views[i].cropped().resize(size, Image.Resampling.BICUBIC)
        view = View(seen, (0, 0, *size))
        maps = [normalise(resize(rectify(e.raw[i][None].float()), size))[0] for e in drawn]
        pictures.append([seen, *(overlay(view, one) for one in maps), wanted])
    short = [one.label.replace("DiffGradCAM", "Diff") for one in methods]
    columns = [f"{label}\n{side}" for label in short for side in ("clean", "fooled")]
    classes = [] if trial.classes is None else trial.classes.tolist()
    rows = [named[c].partition(",")[0] if named else f"class {c}" for c in classes]
    figure = grid(pictures, columns=["image", *columns, "mask"], rows=rows, cell=1.15)
    return Illustration.of("maps", caption, figure)


def bar_chart(rows: Sequence[tuple[str, float, float, float]]) -> Illustration:
    """Susceptibility by label: mean, standard deviation, and the mean under the control."""
    points = [Point(label, m, 0.0, max(m - s, 0.0), m + s, 1, other) for label, m, s, other in rows]
    caption = (
        "How far each method's maps were moved, with the standard deviation over images; the black marks are the "
        "control: the same training without an attack."
    )
    label = "mean squared distance of the maps before and after"
    return Illustration.chart(
        bars, "susceptibility", "Susceptibility", caption, points, x_label=label
    )


def attack_chart(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]
) -> Illustration:
    """Which attack moves which method: susceptibilities on grey, dark for far."""
    top = max((v for row in values for v in row if math.isfinite(v)), default=0.0) or 1.0
    caption = (
        "Each row is a copy that was fine-tuned against one map, each column a method that explains it. Which copies "
        "were broken rather than fooled, the table below says."
    )
    return Illustration.chart(
        matrix, "attackers", "Which attack moves which method", caption, rows, columns,
        [[v / top for v in row] for row in values],
        texts=[[f"{v:.2f}".removeprefix("0") for v in row] for row in values],
        row_title="attacked map", column_title="evaluated method",
    )  # fmt: skip


def residual_figure(found: Mapping[str, Any]) -> Figure:
    """Variance of each aggregator against the number of classes, measured and by formula."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = {"mean": "o", "lae": "s", "max": "^"}
    names = {"mean": "mean", "lae": "log of average exp", "max": "maximum"}
    rows = [r for r in found["by_classes"] if r["sigma"] == found["sigma"]]
    classes = [r["classes"] for r in rows]
    for key, marker in styles.items():
        left.loglog(
            classes, [r[f"var_{key}"] for r in rows], f"k{marker}", label=names[key], mfc="0.8"
        )
    left.loglog(classes, [r["formula_mean"] for r in rows], "k-", lw=1, label="σ² / (M − 1)")
    left.loglog(
        classes, [r["formula_max"] for r in rows], "k--", lw=1, label="π²σ² / (12 ln(M − 1))"
    )
    left.loglog(
        classes, [r["published_max"] for r in rows], ":", color="0.4", lw=1,
        label="as published: twice that",
    )  # fmt: skip
    left.set_xlabel(f"classes M, residuals of standard deviation {found['sigma']:g}")
    left.set_ylabel("variance of what is subtracted")
    left.legend(fontsize=7)
    spread = found["by_sigma"]
    sigma = [r["sigma"] for r in spread]
    right.loglog(sigma, [r["gap"] for r in spread], "ko", mfc="0.8", label="measured")
    right.loglog(sigma, [s * s / 2 for s in sigma], "k-", lw=1, label="σ² / 2")
    right.set_xlabel(f"σ, {spread[0]['classes']} classes")
    right.set_ylabel("mean distance of soft\nmaximum and mean")
    right.legend(fontsize=7)
    return figure
