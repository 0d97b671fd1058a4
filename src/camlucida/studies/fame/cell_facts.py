"""Where one cell of a feature map looks, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PixelBox = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, ends exclusive."""


@dataclass(frozen=True)
class CellFacts:
    """Where one cell looks.

    Attributes:
        row: row of the cell.
        col: column of the cell.
        nominal: (top, left, bottom, right) in pixels of the patch under the cell, ends exclusive.
        support: box of the pixels on which the cell's value depends at this image, by its gradient; ``None``
            for a dead cell.
        activation: sum of the absolute activations of the cell.
        inside: share of the movement that falls on the nominal patch, in [0, 1]; before any blur.
        inside_blurred: the same of the blurred map.
        offset: distance in pixels from the patch's centre to the centroid of the movement.
        offset_rows: its part downwards.
        offset_cols: its part to the right.
        rms_radius: root mean square distance in pixels of the movement from its centroid.
        passes: forward-backward passes taken.
        dead: the cell is zero, nothing moves it or the movement is not finite; all numbers are then NaN.

    Example:
        >>> found = camlucida.studies.fame.cells(model, images[0], "3", cells=[(0, 1)])
        >>> found.cells[0].nominal
        (0, 2, 2, 4)
    """

    row: int
    col: int
    nominal: PixelBox
    support: PixelBox | None
    activation: float
    inside: float
    inside_blurred: float
    offset: float
    offset_rows: float
    offset_cols: float
    rms_radius: float
    passes: int
    dead: bool


def nominal_cell(row: int, col: int, cells: tuple[int, int], size: tuple[int, int]) -> PixelBox:
    """The patch under a cell, ends exclusive: rows ``[round(r H / h), round((r + 1) H / h))``, columns alike."""
    (h, w), (height, width) = cells, size
    return (
        round(row * height / h),
        round(col * width / w),
        round((row + 1) * height / h),
        round((col + 1) * width / w),
    )


def cell_facts(
    cell: tuple[int, int],
    cells: tuple[int, int],
    moved: Tensor,
    blurred: Tensor,
    slope: Tensor,
    *,
    activation: float,
    passes: int,
) -> CellFacts:
    """The facts about one cell.

    Args:
        cell: its row and column.
        cells: (h, w) of the feature map.
        moved: FAME's movement ``(H, W)``, at least 0.
        blurred: the map made of it, ``(H, W)``.
        slope: gradient of the cell's value with respect to the image, ``(C, H, W)``.
        activation: the cell's value.
        passes: forward-backward passes taken.
    """
    size = (int(moved.shape[0]), int(moved.shape[1]))
    top, left, bottom, right = nominal = nominal_cell(*cell, cells, size)
    mass = moved.double()
    total = float(mass.sum())
    if not 0 < total < math.inf:
        lost = (math.nan,) * 6
        return CellFacts(*cell, nominal, _box(slope), activation, *lost, passes, dead=True)
    share = mass / total
    y = torch.arange(size[0], dtype=torch.double, device=moved.device) + 0.5
    x = torch.arange(size[1], dtype=torch.double, device=moved.device) + 0.5
    cy, cx = float(share.sum(1) @ y), float(share.sum(0) @ x)
    radius = float(share.sum(1) @ (y - cy) ** 2 + share.sum(0) @ (x - cx) ** 2) ** 0.5
    dy, dx = cy - (top + bottom) / 2, cx - (left + right) / 2
    return CellFacts(
        *cell,
        nominal,
        _box(slope),
        activation,
        float(share[top:bottom, left:right].sum()),
        float(blurred[top:bottom, left:right].sum() / blurred.sum()),
        math.hypot(dy, dx),
        dy,
        dx,
        radius,
        passes,
        dead=False,
    )


def _box(slope: Tensor) -> PixelBox | None:
    touched = slope.abs().sum(0).nonzero()
    if len(touched) == 0:
        return None
    (top, left), (bottom, right) = touched.amin(0).tolist(), (touched.amax(0) + 1).tolist()
    return (top, left, bottom, right)
