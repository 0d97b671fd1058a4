"""Masks that lie about where a model looks: SHAM, and the border of Heo et al.

A SHAM mask is a fake salience map: ones around the edges, zeros in the middle, and as many ones as give it the
entropy of a map made by people, so that entropy alone does not give it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError

Layout: TypeAlias = Literal["rounded", "midpoints", "rows"]

HUMAN_ENTROPY = 3.35
"""Mean entropy in nats of the 7 x 7 maps of models trained with human salience (DiffGradCAM, section 3.2)."""

_PAPER_CELLS = 49


def sham_mask(
    size: int | tuple[int, int] = 7,
    layout: Layout | Tensor = "rounded",
    *,
    entropy: float | None = None,
    count: int | None = None,
) -> Tensor:
    r"""A SHAM mask: ones around the edges, zeros in the middle.

    With $n = \lfloor e^{H^*} \rfloor$ ones its entropy is $\ln n$ nats, the nearest to the target $H^*$ from
    below. On the paper's 7 x 7 cells $H^* = 3.35$ gives 28 ones, ln 28 = 3.33.

    Args:
        size: height and width in cells, or one number for both.
        layout: which cells are filled first. ``"rounded"`` (default): the nearest to the border, of these the
            nearest to a corner; on 7 x 7 the outer ring and the corners of the next one. ``"midpoints"``: the
            nearest to the border, of these the nearest to the middle of an edge. ``"rows"``: rows from top and
            bottom in turn. Or a mask of your own ``(h, w)`` in [0, 1], which is checked and returned. The
            paper shows its 28 cells in a figure only.
        entropy: the target in nats; 3.35 on 49 cells, and on other grids the same share of the cells, which is
            3.35 + ln(hw / 49); then the number of ones is rounded to the nearest that leaves the mask symmetric
            (28 on 7 x 7, 40 on 8 x 8). An entropy of your own is kept to the cell.
        count: the number of ones itself, instead of an entropy.

    Returns:
        ``(h, w)`` of zeros and ones.

    Raises:
        CamlucidaError: an unknown layout, a mask of another shape or range, a map of one cell, or so many ones that
            no middle is left.

    Source: Piland, Sweet and Czajka, "DiffGradCAM", arXiv 2506.08514, section 3.2.

    Example:
        >>> mask = camlucida.training.sham_mask(7)
        >>> mask.shape, int(mask.sum())
        (torch.Size([7, 7]), 28)
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height * width < 2:
        raise CamlucidaError(
            f"a map of {height} x {width} cells has no edge and no middle; take a layer with a larger map, or larger "
            "images"
        )
    if isinstance(layout, Tensor):
        return _own(layout, height, width)
    if layout not in get_args(Layout):
        raise CamlucidaError(
            f"layout must be {', '.join(get_args(Layout))} or a tensor, got {layout!r}"
        )
    rank = _rank(layout, height, width)
    cells = sorted(((i, j) for i in range(height) for j in range(width)), key=rank)
    ones = sham_count((height, width), entropy) if count is None else count
    if count is None and entropy is None:
        groups = [rank(cell)[: 1 if layout == "rows" else 3] for cell in cells]
        ends = [n for n in range(1, len(cells)) if groups[n - 1] != groups[n]]
        ones = min(ends, key=lambda n: abs(n - ones), default=ones)
    if not 1 <= ones < height * width:
        raise CamlucidaError(
            f"a mask of {height} x {width} cells has 1 to {height * width - 1} ones, got {ones}"
        )
    mask = torch.zeros(height, width)
    for i, j in cells[:ones]:
        mask[i, j] = 1
    return mask


def sham_count(size: tuple[int, int], entropy: float | None = None) -> int:
    """How many ones an entropy in nats asks for; see :func:`sham_mask`."""
    cells = size[0] * size[1]
    if entropy is None:
        return int(math.exp(HUMAN_ENTROPY) * cells / _PAPER_CELLS)
    if not math.isfinite(entropy):
        raise CamlucidaError(f"the entropy of a mask must be a number of nats, got {entropy}")
    # ln 28 is meant to give 28, whatever its last digit.
    return int(math.exp(min(entropy, 50.0)) * (1 + 1e-9))


def border_mask(size: int | tuple[int, int] = 7) -> Tensor:
    """Ones along the border: what maps are pushed to by passive fooling with the location loss.

    The border is a seventh of the side wide, rounded down, and one cell at least: 24 ones on 7 x 7.

    Raises:
        CamlucidaError: no middle is left.

    Source: Heo, Joo and Moon, "Fooling Neural Network Interpretations via Adversarial Model Manipulation",
    NeurIPS 2019, and the authors' code.
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = max(1, height // 7), max(1, width // 7)
    mask = torch.ones(height, width)
    mask[rows : height - rows, columns : width - columns] = 0
    if mask.all():
        raise CamlucidaError(f"{height} x {width} cells have no middle; 3 x 3 are the fewest")
    return mask


def _rank(
    layout: Layout, height: int, width: int
) -> Callable[[tuple[int, int]], tuple[float, ...]]:
    def rank(cell: tuple[int, int]) -> tuple[float, ...]:
        down, across = cell
        row = min(down, height - 1 - down)
        column = min(across, width - 1 - across)
        if layout == "rows":
            return (row, column, down, across)
        middle = min(
            math.hypot(down - (height - 1) / 2, column), math.hypot(row, across - (width - 1) / 2)
        )
        along = math.hypot(row, column) if layout == "rounded" else middle
        # A cell lies beside its opposite, so that an odd rest is spread over the mask.
        turned = (height - 1 - down, width - 1 - across)
        return (min(row, column), round(along, 9), row + column, *min(cell, turned), *cell)

    return rank


def _own(mask: Tensor, height: int, width: int) -> Tensor:
    mask = mask.detach().float()
    if mask.shape != (height, width):
        raise CamlucidaError(
            f"the mask has shape {tuple(mask.shape)}, but the map has {height} x {width} cells"
        )
    low, high = float(mask.min()), float(mask.max())
    if not (0 <= low < high <= 1):
        raise CamlucidaError(
            f"a mask has values in [0, 1] that are not all the same, got {low:g} to {high:g}"
        )
    return mask
