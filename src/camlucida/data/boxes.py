"""Boxes and masks of a photo in the pixels of the model's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.data.preprocess import Preprocess


def map_boxes(
    boxes: Tensor | Sequence[Sequence[float]],
    size: tuple[int, int],
    preprocess: Preprocess,
    *,
    legacy: bool = False,
    truncate: bool = True,
) -> Tensor:
    """Boxes of a photo in the pixels of the model's input (FAME, table 2: the IoU protocol).

    The boxes go through the very resize and crop that the photo goes through. Published formulas leave out
    that the resized sides are whole numbers of pixels, and so is the crop's corner: they are less than one
    pixel away.

    Args:
        boxes: ``(n, 4)`` as ``xmin, ymin, xmax, ymax`` in pixels of the photo, the right and lower edges
            exclusive: a box over the whole photo is ``0, 0, width, height``.
        size: ``(width, height)`` of the photo, as PIL says it.
        preprocess: how the photo becomes the input.
        legacy: scale x and y independently by ``resize / width`` and ``resize / height`` and subtract half of
            ``resize - size``, as the scripts behind FAME's published numbers did: up to 23 pixels off where
            the photo is not square.
        truncate: cut to whole pixels, towards zero; as published.

    Returns:
        ``(n, 4)`` in pixels of the input, cut at its edges, in the given order; whole numbers (``int64``)
        if truncated, else ``float64``. A box that the crop leaves out stays in its place, with no area.

    Raises:
        CamlucidaError: the boxes have another shape, or hold numbers that are not finite; the photo has no
            pixels; or ``legacy`` is asked for where the preprocessing has no crop after an aspect-preserving
            resize.
    """
    given = torch.as_tensor(boxes, dtype=torch.float64)
    if given.numel() == 0:
        given = given.reshape(0, 4)
    if given.ndim != 2 or given.shape[1] != 4:
        raise CamlucidaError(
            f"boxes must be (n, 4) as xmin, ymin, xmax, ymax, got shape {tuple(given.shape)}"
        )
    if not bool(given.isfinite().all()):
        raise CamlucidaError("boxes must hold finite numbers only")
    if not len(given) and not legacy:
        return given.long() if truncate else given
    width, height = size
    left, top, right, bottom = preprocess.crop_box(width, height)
    rows, columns = preprocess.size
    if legacy:
        if not isinstance(preprocess.resize, int) or not preprocess.crop:
            raise CamlucidaError(
                "legacy boxes are those of a resize of the shorter side with a centre crop; this "
                f"preprocessing has resize={preprocess.resize}, crop={preprocess.crop}"
            )
        scale = [preprocess.resize / width, preprocess.resize / height]
        shift = [(preprocess.resize - columns) / 2, (preprocess.resize - rows) / 2]
        mapped = given * given.new_tensor(scale * 2) - given.new_tensor(shift * 2)
    else:
        scale = [columns / (right - left), rows / (bottom - top)]
        mapped = (given - given.new_tensor([left, top] * 2)) * given.new_tensor(scale * 2)
    # An edge that lies on a pixel's edge must not fall below it by rounding.
    whole = mapped.round()
    mapped = torch.where((mapped - whole).abs() < 1e-9, whole, mapped)
    limit = given.new_tensor([columns, rows] * 2)
    mapped = mapped.clamp_min(0).minimum(limit)
    return mapped.long() if truncate else mapped


def map_mask(mask: Tensor, preprocess: Preprocess) -> Tensor:
    """An exact mask of a photo in the pixels of the model's input.

    It goes through the very resize and crop that the photo goes through, with nearest-neighbour resampling:
    each input pixel takes the mask's value under its centre.

    Args:
        mask: ``(..., H, W)``, boolean or of any type whose non-zero values belong to the object, as large as
            the photo.
        preprocess: how the photo becomes the input.

    Returns:
        Boolean, ``(..., h, w)`` with the input's size; ``False`` where the model sees padding.

    Raises:
        CamlucidaError: the mask has fewer than two dimensions or no pixels, or the preprocessing does not take
            a photo of its size.
    """
    if mask.ndim < 2 or 0 in mask.shape[-2:]:
        raise CamlucidaError(f"a mask must be (..., H, W) with pixels, got {tuple(mask.shape)}")
    flat = (mask != 0).reshape(-1, *mask.shape[-2:]).cpu().numpy()
    seen = [
        preprocess.mask(Image.fromarray(one.astype(np.uint8) * 255).convert("RGB")) for one in flat
    ]
    size = (*mask.shape[:-2], *preprocess.size)
    return torch.stack(seen).reshape(size).to(mask.device) if seen else mask.new_zeros(size).bool()
