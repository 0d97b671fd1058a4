"""Pictures of the dead-zone audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.audits.deadzone.activity import PAPER, Zones, pictures_of
from camlucida.audits.deadzone.proof import DeadZone
from camlucida.audits.report import Illustration
from camlucida.audits.request import Tested
from camlucida.engine.maps import resize
from camlucida.explanation import Explanation
from camlucida.explanation.overlays import View, grid, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RED = (220, 30, 30)
_SIDE = 224  # pixels of a drawn map's longer side


def zone_figure(
    explanations: Mapping[str, Explanation], zone: DeadZone, rows: Sequence[str]
) -> Figure:
    """Maps of the same images by several methods, the dead zone framed in red.

    Args:
        explanations: by label.
        zone: pixels, or cells, which are enlarged to the image.
        rows: a label for each image.
    """
    first = next(iter(explanations.values()))
    pictures = []
    height, width = first.maps.shape[1:]
    longer = max(height, width)
    size = (max(1, round(_SIDE * width / longer)), max(1, round(_SIDE * height / longer)))
    for i in range(len(rows)):
        seen = first.views[i].cropped().resize(size, Image.Resampling.BICUBIC)
        pictures.append(
            [
                framed(seen, zone),
                *(
                    framed(overlay(View(seen, (0, 0, *size)), e.maps[i]), zone)
                    for e in explanations.values()
                ),
            ]
        )
    return grid(pictures, columns=["image", *explanations], rows=rows, cell=1.5)


def framed(picture: Image.Image, zone: DeadZone, width: int = 2) -> Image.Image:
    """A picture with a red line along the edge of the dead zone, inside it.

    Args:
        picture: of what the model saw.
        zone: of any resolution.
        width: of the line in pixels.
    """
    size = (picture.height, picture.width)
    mask = resize(zone.mask[None].double(), size, "nearest")[0] > 0.5
    padded = torch.nn.functional.pad(~mask[None, None], (width,) * 4, value=True).float()
    near = torch.nn.functional.max_pool2d(padded, 2 * width + 1, 1)[0, 0].bool()
    array = np.asarray(picture.convert("RGB")).copy()
    array[(mask & near).numpy()] = _RED
    return Image.fromarray(array)


def curve_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Accuracy after each epoch, by network; told apart by marker and dash too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    styles = ("o-", "s--", "^:", "d-.")
    greys = ("black", "0.35", "0.2", "0.5")
    for (label, curve), style, grey in zip(curves.items(), styles, greys, strict=False):
        axis.plot(
            [row["epoch"] + 1 for row in curve],
            [100 * row["score"] for row in curve],
            style,
            color=grey,
            label=label,
        )
    axis.axhline(10, color="0.7", linewidth=1)
    axis.set_xlabel("epoch (the grey line is chance)")
    axis.set_ylabel("accuracy, %")
    axis.set_ylim(0, 100)
    axis.legend(fontsize=8)
    return figure


def zone_picture(
    model: nn.Module,
    inputs: Tensor,
    chosen: Sequence[Tested],
    zones: Zones,
    classes: tuple[Tensor, Tensor] | None,
    preprocess: Any,
    seed: int,
) -> Illustration | None:
    """Maps of the first three images by up to ten methods, the paper's first; ``None`` where there are none.

    Args:
        model: behind its wall.
        inputs: ``(N, C, H, W)``.
        chosen: methods that can explain it.
        zones: what is dead.
        classes: seen and unseen class of each image, where they are known.
        preprocess: of the model.
        seed: of methods that draw.
    """
    first = [one for one in chosen if one.name in {*PAPER, "layercam", "fame"}]
    shown = (first or list(chosen))[:10]
    few = inputs[:3]
    explained = {
        one.label: e
        for one in shown
        if (e := pictures_of(model, few, one, zones, preprocess=preprocess, seed=seed)) is not None
    }
    if not explained:
        return None
    rows = (
        [f"image {i + 1}" for i in range(len(few))]
        if classes is None
        else [f"{int(a)} above {int(b)}" for a, b in zip(classes[0], classes[1], strict=True)][
            : len(few)
        ]
    )
    zone = zones.pixels if zones.judged == "pixels" else zones.cells
    assert zone is not None  # noqa: S101
    what = "pixels" if zone is zones.pixels else "cells"
    return Illustration.of(
        "maps",
        f"Maps of the predicted class. Within the red frame lies what the model provably does not see ({what}); "
        "anything bright there is untrue.",
        zone_figure(explained, zone, rows),
    )
