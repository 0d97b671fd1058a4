"""Filling holes in images: the linear systems of noisy linear imputation, solved many at a time.

The unknowns are the removed pixels: ``(A x)_i = 12 sum_j w_ij (x_i - x_j)`` over the eight neighbours ``j``
inside the image, with ``x_j = 0`` at known ones. ``A`` is symmetric, and positive definite as soon as one
pixel is known. It is solved by conjugate gradients, preconditioned with one multigrid V-cycle.

With the weights 1/6 (sides) and 1/12 (corners) the sum over the neighbours is ``S x - 4 x`` with ``S`` the
square of ``[1 2 1]``: four additions of shifted copies, and whole numbers, so that a constant is kept exactly.
On every level the operator is ``D x - t (S x - 4 x)`` for ``x`` that vanishes with ``t``: ``t`` is 1 for cells
that hold anything unknown, and ``D = mass + S t - 4 t`` where it is 1; ``mass`` collects the weights towards
known pixels, and a coarser cell has that of its four cells together. (Where only part of a cell is unknown,
weaker links between such cells would look more faithful; they cut wide holes off from their borders.) Values
travel between the levels by bilinear interpolation and its transpose. No level is coarser than the holes are
wide.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_DIRECT = 144
"""Grids of so many cells are solved directly."""

_MATRICES = 96 * 96
"""Up to so many cells two small matrix products are faster than a dozen passes over them."""

_NARROW = 2
"""Holes that can be halved so often are narrow: there Jacobi's preconditioner is enough, and cheaper."""

_MOST = 200
"""Iterations after which no more is gained; half a dozen is usual."""


