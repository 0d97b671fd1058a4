"""What a map has to do with the boxes of its photo, and both drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from camlucida.data.samples import Box
from camlucida.explanation import Explanation, overlays


def box_mask(
    boxes: Sequence[Box], view: tuple[float, float, float, float], size: tuple[int, int]
) -> Tensor:
    """The union of boxes as the model sees it.

    Args:
        boxes: ``(xmin, ymin, xmax, ymax)`` in pixels of the photo.
        view: the part of the photo that the model sees, ``(left, top, right, bottom)``, see
            :meth:`camlucida.Preprocess.crop_box`.
        size: (H, W) of the input.

    Returns:
        bool ``(H, W)``: the pixels whose centre lies in a box.
    """
    left, top, right, bottom = view
    x = left + (torch.arange(size[1], dtype=torch.float64) + 0.5) * (right - left) / size[1]
    y = top + (torch.arange(size[0], dtype=torch.float64) + 0.5) * (bottom - top) / size[0]
    mask = torch.zeros(size, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        mask |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    return mask


def saliency_score(attribution: Tensor, mask: Tensor) -> float:
    """The share of a map ``(H, W)`` that lies in a mask (I-CAM eq. 32); 0 for an empty map."""
    total = float(attribution.double().sum())
    return float(attribution.double()[mask.to(attribution.device)].sum()) / total if total else 0.0


def drawn(explanation: Explanation, boxes: Sequence[Box]) -> tuple[Image.Image, Image.Image]:
    """What the model saw of one photo, with the boxes in black and white, and the same under its map."""
    seen = explanation.seen()
    picture, (width, height) = seen.picture, seen.picture.size
    mapped = overlays.overlay(seen, explanation.maps[0])
    left, top, right, bottom = explanation.views[0].box
    for drawing in (ImageDraw.Draw(picture), ImageDraw.Draw(mapped)):
        for x0, y0, x1, y1 in boxes:
            corners = (
                (x0 - left) / (right - left) * width,
                (y0 - top) / (bottom - top) * height,
                (x1 - left) / (right - left) * width,
                (y1 - top) / (bottom - top) * height,
            )
            drawing.rectangle(corners, outline="black", width=4)
            drawing.rectangle(corners, outline="white", width=2)
    return picture, mapped
