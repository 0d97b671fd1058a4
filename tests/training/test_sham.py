"""SHAM masks for any grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida.common.errors import CamlucidaError
from camlucida.metrics.concentration import cam_entropy
from camlucida.training.sham import border_mask, sham_count, sham_mask
from reference import sham as slow


@pytest.mark.parametrize("layout", ["rounded", "midpoints", "rows"])
def test_the_papers_mask_cell_by_cell(layout):
    mask = sham_mask(layout=layout)
    assert np.array_equal(mask.numpy(), slow.bits(getattr(slow, layout.upper())))
    assert int(mask.sum()) == 28
    assert int((mask == 0).sum()) == 21


def test_entropy_is_that_of_28_cells():
    mask = sham_mask()[None]
    assert float(cam_entropy(mask)) == pytest.approx(math.log(28), abs=1e-6)
    assert float(cam_entropy(mask)) == pytest.approx(3.3322, abs=1e-4)
    assert float(cam_entropy(mask, base=2)) == pytest.approx(4.8074, abs=1e-4)


def test_counts_follow_the_entropy():
    assert sham_count((7, 7)) == 28
    assert sham_count((7, 7), math.log(28)) == 28
    assert sham_count((7, 7), 3.35) == 28
    assert sham_count((7, 7), 3.37) == 29
    assert sham_count((14, 14)) == 114
    assert int(sham_mask(7, entropy=math.log(24)).sum()) == 24
    assert torch.equal(sham_mask(7, count=24), border_mask(7))


@given(
    st.integers(3, 15),
    st.integers(3, 15),
    st.sampled_from(["rounded", "midpoints", "rows"]),
    st.data(),
)
def test_any_grid(height, width, layout, data):
    count = data.draw(st.integers(1, height * width - 1))
    mask = sham_mask((height, width), layout, count=count)
    assert mask.shape == (height, width)
    assert int(mask.sum()) == count
    reach = [
        i if layout == "rows" else min(i, j)
        for i, j in (
            (min(r, height - 1 - r), min(c, width - 1 - c))
            for r in range(height)
            for c in range(width)
        )
    ]
    ones = [d for d, m in zip(reach, mask.flatten().tolist(), strict=True) if m]
    zeros = [d for d, m in zip(reach, mask.flatten().tolist(), strict=True) if not m]
    assert max(ones) <= min(zeros), "cells further in are filled last"


@pytest.mark.parametrize("layout", ["rounded", "midpoints", "rows"])
def test_the_7_by_7_masks_are_symmetric(layout):
    mask = sham_mask(7, layout)
    assert torch.equal(mask, mask.flip(0))
    assert torch.equal(mask, mask.flip(1))
    if layout != "rows":
        assert torch.equal(mask, mask.T)


@pytest.mark.parametrize("size", [7, 8, 12, 14, (10, 6)])
@pytest.mark.parametrize("layout", ["rounded", "midpoints", "rows"])
def test_default_masks_of_other_grids_are_symmetric_too(size, layout):
    mask = sham_mask(size, layout)
    assert torch.equal(mask, mask.flip(0))
    assert torch.equal(mask, mask.flip(1))
    assert 0.3 < float(mask.mean()) < 0.8
    assert int(sham_mask(8).sum()) == 40


@pytest.mark.parametrize("size", [(7, 7), (14, 14), (3, 9), (20, 15)])
def test_border(size):
    assert np.array_equal(border_mask(size).numpy(), slow.border(*size))


def test_a_mask_of_ones_own():
    own = torch.zeros(4, 5)
    own[0, 0] = 1
    assert torch.equal(sham_mask((4, 5), own), own)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sham_mask(7, "ring"), "layout must be"),
        (lambda: sham_mask(7, torch.zeros(6, 6)), "7 x 7 cells"),
        (lambda: sham_mask(7, torch.ones(7, 7)), "not all the same"),
        (lambda: sham_mask(7, torch.full((7, 7), math.nan)), "values in"),
        (lambda: sham_mask(7, count=49), "1 to 48 ones"),
        (lambda: sham_mask(7, count=0), "1 to 48 ones"),
        (lambda: sham_mask(7, entropy=9.0), "1 to 48 ones"),
        (lambda: sham_mask(7, entropy=math.nan), "number of nats"),
        (lambda: sham_mask(1), "1 x 1 cells has no edge and no middle"),
        (lambda: border_mask(2), "no middle"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(CamlucidaError, match=says):
        call()
