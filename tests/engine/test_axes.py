"""Axes that are followed through operations: where each pixel really went is the reference.

The image carries the number of its row and its column as values. What only moves pixels around leaves these
values in the output, so that the true place of everything in it can be read off.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camlucida.engine.layers.axes import FollowAxes
from camlucida.engine.layers.grids import Grid, read_axes

H, W = 12, 8


def coordinates(height=H, width=W):
    rows = torch.arange(float(height)).view(1, 1, height, 1).expand(1, 1, height, width)
    columns = torch.arange(float(width)).view(1, 1, 1, width).expand(1, 1, height, width)
    return torch.cat([rows, columns], 1).clone()


def follow(function, x):
    mode = FollowAxes()
    with torch.no_grad(), mode:
        mode.start(x)
        y = function(x)
    axes = mode.of(y)
    return y, None if axes is None else read_axes(axes, y.shape)


def true_map(y, grid):
    """Whether the map shows rows and columns in the right order, by the values."""
    found = grid.to_map(y)
    rows, columns = found[0, 0], found[0, 1]
    return bool(
        (rows == torch.arange(float(rows.shape[0]))[:, None]).all()
        and (columns == torch.arange(float(columns.shape[1]))[None]).all()
    )


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def windows(x, size=4):
    n, c, h, w = x.shape
    cut = x.view(n, c, h // size, size, w // size, size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, c)


def merged(z, size=4, h=H, w=W):
    cut = z.view(-1, h // size, w // size, size, size, z.shape[-1])
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, z.shape[-1])


def prefixed(z, front=2, behind=3):
    extra = torch.zeros(z.shape[0], front, z.shape[2]), torch.zeros(z.shape[0], behind, z.shape[2])
    return torch.cat([extra[0], z, extra[1]], 1)


def units(z, h=H, w=W):
    """Tokens in the order of Hiera: places inside a unit first."""
    n, _, c = z.shape
    return z.view(n, h // 2, 2, w // 2, 2, c).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w, c)


MOVES = {
    "as it is": lambda x: x,
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "to and fro": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "tokens": tokens,
    "tokens and back": lambda x: tokens(x).transpose(1, 2).view(1, 2, H, W),
    "prefix and suffix": lambda x: prefixed(tokens(x)),
    "prefix cut off": lambda x: prefixed(tokens(x))[:, 2:-3],
    "prefix split off": lambda x: prefixed(tokens(x)).split([2, H * W + 3], 1)[1],
    "a longer prefix": lambda x: prefixed(prefixed(tokens(x))),
    "windows and back": lambda x: merged(windows(x)),
    "windows, rolled": lambda x: merged(windows(x.roll((-2, -1), (2, 3)))).roll((2, 1), (1, 2)),
    "a crop beside the whole": lambda x: nn.functional.pad(x, (3, 0, 0, 0))[..., :W] * 0 + x,
    "patches": lambda x: nn.functional.unfold(x, 1).mT,
    "patches of columns": lambda x: nn.functional.unfold(x.mT, 1).mT,
    "padded and cut": lambda x: nn.functional.pad(x, (0, 2, 0, 2))[:, :, :H, :W],
    "much padding, cut off": lambda x: nn.functional.pad(x, (5, 8, 7, 0))[:, :, 7:, 5:-8],
    "windows of padding": lambda x: merged(windows(nn.functional.pad(x, (0, 4, 0, 4))), 4, 16, 12)[
        :, :H, :W
    ],
    "units": lambda x: units(tokens(x)),
    "units behind a prefix": lambda x: prefixed(units(tokens(x))),
    "column by column": lambda x: tokens(x.transpose(2, 3)),
    "tokens backwards": lambda x: tokens(x).flip(1),
    "heads": lambda x: tokens(x).view(1, H * W, 2, 1).transpose(1, 2).transpose(1, 2).flatten(2),
    "halves of the channels": lambda x: torch.cat(x.chunk(2, 1), 1),
    "two branches": lambda x: torch.stack([x, x]).sum(0) / 2,
    "in place": lambda x: x.clone().mul_(2).div_(2),
    "a sum with something fixed": lambda x: x + torch.zeros(1, 2, 1, 1) + torch.zeros(H, W),
    "unfolded": lambda x: (
        x.unfold(2, 4, 4).unfold(3, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(1, 2, H, W)
    ),
    "by einsum": lambda x: torch.einsum("nchw,cd->nhwd", x, torch.eye(2)),
    "by a product": lambda x: tokens(x) @ torch.eye(2),
}


@pytest.mark.parametrize("name", MOVES)
def test_where_everything_went(name):
    y, grid = follow(MOVES[name], coordinates())
    assert isinstance(grid, Grid), grid
    assert true_map(y, grid)


@given(
    st.lists(
        st.sampled_from(["windows", "tokens", "last", "roll", "prefix", "norm", "half"]), max_size=6
    )
)
def test_any_chain_of_moves(names):
    def run(x):
        shift = 0
        for name in names:
            if name == "windows":
                x = merged(windows(x)).permute(0, 3, 1, 2)
            elif name == "tokens":
                x = tokens(x).transpose(1, 2).reshape(1, 2, H, W)
            elif name == "last":
                x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            elif name == "roll":
                x, shift = x.roll(3, 2), shift + 3
            elif name == "prefix":
                x = prefixed(tokens(x))[:, 2 : 2 + H * W].mT.unflatten(2, (H, W))
            elif name == "norm":
                x = x * torch.ones(1, 2, 1, 1)
            else:
                x = torch.cat([x[:, :1], x[:, 1:]], 1)
        return x.roll(-shift, 2)

    y, grid = follow(run, coordinates())
    assert grid == Grid()
    assert true_map(y, grid)


REFUSED = {
    "windows": (windows, "batch"),
    "lying": (lambda x: x.transpose(2, 3), "exchanged"),
    "mirrored": (lambda x: x.flip(3), "flipped"),
    "rolled": (lambda x: x.roll(3, 3), "shifted"),
    "no channels": (lambda x: x.sum(1), "no channels"),
    "channels before tokens": (lambda x: x.flatten(2), "between"),
    "columns": (lambda x: x.mean(2).mT, "whole rows or columns"),
    "columns of rows": (lambda x: x.permute(0, 3, 1, 2).flatten(2), "no channels"),
    "tokens first": (lambda x: tokens(x).transpose(0, 1), "first axis"),
    "blocks by tokens": (
        lambda x: windows(x).view(1, 6, 16, 2),
        "order of their own",
    ),
    "half of the rows": (lambda x: x[:, :, : H // 2], "rows run from 0% to 50%"),
    "a crop": (lambda x: x[:, :, 2:-2, 1:-1], "rows run from 17% to 83%"),
    "a crop with steps": (lambda x: x[..., 4::2], "columns run from 50% to 100%"),
    "a mirrored crop": (lambda x: x.flip(3)[..., :4], "columns run from 50% to 100%"),
    "negative padding": (
        lambda x: nn.functional.pad(x, (0, 0, -3, -3)),
        "rows run from 25% to 75%",
    ),
    "padding": (lambda x: nn.functional.pad(x, (4, 4, 0, 0)), "columns run from -50% to 150%"),
    "padding, pooled": (
        lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (0, 8, 0, 12)), 2),
        "rows run from 0% to 200%",
    ),
    "padded tokens": (lambda x: tokens(nn.functional.pad(x, (0, 4, 0, 0))), "0% to 150%"),
    "two crops in the channels": (
        lambda x: torch.cat([x[:, :, :-3], x[:, :, :-3]], 1),
        "rows run from 0% to 75%",
    ),
    "attention weights": (
        lambda x: (tokens(x) @ x.flatten(2)).softmax(-1).unsqueeze(1),
        "positions",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_map_says_why(name):
    move, word = REFUSED[name]
    _, reason = follow(move, coordinates())
    assert isinstance(reason, str)
    assert word in reason


UNKNOWN = {
    "pooled": lambda x: x.mean((2, 3)),
    "flattened": lambda x: x.flatten(1),
    "shuffled": lambda x: tokens(x)[:, torch.randperm(H * W)],
    "sorted": lambda x: x.sort(3).values,
    "queries": lambda x: torch.randn(1, 16, H * W) @ tokens(x),
    "a recurrent layer": lambda x: nn.LSTM(2 * H, 4, batch_first=True)(
        x.permute(0, 3, 1, 2).flatten(2)
    )[0],
    "mixed tokens": lambda x: torch.randn(1, H * W, H * W) @ tokens(x),
    "filtered": lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_nothing_is_claimed_of_what_is_not_known(name):
    _, grid = follow(UNKNOWN[name], coordinates())
    assert grid is None


@given(*[st.integers(1, 4)] * 2, st.integers(0, 2), st.integers(1, 2))
def test_how_many_patches(kernel, stride, padding, dilation):
    x = coordinates()
    y, grid = follow(lambda x: nn.functional.unfold(x, kernel, dilation, padding, stride).mT, x)
    there = torch.zeros(1, 1, H, W)
    rows, columns = nn.functional.conv2d(
        there, torch.zeros(1, 1, kernel, kernel), None, stride, padding, dilation
    ).shape[2:]
    if min(rows, columns) > 1:
        assert grid == Grid("tokens", 0, (rows, columns))
    assert y.shape[1] == rows * columns


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(2, 3, 3, stride=(1, 8), padding=1), (64, 1000)),
        (nn.Conv2d(2, 100, 3, stride=(1, 8), padding=1), (64, 1000)),
        (nn.Conv2d(2, 4, 3, stride=(8, 1)), (64, 32)),
        (nn.ConvTranspose2d(2, 4, 2, 2), (16, 16)),
        (nn.MaxPool2d(2), (16, 24)),
        (nn.AdaptiveAvgPool2d((3, 5)), (16, 24)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (16, 24)),
        (nn.PixelUnshuffle(2), (16, 24)),
        (nn.ZeroPad2d(1), (16, 24)),
        (nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(2, 3, 7)), (16, 24)),
        (nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(2, 3, 5, 2)), (8, 8)),
        (nn.Sequential(nn.ZeroPad2d((0, 2, 0, 2)), nn.MaxPool2d(3, 2)), (8, 8)),
        (nn.Sequential(nn.Conv2d(2, 3, 7), nn.ReLU(), nn.Conv2d(3, 3, 7)), (16, 24)),
        (nn.BatchNorm2d(2).eval(), (16, 24)),
        (nn.GroupNorm(1, 2), (16, 24)),
        (nn.Hardswish(), (16, 24)),
        (nn.PReLU(), (16, 24)),
        (
            nn.Sequential(
                nn.Conv2d(2, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.LocalResponseNorm(2)
            ),
            (16, 24),
        ),
    ],
)
def test_layers_of_convolutional_networks_are_channels_first(layer, size):
    y, grid = follow(layer, torch.randn(1, 2, *size))
    assert grid == Grid()
    assert y.ndim == 4


def test_attention_keeps_the_place_of_its_queries():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, 8, 6, 4)
    _, grid = follow(lambda x: attention(tokens(x), tokens(x), tokens(x))[0], x)
    assert grid == Grid("tokens", 0, (6, 4))
    queries = torch.randn(1, 24, 8)
    _, grid = follow(lambda x: attention(queries, tokens(x), tokens(x))[0], x)
    assert grid is None


def test_attention_is_noticed():
    seen = []
    mode = FollowAxes(lambda: seen.append(1))
    x = torch.randn(1, 8, 6, 4)
    with torch.no_grad(), mode:
        mode.start(x)
        nn.Conv2d(8, 8, 3)(x)
        assert not seen
        z = tokens(x)
        z @ z.mT
    assert seen
