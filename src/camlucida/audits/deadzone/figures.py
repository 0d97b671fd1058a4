"""Pictures of the dead-zone audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor

from camlucida.audits.candidates import Candidate
from camlucida.audits.deadzone.activity import PAPER, Zones
from camlucida.audits.deadzone.proof import DeadZone
from camlucida.audits.report import Illustration
from camlucida.audits.trial import Trial
from camlucida.engine.maps import resize
from camlucida.explanation import Explanation
from camlucida.explanation.overlays import View, grid, overlay
from camlucida.report.charts import Line, lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RED = (220, 30, 30)
_SIDE = 224  # pixels of a drawn map's longer side


def zone_picture(
    trial: Trial,
    chosen: Sequence[Candidate],
    zones: Zones,
    classes: tuple[Tensor, Tensor] | None = None,
) -> Illustration | None:
    """Maps of the first three images by up to ten methods, the paper's first; ``None`` where there are none.

    ``classes`` are the seen and the unseen class of each image, where they are known.
    """
    first = [one for one in chosen if one.name in {*PAPER, "layercam", "fame"}]
    few = replace(trial.few(3), layer=zones.layer)
    explained = {}
    for one in (first or chosen)[:10]:
        if not isinstance(e := few.maps([one])[one.label], str):
            explained[one.label] = e
    zone = zones.pixels if zones.judged == "pixels" else zones.cells
    if not explained or zone is None:
        return None
    rows = [f"image {i + 1}" for i in range(len(few.inputs))]
    if classes is not None:
        rows = [f"{int(a)} above {int(b)}" for a, b, _ in zip(*classes, rows, strict=False)]
    through = (
        ""
        if zones.judged == "pixels"
        else " The pixels below may reach the head through other cells."
    )
    return Illustration.of(
        "maps",
        f"Maps of the predicted class. The red frame marks {zones.unseen}: nothing there moves the score, however "
        f"bright a map is.{through}",
        zone_grid(explained, zone, rows),
    )


def zone_grid(explained: Mapping[str, Explanation], zone: DeadZone, rows: Sequence[str]) -> Figure:
    """Images and their maps by several methods, the dead zone framed in red; ``rows`` names the images."""
    first = next(iter(explained.values()))
    height, width = first.maps.shape[1:]
    scale = _SIDE / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    pictures = []
    for i in range(len(rows)):
        seen = first.views[i].cropped().resize(size, Image.Resampling.BICUBIC)
        drawn = (overlay(View(seen, (0, 0, *size)), e.maps[i]) for e in explained.values())
        pictures.append([framed(picture, zone) for picture in (seen, *drawn)])
    return grid(pictures, columns=["image", *explained], rows=rows, cell=1.5)


def framed(picture: Image.Image, zone: DeadZone, width: int = 2) -> Image.Image:
    """A picture with a red line along the edge of the dead zone, inside it, so many pixels wide."""
    size = (picture.height, picture.width)
    mask = (resize(zone.mask[None].double(), size, "nearest")[0] > 0.5).numpy()
    array = np.asarray(picture.convert("RGB")).copy()
    array[mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), width)] = _RED
    return Image.fromarray(array)


def curve_chart(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Illustration:
    """Accuracy after each epoch, by network."""
    drawn = [
        Line(label, [r["epoch"] + 1 for r in curve], [100 * r["score"] for r in curve], style=i)
        for i, (label, curve) in enumerate(curves.items())
    ]
    caption = "Accuracy after each epoch on images with two digits, of which the one in the seen part is the label."
    return Illustration.chart(
        lines, "training", "Accuracy after each epoch", caption, drawn, x_label="epoch",
        y_label="accuracy, % (chance is 10)", y_range=(0, 100),
    )  # fmt: skip
