"""What a layer returns as a feature map, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import Grid
from camlucida.engine.layers import single_tensor
from camlucida.engine.layers.grids import possible_grids

sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(sizes, st.integers(0, 9), st.integers(1, 3), st.integers(1, 4))
def test_token_grid_is_row_major_behind_the_prefix(size, prefix, n, k):
    tokens = torch.randn(n, prefix + size[0] * size[1], k)
    grid = Grid("tokens", prefix, size)
    maps = grid.to_map(tokens)
    assert maps.shape == (n, k, *size)
    for row in range(size[0]):
        for column in range(size[1]):
            expected = tokens[:, prefix + row * size[1] + column]
            assert torch.equal(maps[:, :, row, column], expected)
    assert torch.equal(grid.to_output(maps, tokens), tokens)


@given(sizes, st.integers(1, 3), st.integers(1, 4), st.sampled_from(["nchw", "nhwc"]))
def test_four_dimensional_round_trip(size, n, k, layout):
    shape = (n, k, *size) if layout == "nchw" else (n, *size, k)
    output = torch.randn(shape)
    grid = Grid(layout)
    maps = grid.to_map(output)
    assert maps.shape == (n, k, *size)
    assert torch.equal(grid.to_output(maps, output), output)
    changed = grid.to_output(2 * maps, output)
    assert torch.equal(changed, 2 * output)


def test_prefix_tokens_stay():
    tokens = torch.randn(1, 1 + 4, 3)
    grid = Grid("tokens", 1, (2, 2))
    out = grid.to_output(torch.zeros(1, 3, 2, 2), tokens)
    assert torch.equal(out[:, 0], tokens[:, 0])
    assert not out[:, 1:].any()


@given(sizes, st.integers(0, 5), st.integers(0, 5), st.integers(0, 99))
def test_tokens_behind_the_grid_and_in_any_order(size, prefix, behind, seed):
    cells = size[0] * size[1]
    order = torch.randperm(cells, generator=torch.Generator().manual_seed(seed)).tolist()
    tokens = torch.randn(2, prefix + cells + behind, 3)
    grid = Grid("tokens", prefix, size, tuple(order))
    maps = grid.to_map(tokens)
    for cell in range(cells):
        expected = tokens[:, prefix + order[cell]]
        assert torch.equal(maps[:, :, cell // size[1], cell % size[1]], expected)
    assert torch.equal(grid.to_output(maps, tokens), tokens)
    changed = grid.to_output(2 * maps, tokens)
    assert torch.equal(changed[:, :prefix], tokens[:, :prefix])
    assert torch.equal(changed[:, prefix + cells :], tokens[:, prefix + cells :])
    assert torch.equal(changed[:, prefix : prefix + cells], 2 * tokens[:, prefix : prefix + cells])


@pytest.mark.parametrize(
    ("grid", "shape", "fits"),
    [
        (Grid(), (1, 3, 4, 5), True),
        (Grid("nhwc"), (1, 3, 4, 5), True),
        (Grid(), (1, 20, 3), False),
        (Grid("tokens", 1, (2, 3)), (1, 7, 4), True),
        (Grid("tokens", 1, (2, 3)), (1, 9, 4), True),
        (Grid("tokens", 1, (2, 3)), (1, 6, 4), False),
        (Grid("tokens", -1, (2, 3)), (1, 6, 4), False),
        (Grid("tokens", 0, None), (1, 6, 4), False),
        (Grid("tokens", 0, (2, 3)), (1, 6, 4, 1), False),
    ],
)
def test_fits(grid, shape, fits):
    assert grid.fits(shape) is fits


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 197, 8), (224, 224), Grid("tokens", 1, (14, 14))),
        ((1, 85, 8), (112, 192), Grid("tokens", 1, (7, 12))),
        ((1, 99, 8), (224, 112), Grid("tokens", 1, (14, 7))),
        ((1, 512, 7, 7), (224, 224), Grid()),
        ((1, 7, 14, 768), (224, 448), Grid("nhwc")),
    ],
)
def test_every_reading_that_a_shape_allows_is_possible(shape, size, expected):
    assert expected in list(possible_grids(shape, size))


@pytest.mark.parametrize("shape", [(1, 10), (1, 3, 4, 5, 6), (1, 1, 64), (1, 64, 1)])
def test_no_reading_is_possible(shape):
    assert list(possible_grids(shape, (224, 224))) == []


def test_single_tensor():
    a = torch.zeros(2)
    assert single_tensor(a) is a
    assert single_tensor((a,)) is a
    assert single_tensor([a, None]) is a
    for output in ((a, a), (None, a), {"a": a}, None, ()):
        assert single_tensor(output) is None