@dataclass(frozen=True)
class _Grid:
    """How a grid lies in memory: rows of ``width + 1``, the first cell zero, between two rows of zeros.

    A shift by one column or row is then a shift of the flat buffer, and what it wraps around is zero. The
    *core* of a buffer runs from the first cell to the last.
    """

    height: int
    width: int

    @property
    def row(self) -> int:
        return self.width + 1

    @property
    def size(self) -> int:
        return (self.height + 2) * self.row + 1

    def zeros(self, like: Tensor, *lead: int) -> Tensor:
        return like.new_zeros(*lead, self.size)

    def core(self, buffer: Tensor) -> Tensor:
        """The part of a buffer ``(..., size)`` that holds the cells."""
        return buffer[..., self.row + 1 : self.row * (self.height + 1)]

    def cells(self, buffer: Tensor) -> Tensor:
        """A buffer as ``(..., height, width)``."""
        inner = buffer[..., self.row : self.row * (self.height + 1)]
        return inner.view(*buffer.shape[:-1], self.height, self.row)[..., 1:]

    def smooth(self, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """``S x`` at the core; ``t`` and ``u`` are overwritten, and the result lies in ``u``."""
        return _Scratch(self, t, u).smooth(x)


class _Scratch:
    """Two buffers to form ``S x`` in, cut up in advance: on small grids the cutting is most of the work."""

    def __init__(self, grid: _Grid, t: Tensor, u: Tensor) -> None:
        n, row = grid.size, grid.row
        end = n - 2 - 2 * row
        self.pair = t[..., 1:]
        self.left, self.right = t[..., 2:], t[..., 1:-1]
        self.line = u[..., : n - 2]
        self.lower, self.upper = u[..., row : n - 2], u[..., : n - 2 - row]
        self.lines = t[..., : n - 2 - row]
        self.below, self.above = t[..., row : n - 2 - row], t[..., :end]
        self.result = u[..., :end]

    def smooth(self, x: Tensor) -> Tensor:
        """``S x`` at the core of ``x``, until the next call."""
        torch.add(x[..., 1:], x[..., :-1], out=self.pair)
        torch.add(self.left, self.right, out=self.line)
        torch.add(self.lower, self.upper, out=self.lines)
        return torch.add(self.below, self.above, out=self.result)


class _Level:
    """One grid of the hierarchy, for ``B`` systems with ``C`` right-hand sides each.

    Args:
        grid: its layout.
        share: 1 where a cell holds anything unknown, ``(B, 1, size)``.
        mass: weights towards known pixels, ``(B, 1, size)``.
        channels: ``C``.
        coarser: the next level; ``None`` for the coarsest.
    """

    def __init__(
        self, grid: _Grid, share: Tensor, mass: Tensor, channels: int, coarser: _Level | None
    ) -> None:
        self.grid, self.coarser = grid, coarser
        t = grid.core(share)
        scratch = grid.zeros(share, 2, len(share), 1)
        self.share = t.contiguous()
        # What multiplies x itself: D + 4 t.
        self.diagonal = grid.smooth(share, scratch[0], scratch[1]).mul_(t).add_(grid.core(mass))
        self.inverse = torch.where(t > 0, (self.diagonal - 4 * t).reciprocal(), 0)
        self.unknown = grid.cells(share)
        direct = coarser is None and grid.height * grid.width <= _DIRECT
        self.exact = _inverse(grid, share, self.diagonal - 4 * t) if direct else None
        self.cut(grid.zeros(share, 5, len(share), channels))

    def cut(self, work: Tensor) -> None:
        """Name the parts of the buffers ``(5, B, C, size)``.

        They are the solution, the residual and the right-hand side, each as a core and as cells, and two to
        calculate in.
        """
        grid, below = self.grid, self.coarser
        self.work = work
        self.whole = work[0]
        self.z, self.residual, self.r = (grid.core(x) for x in work[:3])
        self.found, self.left, self.got = (grid.cells(x) for x in work[:3])
        self.scratch = _Scratch(grid, work[3], work[4])
        if below is not None:
            height, width = grid.height // 2, grid.width // 2
            self.passed, self.back, self.below = (
                x[..., :height, :width] for x in (below.got, below.found, below.unknown)
            )

    def take(self, index: Tensor) -> _Level:
        """The systems at these positions only."""
        kept = copy(self)
        kept.coarser = None if self.coarser is None else self.coarser.take(index)
        kept.share, kept.diagonal, kept.inverse, kept.unknown = (
            x[index] for x in (self.share, self.diagonal, self.inverse, self.unknown)
        )
        kept.exact = None if self.exact is None else self.exact[index]
        kept.cut(self.work[:, : len(index)])
        return kept

    def smooth(self, x: Tensor) -> Tensor:
        """``S x`` at the core of ``x (B, C, size)``; lies in scratch."""
        return self.scratch.smooth(x)

    def _subtract(self, r: Tensor) -> None:
        """``residual = r - A z``."""
        torch.addcmul(r, self.diagonal, self.z, value=-1, out=self.residual)
        self.residual.addcmul_(self.share, self.smooth(self.whole))

    def cycle(self, r: Tensor) -> Tensor:
        """One V-cycle: ``z``, about ``A^-1 r``, for ``r (B, C, core)``; linear and symmetric in ``r``."""
        z = self.z
        if self.exact is not None:
            self.r.copy_(r)
            solved = torch.matmul(self.got.flatten(-2), self.exact)
            self.found.copy_(solved.view_as(self.found))
            return z
        torch.mul(self.inverse, r, out=z)
        if self.coarser is None:
            return z
        self._subtract(r)
        # What reaches cells without anything unknown would come back from there on coarser levels.
        torch.mul(_restrict(self.left), self.below, out=self.passed)
        self.coarser.cycle(self.coarser.r)
        self.found.addcmul_(self.unknown, _prolong(self.back))
        self._subtract(r)
        return z.addcmul_(self.inverse, self.residual)


@lru_cache(maxsize=64)
def _interpolation(side: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """:func:`_prolong` of one line as a matrix ``(2 side, side)``, and its transpose."""
    with torch.inference_mode(False):
        found = torch.zeros(2 * side, side, dtype=dtype)
        fine = torch.arange(2 * side)
        near = fine // 2
        far = (near + fine % 2 * 2 - 1).clamp(0, side - 1)
        found[fine, near] = 0.75
        found[fine, far] += 0.25
        found = found.to(device)
        return found, found.mT.contiguous()


def _restrict(fine: Tensor) -> Tensor:
    """The transpose of :func:`_prolong`: ``(..., 2h, 2w)`` to ``(..., h, w)``."""
    height, width = fine.shape[-2:]
    if height * width <= _MATRICES:
        down = _interpolation(height // 2, fine.dtype, fine.device)[1]
        return torch.matmul(down, fine @ _interpolation(width // 2, fine.dtype, fine.device)[0])
    rows = (fine[..., 0::2, :] + fine[..., 1::2, :]).mul_(0.75)
    rows[..., 1:, :].add_(fine[..., 1:-2:2, :], alpha=0.25)
    rows[..., :-1, :].add_(fine[..., 2::2, :], alpha=0.25)
    rows[..., 0, :].add_(fine[..., 0, :], alpha=0.25)
    rows[..., -1, :].add_(fine[..., -1, :], alpha=0.25)
    both = (rows[..., 0::2] + rows[..., 1::2]).mul_(0.75)
    both[..., 1:].add_(rows[..., 1:-2:2], alpha=0.25)
    both[..., :-1].add_(rows[..., 2::2], alpha=0.25)
    both[..., 0].add_(rows[..., 0], alpha=0.25)
    both[..., -1].add_(rows[..., -1], alpha=0.25)
    return both


def _prolong(coarse: Tensor) -> Tensor:
    """Bilinear interpolation with half-pixel centres: ``(..., h, w)`` to ``(..., 2h, 2w)``."""
    h, w = coarse.shape[-2:]
    if 4 * h * w <= _MATRICES:
        up = _interpolation(h, coarse.dtype, coarse.device)[0]
        return torch.matmul(up, coarse @ _interpolation(w, coarse.dtype, coarse.device)[1])
    wide = coarse.new_empty(*coarse.shape, 2)
    wide[..., 0, 0], wide[..., -1, 1] = coarse[..., 0], coarse[..., -1]
    torch.lerp(coarse[..., 1:], coarse[..., :-1], 0.25, out=wide[..., 1:, 0])
    torch.lerp(coarse[..., :-1], coarse[..., 1:], 0.25, out=wide[..., :-1, 1])
    wide = wide.flatten(-2)
    tall = coarse.new_empty(*coarse.shape[:-1], 2, 2 * w)
    tall[..., 0, 0, :], tall[..., -1, 1, :] = wide[..., 0, :], wide[..., -1, :]
    torch.lerp(wide[..., 1:, :], wide[..., :-1, :], 0.25, out=tall[..., 1:, 0, :])
    torch.lerp(wide[..., :-1, :], wide[..., 1:, :], 0.25, out=tall[..., :-1, 1, :])
    return tall.reshape(*coarse.shape[:-2], 2 * h, 2 * w)


def _inverse(grid: _Grid, share: Tensor, diagonal: Tensor) -> Tensor:
    """The dense inverse ``(B, cells, cells)`` of the operator on the coarsest grid."""
    y, x = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    down, right = ((c.flatten()[:, None] - c.flatten()).abs() for c in (y, x))
    weights = torch.where((down <= 1) & (right <= 1), 3 - down - right, 0).fill_diagonal_(0)
    t = grid.cells(share)[:, 0].flatten(1).double()
    matrix = -t[:, :, None] * t[:, None, :] * weights.to(t)
    full = torch.zeros_like(share)
    grid.core(full).copy_(diagonal)
    own = grid.cells(full)[:, 0].flatten(1).double()
    matrix.diagonal(dim1=-2, dim2=-1).copy_(torch.where(t > 0, own, 1.0))
    factor: Tensor = torch.linalg.cholesky_ex(matrix)[0]
    return torch.cholesky_inverse(factor).to(share.dtype)


def _hierarchy(known: Tensor, removed: Tensor, channels: int) -> _Level:
    """All levels for masks ``(B, H, W)`` of 0 and 1, the finest returned; both are 0 outside the image."""
    b, height, width = removed.shape
    grid = _even(height, width)
    t, outside, mass, *scratch = grid.zeros(removed, 5, b, 1)
    grid.cells(t)[..., :height, :width] = removed[:, None]
    grid.cells(outside)[..., :height, :width] = known[:, None]
    torch.mul(grid.smooth(outside, scratch[0], scratch[1]), grid.core(t), out=grid.core(mass))
    parts = [(grid, t, mass)]
    holes = _holes(removed)
    while grid.height * grid.width > _DIRECT and len(parts) < holes:
        fine, (height, width) = grid, (grid.height // 2, grid.width // 2)
        grid = _even(height, width) if height * width > _DIRECT else _Grid(height, width)
        coarse, heavier = grid.zeros(removed, 2, b, 1)
        grid.cells(coarse)[..., :height, :width] = _pool(fine.cells(t), torch.maximum)
        grid.cells(heavier)[..., :height, :width] = _pool(fine.cells(mass), torch.add)
        t, mass = coarse, heavier
        parts.append((grid, t, mass))
    level: _Level | None = None
    for grid, t, mass in reversed(parts):
        level = _Level(grid, t, mass, channels, level)
    assert level is not None  # noqa: S101
    return level


def _holes(removed: Tensor) -> int:
    """How often the masks can be halved until no 2x2 cells are removed altogether; 1 for narrow holes."""
    times = 0
    while removed.any():
        times += 1
        h, w = (side - side % 2 for side in removed.shape[-2:])
        removed = _pool(removed[..., :h, :w], torch.mul)
    return times if times > _NARROW else 1


def _pool(cells: Tensor, how: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """2x2 cells to one."""
    rows = how(cells[..., 0::2, :], cells[..., 1::2, :])
    return how(rows[..., 0::2], rows[..., 1::2])


def _even(height: int, width: int) -> _Grid:
    return _Grid(height + height % 2, width + width % 2)


def solve(values: Tensor, known: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Fill what was removed, to ``tolerance``.

    The iterations stop when the largest entry of the preconditioned residual, which is close to the error
    itself, falls below the tolerance; that last correction is still applied. Systems that are done leave
    the batch.

    Args:
        values: ``(B, C, H, W)``, zero where nothing is known; single or double precision.
        known: ``(B, H, W)``, 1 at known pixels, else 0.
        removed: ``(B, H, W)``, 1 at pixels to fill, else 0; pixels that are neither are outside the image.
        tolerance: largest error of a value, about; in the units of the values.

    Returns:
        ``(B, C, H, W)``: the values that were filled in, zero elsewhere.
    """
    b, c, height, width = values.shape
    level = _hierarchy(known, removed, c)
    grid = level.grid
    # A Jacobi step sees less of the error than a V-cycle.
    enough = tolerance if level.coarser is not None else tolerance / 4
    base, p = grid.zeros(values, 2, b, c)
    solution = torch.zeros_like(base)
    grid.cells(base)[..., :height, :width] = values
    r = level.smooth(base).mul(level.share)
    x, q, active = torch.zeros_like(r), torch.empty_like(r), torch.arange(b, device=r.device)
    core, before = grid.core(p), r.new_full((b, c, 1), torch.inf)
    for _ in range(_MOST):
        z = level.cycle(r)
        done = ~(z.abs().amax(dim=(1, 2)) > enough)  # NaN never gets better
        leaving = int(done.sum())
        if leaving == len(active):
            break
        if 2 * leaving >= len(active):
            grid.core(solution)[active[done]] = x[done] + z[done]
            stay = (~done).nonzero()[:, 0]
            z = z[stay]
            level, active = level.take(stay), active[stay]
            x, r, q, p, before = (s[stay] for s in (x, r, q, p, before))
            core = grid.core(p)
        rz = torch.linalg.vecdot(r, z)[..., None]
        torch.addcmul(z, torch.where(before > 0, rz / before, 0), core, out=core)
        before = rz
        torch.mul(level.diagonal, core, out=q)
        q.addcmul_(level.share, level.smooth(p), value=-1)
        pq = torch.linalg.vecdot(core, q)[..., None]
        step = torch.where(pq > 0, rz / pq, 0)
        x.addcmul_(step, core)
        r.addcmul_(step, q, value=-1)
    else:
        z = level.cycle(r)
    grid.core(solution)[active] = x + z
    return grid.cells(solution)[..., :height, :width]
