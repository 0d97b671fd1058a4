"""Quarters of the image against plain loops, and on layers that are what they are known to be."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camlucida import Grid
from camlucida.engine.layers.probe import agreement, find, probe_images, response

torch.manual_seed(0)
INPUTS = torch.rand(1, 3, 64, 96)


def changes(function, inputs=INPUTS):
    return response(function(probe_images(inputs)))


def slow_agreement(cells, parts=2):
    """Share and number of the cells ``(4, h, w)`` that change most with their own quarter of all quarters."""

    def half(place, size):
        first, last = place * parts // size, math.ceil((place + 1) * parts / size) - 1
        return None if first != last else first % 2

    _, h, w = cells.shape
    usual = [cells[q].flatten().sort().values[(h * w - 1) // 2] for q in range(4)]
    usual = [u if u > 0 else cells[q].mean() for q, u in enumerate(usual)]
    right = tested = 0
    for r in range(h):
        for c in range(w):
            if half(r, h) is None or half(c, w) is None:
                continue
            relative = [float(cells[q, r, c] / u) for q, u in enumerate(usual)]
            if max(relative) == min(relative):
                continue
            tested += 1
            own = 2 * half(r, h) + half(c, w)
            right += max(range(4), key=relative.__getitem__) == own
    return right, tested


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 1000))
def test_agreement_against_loops(h, w, seed):
    cells = torch.rand(8, 5, h, w, generator=torch.Generator().manual_seed(seed))
    found = agreement(cells, Grid())
    right, tested = slow_agreement(cells[:4].sum(1))
    right_within, tested_within = slow_agreement(cells[4:].sum(1), 4)
    if found is None:
        assert tested == 0
        return
    assert found.cells == tested
    assert found.share == pytest.approx(right / tested)
    luck = sum(
        math.comb(tested, k) * 0.25**k * 0.75 ** (tested - k) for k in range(right, tested + 1)
    )
    assert found.luck == pytest.approx(luck)
    finer = right_within / tested_within if tested_within >= 8 else None
    assert found.finer == (finer and pytest.approx(finer))


def test_the_images_differ_in_one_quarter_and_keep_their_range():
    images = probe_images(INPUTS)
    assert images.shape == (9, 3, 64, 96)
    assert images.min() >= INPUTS.min()
    assert images.max() <= INPUTS.max()
    halves = [slice(0, 32), slice(32, 64)], [slice(0, 48), slice(48, 96)]
    for number, (rows, columns) in enumerate(itertools.product(*halves)):
        changed = images[1 + number] != images[0]
        assert changed[:, rows, columns].float().mean() > 0.99
        assert changed.sum() == changed[:, rows, columns].sum()
    for number in range(4):
        changed = images[5 + number] != images[0]
        row, column = divmod(number, 2)
        # A quarter of each quarter: the same in all four.
        mine = changed.view(3, 2, 2, 16, 2, 2, 24)[:, :, row, :, :, column]
        assert mine.float().mean() > 0.99
        assert changed.sum() == mine.sum()


@pytest.mark.parametrize("inputs", [torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), torch.nan)])
def test_the_images_differ_whatever_the_inputs(inputs):
    images = probe_images(inputs)
    assert images.isfinite().all()
    assert (images[1:] != images[:1]).flatten(1).any(1).all()


def deep():
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 4, 2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
    )


def tokens(front=0, behind=0, turn=lambda z: z):
    patch = nn.Conv2d(3, 24, 8, 8)
    first, last = torch.randn(1, front, 24), torch.randn(1, behind, 24)

    def run(x):
        z = turn(patch(x)).flatten(2).mT
        return torch.cat([first.expand(len(x), -1, -1), z, last.expand(len(x), -1, -1)], 1)

    return run


def attention(front):
    """Weak attention on top of a shortcut, as in a transformer."""
    run = tokens(front)

    def mixed(x):
        z = run(x)
        return z + 0.7 * (z @ z.mT / 24**0.5).softmax(-1) @ z

    return mixed


FOUND = {
    "channels first": (deep, Grid()),
    "channels last": (lambda: then(deep(), lambda z: z.permute(0, 2, 3, 1)), Grid("nhwc")),
    "tokens": (tokens, Grid("tokens", 0, (8, 12))),
    "a class token": (lambda: tokens(1), Grid("tokens", 1, (8, 12))),
    "tokens around": (lambda: tokens(5, 2), Grid("tokens", 5, (8, 12))),
    "prompts": (lambda: tokens(30), Grid("tokens", 30, (8, 12))),
    "attention": (lambda: attention(1), Grid("tokens", 1, (8, 12))),
}


def then(first, second):
    return lambda x: second(first(x))


@pytest.mark.parametrize("name", FOUND)
def test_the_reading_is_found(name):
    make, grid = FOUND[name]
    torch.manual_seed(0)
    with torch.no_grad():
        found = find(changes(make()), (64, 96))
    assert found.clear
    assert found.grid == grid


def shuffled():
    order = torch.randperm(96)
    return then(tokens(), lambda z: z[:, order])


def middle(z):
    return torch.cat([z[:, :48], torch.ones(len(z), 1, 24), z[:, 48:]], 1)


def queries():
    asked = torch.randn(96, 24)
    return then(tokens(), lambda z: (asked @ z.mT).softmax(-1) @ z)


def recurrent():
    lstm = nn.LSTM(24 * 8, 8, batch_first=True)
    return then(deep(), lambda z: lstm(z.permute(0, 3, 1, 2).flatten(2))[0])


NOT_FOUND = {
    "lying": lambda: then(deep(), lambda z: z.mT),
    "mirrored": lambda: then(deep(), lambda z: z.flip(3)),
    "rolled": lambda: then(deep(), lambda z: z.roll((4, 6), (2, 3))),
    "column by column": lambda: tokens(turn=lambda z: z.mT),
    "each quarter turned": lambda: tokens(
        turn=lambda z: (
            z.unflatten(2, (2, 4)).unflatten(4, (2, 6)).flip(3, 5).flatten(4).flatten(2, 3)
        )
    ),
    "the middle": lambda: then(lambda x: x[..., 16:48, 24:72], deep()),
    "upside down": lambda: tokens(turn=lambda z: z.flip(2)),
    "shuffled": shuffled,
    "a token in the middle": lambda: then(tokens(), middle),
    "sums of all before": lambda: then(tokens(), lambda z: z.cumsum(1)),
    "queries": queries,
    "the mean": lambda: then(tokens(), lambda z: z.mean(1, keepdim=True).expand(-1, 96, -1)),
    "a constant": lambda: lambda x: torch.ones(len(x), 24, 8, 12),
    "recurrent": recurrent,
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_nothing_is_found_in_what_is_no_map(name):
    torch.manual_seed(0)
    with torch.no_grad():
        assert not find(changes(NOT_FOUND[name]()), (64, 96)).clear
