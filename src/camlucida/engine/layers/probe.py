"""Where rows and columns of the image lie in what a layer returns, found by what it does.

A quarter of the image is changed at a time. In a feature map the change is largest in the matching quarter,
also behind attention, which adds about the same everywhere. Quarters do not tell a map of the whole image from that of
its middle, nor from one whose cells stand in another order within each quarter, so that each quarter of all quarters is
changed as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from scipy.special import betainc
from torch import Tensor

from camlucida.engine.layers.grids import Grid, possible_grids

_AGREES = 0.7  # of the cells; by chance it is a quarter
_AHEAD = 0.1  # of every reading of another size or layout
_FINER = 0.25  # of the way from chance to perfection, where quarters of quarters are changed
_FEW = 8  # cells, too few to tell more than quarters
_LUCK = 0.01  # largest probability that one of the readings agrees so well by chance
_QUARTERS = 4
Response: TypeAlias = Tensor
"""``(8, ...)``, how much each position of an output changes with each quarter of the image, and with each quarter of
all quarters."""


@dataclass(frozen=True)
class Agreement:
    """How far a reading agrees with what a layer did.

    Attributes:
        share: of the tested cells that change most with the quarter of the image that they lie in.
        cells: number of cells tested: those that lie in one quarter and change at all.
        luck: probability that so many agree by chance.
        finer: the share where each quarter of all quarters is changed; ``None`` where a map has too few cells to tell.
    """

    share: float
    cells: int
    luck: float
    finer: float | None = None
    chance: float = 0.25

    @property
    def in_place(self) -> bool:
        """Whether cells lie in place within the quarters, as far as can be told."""
        return self.finer is None or self.finer >= self.chance + _FINER * (1 - self.chance)


@dataclass(frozen=True)
class Found:
    """The reading that agrees best with what a layer did.

    Attributes:
        grid: the reading, ``None`` where the shape allows none.
        agreement: of this reading.
        doubt: why it cannot be relied on, in words; empty where it can.
    """

    grid: Grid | None
    agreement: Agreement | None = None
    doubt: str = ""

    @property
    def clear(self) -> bool:
        """Whether it can be relied on."""
        return self.agreement is not None and not self.doubt


def probe_images(inputs: Tensor) -> Tensor:
    """A picture of noise, four whose top left, top right, bottom left, bottom right quarter is another, and four more.

    Of those another quarter of each quarter is changed, in the same order.

    Args:
        inputs: ``(N, C, H, W)``; only their shape, type and range are used.
    """
    channels, height, width = inputs.shape[1:]
    generator = torch.Generator().manual_seed(0)
    # Coarse and fine structure: deep layers average fine noise away.
    pictures = []
    for _ in range(2):
        coarse = torch.rand(
            (1, channels, 8, 8), generator=generator, dtype=torch.float32, device="cpu"
        )
        fine = torch.rand(
            (1, channels, height, width), generator=generator, dtype=torch.float32, device="cpu"
        )
        large = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
        pictures.append((large + fine) / 2)
    base, other = pictures
    images = [base]
    for parts in (2, 4):
        places = 2 * _halves(height, parts)[:, None] + _halves(width, parts)
        images += [torch.where(places == quarter, other, base) for quarter in range(_QUARTERS)]
    low, high = (float(v) for v in inputs.detach().float().aminmax())
    if not (low < high < torch.inf and low > -torch.inf):
        low, high = -2.0, 2.0
    return (low + (high - low) * torch.cat(images)).to(inputs)


def _halves(size: int, parts: int) -> Tensor:
    """0 for places in the first, third part of an axis, 1 for those in the second, fourth."""
    return torch.arange(size, device="cpu") * parts // size % 2


def _half(size: int, parts: int) -> Tensor:
    """The same of cells, -1 for one that lies over two parts."""
    place = torch.arange(size, device="cpu")
    last = -(-(place + 1) * parts // size) - 1
    return torch.where(place * parts // size == last, last % 2, -1)


def response(outputs: Tensor) -> Response:
    """How each position changed, from the outputs for :func:`probe_images`."""
    outputs = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32))
    return (outputs[1:] - outputs[:1]).abs()


def agreement(changes: Response, grid: Grid) -> Agreement | None:
    """How far a reading agrees; ``None`` where nothing changed or the reading does not fit."""
    if not grid.fits(changes.shape):
        return None
    cells = grid.to_map(changes).sum(1)
    size = cells.shape[1:]
    found = _agreement(_strongest(cells[:_QUARTERS].flatten(1)).view(size))
    if found is None:
        return None
    finer = _agreement(_strongest(cells[_QUARTERS:].flatten(1)).view(size), 4)
    if finer is None or finer.cells < _FEW:
        return found
    return replace(found, finer=finer.share)


def find(changes: Response, input_size: tuple[int, int]) -> Found:
    """The reading that agrees best, among all that the shape allows."""
    scores: dict[Grid, Agreement] = {}
    labels = _strongest(changes[:_QUARTERS].sum(2)) if changes.ndim == 3 else None
    for size, grid in _kinds(changes.shape, input_size).items():
        if labels is None or not isinstance(size, tuple):
            found = agreement(changes, grid)
        else:
            grid, clear = _best_prefix(labels, size)  # noqa: PLW2901
            found = agreement(changes, grid)
            # One that stands no better than the next has a prefix that cannot be told.
            found = found if clear or found is None else replace(found, luck=1.0)
        if found is not None:
            scores[grid] = found
    if not scores:
        return Found(None)
    best_grid = max(scores, key=lambda grid: scores[grid].share)
    top = scores[best_grid]
    rival = max((score.share for grid, score in scores.items() if grid != best_grid), default=0.0)
    tried = sum(1 for _ in possible_grids(changes.shape, input_size))
    doubt = ""
    if top.share < _AGREES:
        doubt = f"only {top.share:.0%} of the cells change in the matching place"
    elif top.share < rival + _AHEAD or top.luck * tried > _LUCK:
        doubt = (
            f"{top.share:.0%} of {top.cells} cells change in the matching place, and in another reading nearly as many "
            "may"
        )
    elif not top.in_place:
        doubt = f"only {top.finer:.0%} of the cells are in place within the quarters"
    return Found(best_grid, top, doubt)


def _kinds(shape: Sequence[int], input_size: tuple[int, int]) -> dict[tuple[int, int] | str, Grid]:
    """One possible reading of each size of a token grid, and of each layout."""
    return {grid.size or grid.layout: grid for grid in possible_grids(shape, input_size)}


def _best_prefix(labels: Tensor, size: tuple[int, int]) -> tuple[Grid, bool]:
    """The grid of this size behind so many tokens that it agrees best, and whether no other number does as well."""
    shares = _shares(labels.unfold(0, size[0] * size[1], 1), size)
    best = int(shares.argmax())
    others = torch.cat([shares[:best], shares[best + 1 :]])
    # A token too many in front, or one in the middle, puts two cells of every row into the wrong half.
    clear = not len(others) or bool(shares[best] - others.max() >= 0.5 / size[1])
    return Grid("tokens", best, size), clear


def _shares(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of agreeing cells of each of several grids ``(P, h * w)``; 0 where none was tested."""
    rows, columns = _half(size[0], 2)[:, None], _half(size[1], 2)
    expected = torch.where((rows >= 0) & (columns >= 0), 2 * rows + columns, -1).flatten()
    labels = labels.cpu()
    tested = (expected >= 0) & (labels >= 0)
    return ((labels == expected) & tested).sum(1) / tested.sum(1).clamp_min(1)


