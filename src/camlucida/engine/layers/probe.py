"""Where rows and columns of the image lie in what a layer returns, found by what it does.

A quarter of the image is changed at a time. In a feature map the change is largest in the matching quarter,
also behind attention, which adds about the same everywhere.
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
_LUCK = 0.01  # largest probability that one of the readings agrees so well by chance
_QUARTERS = 4
Response: TypeAlias = Tensor
"""``(4, ...)``, how much each position of an output changes with each quarter of the image."""


@dataclass(frozen=True)
class Agreement:
    """How far a reading agrees with what a layer did.

    Attributes:
        share: of the tested cells that change most with the quarter of the image that they lie in.
        cells: number of cells tested: those that lie in one quarter and change at all.
        luck: probability that so many agree by chance.
    """

    share: float
    cells: int
    luck: float


@dataclass(frozen=True)
class Found:
    """The reading that agrees best with what a layer did.

    Attributes:
        grid: the reading, ``None`` where the shape allows none.
        agreement: of this reading.
        rival: the best share of a reading of another size or layout.
        clear: whether it can be relied on.
    """

    grid: Grid | None
    agreement: Agreement | None = None
    rival: float = 0.0
    clear: bool = False


def probe_images(inputs: Tensor) -> Tensor:
    """A picture of noise, and four whose top left, top right, bottom left, bottom right quarter is another.

    Args:
        inputs: ``(N, C, H, W)``; only their shape, type and range are used.
    """
    channels, height, width = inputs.shape[1:]
    generator = torch.Generator().manual_seed(0)
    # Coarse and fine structure: deep layers average fine noise away.
    pictures = []
    for _ in range(2):
        coarse = torch.rand((1, channels, 8, 8), generator=generator)
        fine = torch.rand((1, channels, height, width), generator=generator)
        large = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
        pictures.append((large + fine) / 2)
    base, other = pictures
    images = base.repeat(1 + _QUARTERS, 1, 1, 1)
    for number, (rows, columns) in enumerate(quarters(height, width)):
        images[1 + number, :, rows, columns] = other[0, :, rows, columns]
    low, high = (float(v) for v in inputs.detach().float().aminmax())
    if not (low < high < torch.inf and low > -torch.inf):
        low, high = -2.0, 2.0
    return (low + (high - low) * images).to(inputs)


def quarters(height: int, width: int) -> list[tuple[slice, slice]]:
    """Top left, top right, bottom left, bottom right."""
    rows = (slice(0, height // 2), slice(height // 2, height))
    columns = (slice(0, width // 2), slice(width // 2, width))
    return [(r, c) for r in rows for c in columns]


def response(outputs: Tensor) -> Response:
    """How each position changed, from the outputs for :func:`probe_images`."""
    outputs = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32))
    return (outputs[1:] - outputs[:1]).abs()


def agreement(changes: Response, grid: Grid) -> Agreement | None:
    """How far a reading agrees; ``None`` where nothing changed or the reading does not fit."""
    if not grid.fits(changes.shape):
        return None
    cells = grid.to_map(changes).sum(1)
    return _agreement(_strongest(cells.flatten(1)).view(cells.shape[1:]))


def find(changes: Response, input_size: tuple[int, int]) -> Found:
    """The reading that agrees best, among all that the shape allows."""
    scores: dict[Grid, Agreement] = {}
    labels = _strongest(changes.sum(2)) if changes.ndim == 3 else None
    for size, grid in _kinds(changes.shape, input_size).items():
        if labels is None or not isinstance(size, tuple):
            found = agreement(changes, grid)
        else:
            grid, found = _best_prefix(labels, size)  # noqa: PLW2901
        if found is not None:
            scores[grid] = found
    if not scores:
        return Found(None)
    best_grid = max(scores, key=lambda grid: scores[grid].share)
    top = scores[best_grid]
    rival = max((score.share for grid, score in scores.items() if grid != best_grid), default=0.0)
    tried = sum(1 for _ in possible_grids(changes.shape, input_size))
    clear = top.share >= max(_AGREES, rival + _AHEAD) and top.luck * tried <= _LUCK
    return Found(best_grid, top, rival, clear)


def _kinds(shape: Sequence[int], input_size: tuple[int, int]) -> dict[tuple[int, int] | str, Grid]:
    """One possible reading of each size of a token grid, and of each layout."""
    return {grid.size or grid.layout: grid for grid in possible_grids(shape, input_size)}


def _best_prefix(labels: Tensor, size: tuple[int, int]) -> tuple[Grid, Agreement | None]:
    """How many tokens stand in front of a grid of this size, tried all at once."""
    cells = size[0] * size[1]
    shares = _shares(labels.unfold(0, cells, 1), size)
    best = int(shares.argmax())
    found = _agreement(labels[best : best + cells].view(size))
    others = torch.cat([shares[:best], shares[best + 1 :]])
    # A token too many in front, or one in the middle, puts two cells of every row into the wrong half.
    if found is not None and len(others) and shares[best] - others.max() < 0.5 / size[1]:
        found = replace(found, luck=1.0)
    return Grid("tokens", best, size), found


def _shares(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of agreeing cells of each of several grids ``(P, h * w)``; 0 where none was tested."""
    rows, columns = _halves(size[0])[:, None], _halves(size[1])[None]
    inside = ((rows >= 0) & (columns >= 0)).flatten()
    expected = (2 * rows + columns).flatten()
    labels = labels.cpu()
    tested = inside & (labels >= 0)
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


def _agreement(labels: Tensor) -> Agreement | None:
    """Of cells ``(h, w)`` with the quarter that each follows most; a cell over both halves is not tested."""
    height, width = labels.shape
    labels = labels.cpu()
    rows, columns = _halves(height)[:, None], _halves(width)[None]
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
    return Agreement(agreeing / cells, cells, luck)


def _halves(size: int) -> Tensor:
    """0 for cells of the first half, 1 for those of the second, -1 for the one over both."""
    place = torch.arange(size)
    half = torch.full((size,), -1)
    half[2 * (place + 1) <= size] = 0
    half[2 * place >= size] = 1
    return half
