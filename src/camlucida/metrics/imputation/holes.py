"""Holes of masks: which are narrow, which belong together, and boxes around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.metrics.regions import label_regions

_TILE = 8
"""Holes are told apart when tiles of so many pixels without anything removed lie between them."""

_SPARSE = 0.25
"""Masks that remove more than this share are taken whole."""

_WORTH = 0.6
"""Holes are solved for one by one where their boxes have less than this share of the area of the mask's."""


@dataclass(frozen=True)
class Hole:
    """Removed pixels of one mask that are solved for together, with a margin of known pixels.

    Attributes:
        mask: which mask.
        group: their number in the ``groups`` of the mask.
        top: first row of the box.
        left: first column.
        height: of the box.
        width: of the box.
    """

    mask: int
    group: int
    top: int
    left: int
    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels of the box."""
        return self.height * self.width

    def box(self, height: int, width: int, size: tuple[int, int]) -> tuple[slice, slice]:
        """A box of that height and width around this one, within the size of the image."""
        y, x = min(self.top, size[0] - height), min(self.left, size[1] - width)
        return slice(y, y + height), slice(x, x + width)


def narrow(removed: Tensor) -> Tensor:
    """Which masks ``(B, H, W)`` have no square of 4 by 4 removed pixels in a grid of such squares; ``(B,)``."""
    known = F.pad((~removed).to(torch.float32), (0, 3, 0, 3), value=1.0)
    return F.max_pool2d(known, 4).flatten(1).all(1)


def split(removed: Tensor) -> tuple[Tensor, list[Hole]]:
    """Group the removed pixels of masks ``(B, H, W)``, each of which removes some, by holes that do not touch.

    Returns:
        The group of each pixel ``(B, H, W)``, -1 where nothing is removed, and the holes.
    """
    pixels = removed[0].numel()
    whole = torch.stack([*_extent(removed.any(2)), *_extent(removed.any(1))], 1)[:, [0, 2, 1, 3]]
    groups = removed.int() - 1
    apart = (removed.sum((1, 2)) <= _SPARSE * pixels) & ~narrow(removed)
    holes: list[Hole] = []
    if apart.any():
        candidates = apart.nonzero()[:, 0]
        mask, y, x = removed[candidates].nonzero().unbind(1)
        group, owner = _groups(removed[candidates], mask, y, x)
        boxes = _boxes(group, len(owner), y, x, removed.shape[1], removed.shape[2])
        parts = owner.new_zeros(len(candidates)).index_add_(0, owner, boxes[:, 2:].prod(1))
        worth = parts < _WORTH * whole[candidates, 2:].prod(1)
        apart[candidates] = worth
        groups[candidates[mask], y, x] = torch.where(worth[mask], group, 0).int()
        index = torch.arange(len(owner), device=y.device)
        facts = torch.cat([candidates[owner][:, None], index[:, None], boxes], 1)
        holes += [Hole(*row) for row in facts[worth[owner]].tolist()]
    together = (~apart).tolist()
    holes += [Hole(i, 0, *box) for i, box in enumerate(whole.tolist()) if together[i]]
    return groups, holes


def _groups(removed: Tensor, mask: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which group each removed pixel belongs to, and which mask each group."""
    labels = label_regions(F.max_pool2d(removed.float(), _TILE, ceil_mode=True) > 0)
    tiles = labels[0].numel()
    name = mask * tiles + labels[mask, y // _TILE, x // _TILE]
    used = torch.zeros(len(labels) * tiles, dtype=torch.bool, device=labels.device)
    used[name] = True
    return (used.cumsum(0) - 1)[name], used.nonzero()[:, 0] // tiles


def _boxes(group: Tensor, groups: int, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Top, left, height, width ``(groups, 4)`` of boxes around pixels and one more on each side."""
    found = []
    for place, side in ((y, height), (x, width)):
        low = place.new_full((groups,), side).scatter_reduce_(0, group, place, "amin")
        high = place.new_full((groups,), -1).scatter_reduce_(0, group, place, "amax")
        first, last = (low - 1).clamp_min(0), (high + 1).clamp_max(side - 1)
        found.append((first, last - first + 1))
    (top, tall), (left, wide) = found
    return torch.stack([top, left, tall, wide], 1)


def _extent(some: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length of the range that holds all true entries ``(B, L)`` and one more at each side."""
    places = torch.arange(some.shape[1], device=some.device)
    first = torch.where(some, places, some.shape[1]).amin(1) - 1
    last = torch.where(some, places, -1).amax(1) + 1
    first, last = first.clamp_min(0), last.clamp_max(some.shape[1] - 1)
    return first, last - first + 1
