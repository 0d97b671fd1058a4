"""Cell analyses, drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from camlucida.render import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from camlucida.cells.analysis import CellAnalysis


def cells_figure(analysis: CellAnalysis, cell: float = 1.1) -> Figure:
    """The maps tiled as the cells lie, see :meth:`CellAnalysis.figure`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Rectangle

    all_rows = sorted({facts.row for facts in analysis.cells})
    all_columns = sorted({facts.col for facts in analysis.cells})
    rows, columns = len(all_rows), len(all_columns)
    tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    figure = Figure(figsize=(cell * columns, cell * rows + 0.4), layout=tight)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for facts, attribution in zip(analysis.cells, analysis.maps, strict=True):
        axis = axes[all_rows.index(facts.row), all_columns.index(facts.col)]
        axis.imshow(np.asarray(overlay(analysis.view, attribution)))
        top, left, bottom, right = facts.nominal
        scale = analysis.view.scaled().picture.width / attribution.shape[1]
        axis.add_patch(
            Rectangle(
                (left * scale - 0.5, top * scale - 0.5),
                (right - left) * scale,
                (bottom - top) * scale,
                fill=False,
                edgecolor="white",
                linewidth=1,
            )
        )
    inside, chance = analysis.mean("inside"), analysis.chance
    figure.suptitle(
        f"{analysis.layer}: {inside:.0%} of a cell's attribution lies on the patch under it "
        f"(chance {chance:.0%})",
        fontsize=9,
    )
    return figure


def depth_figure(analyses: Sequence[CellAnalysis]) -> Figure:
    """Share of a cell's attribution on its patch, and its spread, against depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = range(len(analyses))
    labels = [f"{a.layer}\n{a.size[0]}x{a.size[1]}" for a in analyses]
    left.plot(places, [a.mean("inside") for a in analyses], "o-", color="black", label="measured")
    left.plot(places, [a.chance for a in analyses], "s--", color="0.5", label="chance")
    left.set_ylabel("share of attribution on the patch")
    left.set_ylim(0, 1)
    left.legend(fontsize=7)
    right.plot(
        places, [a.mean("rms_radius") for a in analyses], "o-", color="black", label="spread"
    )
    right.plot(places, [a.mean("offset") for a in analyses], "^:", color="0.35", label="offset")
    half = [
        math.hypot(a.maps.shape[1] / a.size[0], a.maps.shape[2] / a.size[1]) / math.sqrt(12)
        for a in analyses
    ]
    right.plot(places, half, "s--", color="0.5", label="spread of an even patch")
    right.set_ylabel("pixels")
    right.legend(fontsize=7)
    for axis in (left, right):
        axis.set_xticks(list(places), labels, rotation=60, ha="right", fontsize=6)
    return figure
