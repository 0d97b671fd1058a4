"""Filling narrow holes where few pixels are removed: the removed pixels alone, as one list.

The equations are those of :mod:`camlucida.metrics.imputation.multigrid`. Nothing is coarser than a pixel here:
holes of a few pixels need no more than conjugate gradients with Jacobi's preconditioner.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST = 200
"""Iterations after which no more is gained; a dozen is usual."""

_WINDOW = (1.0, 2.0, 1.0, 2.0, 0.0, 2.0, 1.0, 2.0, 1.0)
"""Twelve times the weights of the neighbours, row by row."""


def solve(values: Tensor, image: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Fill what was removed, to ``tolerance``; all masks are one system with a block for each.

    The iterations stop as in :func:`camlucida.metrics.imputation.multigrid.solve`.

    Args:
        values: ``(N, C, H, W)``, finite; single or double precision.
        image: of each mask, ``(B,)``.
        removed: ``(B, H, W)``, boolean: pixels to fill; each mask leaves something.
        tolerance: largest error of a value, about; in the units of the values.

    Returns:
        ``(n, C)``: the values of ``removed`` in reading order.
    """
    n, _, height, width = values.shape
    mask, y, x = removed.nonzero().unbind(1)
    cells = torch.arange(len(y), dtype=torch.int32, device=y.device)
    # Which unknown each pixel is; -1 for known ones, -2 for the border.
    number = cells.new_full((len(removed), height + 2, width + 2), -2)
    number[:, 1:-1, 1:-1] = -1
    number[mask, y + 1, x + 1] = cells
    step = torch.arange(3, device=y.device)
    window = (step[:, None] * (width + 2) + step).flatten()
    corner = (mask * (height + 2) + y) * (width + 2) + x
    around = number.flatten()[corner[:, None] + window]
    weights = values.new_tensor(_WINDOW)
    links, borders = weights * (around >= 0), weights * (around == -1)
    diagonal = (links + borders).sum(1)
    inverse = diagonal.reciprocal()[:, None]
    matrix = links.neg_()
    matrix[:, 4] = diagonal
    around = torch.where(around >= 0, around, cells[:, None])
    pixels = values.movedim(1, -1).flatten(0, 2)
    place = (image[mask] * height + y) * width + x
    near = place[:, None] + ((step[:, None] - 1) * width + step - 1).flatten()
    r = _gather(near.clamp(0, n * height * width - 1), pixels, borders)
    found, p = torch.zeros_like(r), torch.zeros_like(r)
    before = r.new_full((r.shape[1],), torch.inf)
    for _ in range(_MOST):
        z = inverse * r
        # A Jacobi step sees less of the error than a V-cycle.
        if not float(z.abs().amax()) > tolerance / 4:
            break
        rz = torch.linalg.vecdot(r, z, dim=0)
        p = torch.addcmul(z, rz / before, p)
        before = torch.where(rz > 0, rz, 1)
        q = _gather(around, p, matrix)
        pq = torch.linalg.vecdot(p, q, dim=0)
        length = torch.where(pq > 0, rz / pq, 0)
        found.addcmul_(length, p)
        r.addcmul_(length, q, value=-1)
    return found.addcmul_(inverse, r)


def _gather(index: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums ``(n, C)`` of the rows ``index (n, k)`` of ``values (m, C)``."""
    return F.embedding_bag(index, values, mode="sum", per_sample_weights=weights)
