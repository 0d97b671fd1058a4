"""Examples, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from camlucida import render
from camlucida.explanation.names import name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from camlucida.examples.nearest import Examples
    from camlucida.explanation import Explanation


def examples_figure(examples: Examples) -> Figure:
    """Two rows per class: the photo and its neighbours, and their maps below."""
    width = 1 + max(len(side.neighbours) for side in examples.sides)
    size = examples.sides[0].explanation.seen().picture.size
    blank = Image.new("RGB", size, "white")
    rows: list[list[Image.Image]] = []
    labels: list[str] = []
    captions: dict[int, str] = {}
    for side in examples.sides:
        drawn = [side.explanation, *(n.explanation for n in side.neighbours)]
        words = [name_of(examples.photo or "photo")] + [
            f"{name_of(n.photo.path)}\ndistance {n.distance:.3f}" for n in side.neighbours
        ]
        captions |= {len(rows) * width + i: text for i, text in enumerate(words)}
        empty = [blank] * (width - len(drawn))
        rows.append([_seen(e) for e in drawn] + empty)
        rows.append([_seen(e, mapped=True) for e in drawn] + empty)
        labels += [f"{side.role} class:\n{side.class_name.partition(',')[0]}", "I-CAM"]
    figure = render.grid(rows, rows=labels, cell=1.9)
    for position, text in captions.items():
        figure.axes[position].set_title(text, fontsize=6.5, parse_math=False)
    return figure


def _seen(explanation: Explanation, *, mapped: bool = False) -> Image.Image:
    """What the model saw of a photo, under its map if ``mapped``."""
    seen = explanation.seen()
    return render.overlay(seen, explanation.maps[0]) if mapped else seen.picture
