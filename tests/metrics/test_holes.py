"""Narrow holes, groups of holes and their boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from camlucida.metrics.imputation.holes import narrow, split
from camlucida.metrics.imputation.impute import impute
from reference import road as slow


def discs(size, places):
    y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    return torch.stack([(y - a) ** 2 + (x - b) ** 2 < r * r for a, b, r in places]).any(0)


SPOTS = [(20, 15, 6), (20, 70, 9), (85, 30, 4), (95, 99, 5), (60, 60, 7), (62, 68, 6)]


@st.composite
def spotted(draw):
    size = draw(st.integers(4, 70)), draw(st.integers(4, 70))
    spot = st.tuples(st.integers(0, size[0]), st.integers(0, size[1]), st.floats(0.5, 9))
    return discs(size, draw(st.lists(spot, min_size=1, max_size=8)))


def check(masks):
    groups, holes = split(masks)
    assert torch.equal(groups >= 0, masks)
    size, covered = masks.shape[1:], torch.zeros_like(masks, dtype=torch.int)
    for hole in holes:
        own = groups[hole.mask] == hole.group
        y, x = hole.box(hole.height, hole.width, size)
        inner = torch.zeros_like(own)
        low, left = y.start + (y.start > 0), x.start + (x.start > 0)
        inner[low : y.stop - (y.stop < size[0]), left : x.stop - (x.stop < size[1])] = True
        assert not (own & ~inner).any()
        covered[hole.mask] += own
    assert torch.equal(covered, masks.int())
    for mask, group in zip(masks.numpy(), groups.numpy(), strict=True):
        pieces, count = ndimage.label(mask, np.ones((3, 3)))
        for piece in range(1, count + 1):
            assert len(np.unique(group[pieces == piece])) == 1
    return holes


@given(spotted())
def test_holes_that_touch_stay_together_and_boxes_hold_them(mask):
    if mask.any():
        check(mask[None])


def test_holes_far_apart_are_told_apart():
    mask = discs((120, 110), SPOTS)
    assert len(check(mask[None])) == 5
    assert len(check(torch.stack([mask, torch.ones_like(mask), mask.flip(0)]))) == 11


def test_a_hole_that_winds_too_far_is_taken_whole():
    mask = torch.zeros(300, 300, dtype=torch.bool)
    mask[::30, :] = mask[1::30, :] = True
    for row in range(0, 270, 30):
        side = 0 if row % 60 else 295
        mask[row : row + 30, side : side + 5] = True
    assert len(check(mask[None])) == 1


def test_which_are_narrow():
    masks = torch.zeros(3, 13, 14, dtype=torch.bool)
    masks[0, ::2] = True
    masks[1, 4:8, 8:12] = True
    assert narrow(masks).tolist() == [True, False, True]


@pytest.mark.parametrize("percent", [3, 10, 15])
def test_many_small_holes(percent):
    x = torch.rand(1, 3, 120, 110, generator=torch.Generator().manual_seed(0))
    scattered = x[0, 0] < percent / 100
    for mask in (discs((120, 110), SPOTS), scattered):
        found = impute(x, mask[None], noise=0.0)[0].double().numpy()
        assert np.abs(found - slow.linear(x[0].double(), mask)).max() < 1e-4


def test_images_larger_than_a_chunk():
    x = torch.rand(2, 1, 330, 320, generator=torch.Generator().manual_seed(2))
    masks = x[:, 0] < 0.01
    found = impute(x, masks, noise=0.0)
    for i in range(2):
        assert np.abs(found[i].numpy() - slow.linear(x[i].double(), masks[i])).max() < 1e-4


def test_a_constant_is_kept_exactly_and_a_nan_stays_with_its_channel():
    x = torch.full((2, 2, 40, 40), 0.3)
    x[1, 1, 0, 0] = torch.nan
    mask = torch.zeros(2, 40, 40, dtype=torch.bool)
    mask[:, 5:30:6, 7:33:5] = True
    found = impute(x, mask, noise=0.0)
    assert (found[0] == 0.3).all()
    assert (found[1, 0] == 0.3).all()
    assert found[1, 1][mask[1]].isnan().all()
