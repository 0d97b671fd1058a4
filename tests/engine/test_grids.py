"""What a layer returns as a feature map, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import Grid, LayerError
from camlucida.engine.layers import find_grid, single_tensor

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


@pytest.mark.parametrize(
    ("tokens", "size", "prefix", "grid"),
    [
        (196, (224, 224), 0, (14, 14)),
        (197, (224, 224), 1, (14, 14)),
        (198, (224, 224), 2, (14, 14)),  # DeiT distilled
        (201, (224, 224), 5, (14, 14)),  # a class token and four registers
        (200, (224, 224), 4, (14, 14)),  # registers alone
        (205, (224, 224), 9, (14, 14)),  # eight registers
        (257, (224, 224), 1, (16, 16)),  # patches of 14
        (261, (224, 224), 5, (16, 16)),
        (1370, (518, 518), 1, (37, 37)),
        (50, (224, 224), 1, (7, 7)),  # patches of 32
        (85, (112, 192), 1, (7, 12)),
        (84, (112, 192), 0, (7, 12)),
        (85, (192, 112), 1, (12, 7)),
        (577, (384, 384), 1, (24, 24)),
        (49, (224, 224), 0, (7, 7)),  # Swin
        (5, (32, 32), 1, (2, 2)),
        (99, (224, 112), 1, (14, 7)),
    ],
)
def test_find_token_grid(tokens, size, prefix, grid):
    assert find_grid(torch.zeros(1, tokens, 8), size) == Grid("tokens", prefix, grid)


@pytest.mark.parametrize(
    ("shape", "size", "layout"),
    [
        ((1, 512, 7, 7), (224, 224), "nchw"),
        ((1, 7, 7, 768), (224, 224), "nhwc"),
        ((1, 7, 14, 768), (224, 448), "nhwc"),
        ((1, 768, 7, 14), (224, 448), "nchw"),
        ((1, 64, 10, 7), (299, 200), "nchw"),
        ((1, 3, 224, 224), (224, 224), "nchw"),
        ((1, 7, 7, 7), (224, 224), "nchw"),
    ],
)
def test_find_layout(shape, size, layout):
    assert find_grid(torch.zeros(shape), size).layout == layout


@pytest.mark.parametrize("shape", [(1, 10), (1, 3, 4, 5, 6), (1, 1, 64), (1, 2, 64)])
def test_no_grid(shape):
    with pytest.raises(LayerError, match="no feature map"):
        find_grid(torch.zeros(shape), (224, 224), "head")


def test_single_tensor():
    a = torch.zeros(2)
    assert single_tensor(a) is a
    assert single_tensor((a,)) is a
    assert single_tensor([a, None]) is a
    for output in ((a, a), (None, a), {"a": a}, None, ()):
        assert single_tensor(output) is None