def _strongest(changes: Tensor) -> Tensor:
    """``(T,)``, the quarter that each position follows most, of ``(4, T)``; -1 where nothing changes it.

    What a quarter changes everywhere is no sign of a place.
    """
    usual = changes.median(1, keepdim=True).values
    mean = changes.mean(1, keepdim=True)
    scale = torch.where(usual > 0, usual, mean)
    relative = changes / torch.where(scale > 0, scale, 1)
    best = relative.argmax(0)
    best[~(relative.amax(0) > relative.amin(0))] = -1
    return best


def _agreement(labels: Tensor, parts: int = 2) -> Agreement | None:
    """Of cells ``(h, w)`` with the quarter that each follows most; a cell over two parts of the image is not tested."""
    height, width = labels.shape
    labels = labels.cpu()
    rows, columns = _half(height, parts)[:, None], _half(width, parts)[None]
    changed = labels >= 0
    if height > 1 and width > 1:
        tested = changed & (rows >= 0) & (columns >= 0)
        right = labels == 2 * rows + columns
        chance = 0.25
    elif width > 1:
        # A map of one row is tested by its columns alone.
        tested, right, chance = changed & (columns >= 0), labels % 2 == columns, 0.5
    else:
        tested, right, chance = changed & (rows >= 0), labels // 2 == rows, 0.5
    cells = int(tested.sum())
    if not cells:
        return None
    agreeing = int((right & tested).sum())
    # Probability of at least so many in a binomial distribution.
    luck = float(betainc(agreeing, cells - agreeing + 1, chance)) if agreeing else 1.0
    return Agreement(agreeing / cells, cells, luck, chance=chance)
