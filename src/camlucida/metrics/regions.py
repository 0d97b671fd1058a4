"""Boxes, filled boxes, connected regions and dilated masks: what localisation metrics are made of.

Results lie on the device of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from camlucida.common.errors import CamlucidaError

Which = Literal["first", "union"]
Connectivity = Literal[4, 8]


def whole_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``(n, 4)`` in whole pixels: cut towards zero, then at the edges."""
    limit = torch.tensor([size[1], size[0]] * 2, device=boxes.device)
    return boxes.reshape(-1, 4).long().clamp_min(0).minimum(limit)


def fill_boxes(boxes: Sequence[Tensor], size: tuple[int, int], which: Which = "union") -> Tensor:
    """Filled boxes as masks: rows ``ymin`` to ``ymax`` and columns ``xmin`` to ``xmax``, ends exclusive.

    Args:
        boxes: of each image, ``(n, 4)`` as ``xmin, ymin, xmax, ymax`` in pixels; cut to whole pixels.
        size: ``(H, W)`` of the masks.
        which: the ``"union"`` of all boxes of an image, or its ``"first"`` only.

    Returns:
        Boolean ``(N, H, W)``; empty for an image without boxes.

    Example:
        >>> camlucida.metrics.fill_boxes([torch.tensor([[0, 0, 2, 1]])], (2, 3)).int().tolist()
        [[[1, 1, 0], [0, 0, 0]]]
    """
    masks = []
    for own in boxes:
        x0, y0, x1, y1 = whole_boxes(own, size)[: 1 if which == "first" else None].unbind(1)
        y = torch.arange(size[0], device=own.device)[:, None]
        x = torch.arange(size[1], device=own.device)[:, None]
        rows, columns = (y >= y0) & (y < y1), (x >= x0) & (x < x1)
        # A count of the boxes over each pixel, as a product of matrices.
        masks.append(rows.float() @ columns.float().T > 0)
    return torch.stack(masks)


def label_regions(masks: Tensor, connectivity: Connectivity = 8) -> Tensor:
    """Connected regions of each mask; they are found on the CPU.

    Args:
        masks: boolean ``(N, H, W)``.
        connectivity: 8 where pixels that touch at a corner belong together, else 4.

    Returns:
        ``int64`` ``(N, H, W)``: one number per region, its first pixel's index ``row * W + column``; -1 outside
        the mask.
    """
    touching = np.zeros((3, 3, 3), bool)  # never from one image to the next
    touching[1] = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    labels, count = ndimage.label(masks.cpu().numpy(), touching)
    first = np.empty(count + 1, np.int64)
    first[labels.ravel()[::-1]] = np.arange(labels.size)[::-1]  # the last to be written stays
    found = np.where(labels > 0, first[labels] % max(masks[0].numel(), 1), -1)
    return torch.from_numpy(found).to(masks.device)


def largest_region(masks: Tensor, connectivity: Connectivity = 8) -> Tensor:
    """The connected region of each mask with the most pixels; of equals the one that begins first."""
    label = label_regions(masks, connectivity).flatten(1)
    sizes = torch.zeros_like(label).scatter_add_(1, label.clamp_min(0), (label >= 0).long())
    # argmax does not promise the first of equals.
    best = (sizes == sizes.amax(1, keepdim=True)).int().cumsum(1)
    first = (best == 0).sum(1, keepdim=True)
    return ((label == first) & (label >= 0)).view(masks.shape)


def bounding_boxes(masks: Tensor) -> Tensor:
    """The smallest box around each mask.

    Args:
        masks: boolean ``(N, H, W)``.

    Returns:
        ``int64`` ``(N, 4)`` as ``xmin, ymin, xmax, ymax``, ends exclusive; all 0 for an empty mask.

    Example:
        >>> camlucida.metrics.bounding_boxes(torch.eye(3)[None] > 0).tolist()
        [[0, 0, 3, 3]]
    """
    edges = []
    for there in (masks.any(1), masks.any(2)):
        place = torch.arange(there.shape[1], device=masks.device)
        first = torch.where(there, place, there.shape[1]).amin(1)
        last = torch.where(there, place + 1, 0).amax(1)
        edges.append((torch.where(there.any(1), first, 0), last))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], dim=1)


def dilate(masks: Tensor, radius: float) -> Tensor:
    """Masks grown by a disc: every pixel whose centre is at most ``radius`` pixels from a mask pixel's.

    Raises:
        CamlucidaError: the radius is negative.
    """
    if not radius >= 0:
        raise CamlucidaError(f"the tolerance must be at least 0 pixels, got {radius}")
    grown = masks.cpu().numpy().copy()
    for one in grown:
        if one.any():
            one[:] = ndimage.distance_transform_edt(~one) <= radius + 1e-9
    return torch.from_numpy(grown).to(masks.device)
