"""Pictures of the sanity audit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROOM = 90  # letters that fit side by side below the axis
_STYLES = ("o-", "s--", "^-.", "D:", "v-", "P--", "X-.", "<:")
_COLOURS = ("#111111", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9")


def cascade_figure(
    curves: Mapping[str, Sequence[float | None]], stages: Sequence[str], bound: float = 0.5
) -> Figure:
    """Similarity after each stage of redrawing, by method; told apart by marker and dash too.

    Args:
        curves: by method, one number per stage; ``None`` leaves it out.
        stages: names, from the output down.
        bound: drawn as a line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axis = figure.subplots()
    places = range(len(stages) + 1)
    for i, (label, values) in enumerate(curves.items()):
        shown = [
            (x, v)
            for x, v in zip(places, (1.0, *values), strict=True)
            if v is not None and math.isfinite(v)
        ]
        axis.plot(
            [x for x, _ in shown], [v for _, v in shown], _STYLES[i % len(_STYLES)],
            color=_COLOURS[i % len(_COLOURS)], label=label, markersize=4.5, linewidth=1.3,
        )  # fmt: skip
    axis.axhline(bound, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)))
    axis.annotate(
        "bound",
        (len(stages), bound),
        textcoords="offset points",
        xytext=(0, 3),
        fontsize=8,
        ha="right",
    )
    names = ["as trained", *(s.replace(" to ", "\nto ") for s in stages)]
    longest = max(len(line) for name in names for line in name.splitlines())
    slanted: dict[str, Any] = (
        {"rotation": 35, "ha": "right"} if longest * len(names) > _ROOM else {}
    )
    axis.set_xticks(list(places), names, fontsize=7, **slanted)
    axis.set_ylabel("rank correlation with the model's map")
    axis.set_ylim(top=1.03)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
