"""pytorch-grad-cam's pictures: a photo as a model's input, and a map over a photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from camlucida.common.errors import ImageError

__all__ = ["preprocess_image", "show_cam_on_image"]

_OPENCV = {2: "jet", 13: "magma", 14: "inferno", 15: "plasma", 16: "viridis", 20: "turbo"}
"""OpenCV's numbers of colour maps, by matplotlib's names."""


def preprocess_image(
    img: np.ndarray[Any, Any],
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """A photo ``(H, W, 3)``, bytes or values in [0, 1], as an input ``(1, 3, H, W)``."""
    values = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1).float()
    values = values / 255 if img.dtype == np.uint8 else values
    return ((values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]


def show_cam_on_image(
    img: np.ndarray[Any, Any],
    mask: np.ndarray[Any, Any],
    use_rgb: bool = False,
    colormap: int | str = "jet",
    image_weight: float = 0.5,
) -> np.ndarray[Any, Any]:
    """A map over a photo, as bytes ``(H, W, 3)``.

    Args:
        img: the photo, values in [0, 1].
        mask: the map ``(H, W)`` in [0, 1].
        use_rgb: whether the photo's colours stand in the order RGB; BGR, as OpenCV reads, otherwise.
        colormap: a name of matplotlib, or one of OpenCV's numbers.
        image_weight: how much of the photo shows, 0 to 1.

    Raises:
        ImageError: the photo's values or the weight are out of range, or the number is not known.
    """
    name = _OPENCV.get(colormap) if isinstance(colormap, int) else colormap
    if name is None:
        raise ImageError(
            f"the colour map {colormap} is not known; name one of matplotlib, such as 'jet'"
        )
    if img.max() > 1:
        raise ImageError(f"the photo's values must lie in [0, 1], the largest is {img.max():.4g}")
    if not 0 <= image_weight <= 1:
        raise ImageError(f"image_weight must lie in [0, 1], got {image_weight}")
    levels = (255 * mask).astype(np.uint8)
    colours = _jet() if name == "jet" else np.asarray(mpl.colormaps[name](np.arange(256)))[:, :3]
    heat = colours[levels]
    both = (1 - image_weight) * (heat if use_rgb else heat[..., ::-1]) + image_weight * img
    drawn: np.ndarray[Any, Any] = (255 * both / both.max()).astype(np.uint8)
    return drawn


def _jet() -> np.ndarray[Any, Any]:
    """OpenCV's colours, which differ from matplotlib's of that name, ``(256, 3)``."""
    steps = 4 * np.linspace(0, 1, 256)[:, None]
    colours: np.ndarray[Any, Any] = np.clip(1.5 - np.abs(steps - np.array([3, 2, 1])), 0, 1)
    return colours
