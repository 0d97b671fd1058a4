"""Boxes, filled boxes, connected regions and dilated masks: what localisation metrics are made of.

Everything is batched and stays on the device of its tensors; nothing but torch is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.common.errors import CamlucidaError

Which = Literal["first", "union"]
Connectivity = Literal[4, 8]


def whole_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes in whole pixels: cut towards zero, then at the edges.

    Args:
        boxes: ``(n, 4)`` as ``xmin, ymin, xmax, ymax``.
        size: ``(H, W)``.

    Returns:
        ``(n, 4)``, ``int64``.
    """
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
    """Connected regions of each mask.

    Every pixel is labelled with the smallest pixel index of its region: labels pass to neighbours and jump
    along their own pointers, so that the rounds grow with the logarithm of a region's length.

    Args:
        masks: boolean ``(N, H, W)``.
        connectivity: 8 where pixels that touch at a corner belong together, else 4.

    Returns:
        ``int64`` ``(N, H, W)``: one number per region, its first pixel's index ``row * W + column``; -1 outside
        the mask.
    """
    images, height, width = masks.shape
    count = images * height * width
    # Pixels outside point to a last, extra place, whose label is larger than any other.
    label = torch.arange(count + 1, device=masks.device)
    inside = masks.flatten()
    label[:-1][~inside] = count
    while True:
        grid = label[:-1].view(images, height, width)
        lowest = _lowest_neighbour(grid, count, connectivity).flatten()
        lowest = torch.where(inside, lowest, count)
        linked = label.clone()
        linked.scatter_reduce_(0, label[:-1], lowest, "amin")
        linked[:-1] = torch.where(inside, torch.minimum(linked[:-1], lowest), count)
        linked[-1] = count
        while not torch.equal(jumped := linked[linked], linked):
            linked = jumped
        if torch.equal(linked, label):
            break
        label = linked
    local = label[:-1].view(images, -1) - torch.arange(images, device=masks.device)[:, None] * (
        height * width
    )
    return torch.where(masks, local.view(images, height, width), -1)


def _lowest_neighbour(grid: Tensor, outside: int, connectivity: Connectivity) -> Tensor:
    """The smallest label among each pixel and its neighbours."""
    rows = F.pad(grid, (0, 0, 1, 1), value=outside)
    down = torch.minimum(torch.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    columns = F.pad(down if connectivity == 8 else grid, (1, 1), value=outside)
    across = torch.minimum(torch.minimum(columns[..., :-2], columns[..., 1:-1]), columns[..., 2:])
    return across if connectivity == 8 else torch.minimum(down, across)


def largest_region(masks: Tensor, connectivity: Connectivity = 8) -> Tensor:
    """The connected region of each mask with the most pixels; of equals the one that begins first.

    Args:
        masks: boolean ``(N, H, W)``.
        connectivity: see :func:`label_regions`.

    Returns:
        Boolean ``(N, H, W)``; empty for an empty mask.
    """
    label = label_regions(masks, connectivity).flatten(1)
    sizes = torch.zeros_like(label).scatter_add_(1, label.clamp_min(0), (label >= 0).long())
    # argmax does not promise the first of equals.
    best = sizes.amax(1, keepdim=True)
    place = torch.arange(label.shape[1], device=label.device)
    first = torch.where(sizes == best, place, label.shape[1]).amin(1, keepdim=True)
    return ((label == first) & (label >= 0)).view(masks.shape)


def bounding_boxes(masks: Tensor) -> Tensor:
    """The smallest box around each mask.

    Args:
        masks: boolean ``(N, H, W)``.

    Returns:
        ``int64`` ``(N, 4)`` as ``xmin, ymin, xmax, ymax``, ends exclusive; all 0 for an empty mask.
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

    Args:
        masks: boolean ``(N, H, W)``.
        radius: pixels, at least 0.

    Raises:
        CamlucidaError: the radius is negative.
    """
    if not radius >= 0:
        raise CamlucidaError(f"the tolerance must be at least 0 pixels, got {radius}")
    height = masks.shape[1]
    grown = masks.clone()
    reach = min(int(radius), height - 1)
    solid = masks[:, None].float()
    for away in range(reach + 1):
        half = min(int((radius**2 - away**2) ** 0.5 + 1e-9), masks.shape[2] - 1)
        wide = F.max_pool2d(solid, (1, 2 * half + 1), stride=1, padding=(0, half))[:, 0] > 0
        grown[:, away:] |= wide[:, : height - away]
        grown[:, : height - away] |= wide[:, away:]
    return grown
