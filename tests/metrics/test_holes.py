"""Holes of many shapes and sizes, each filled as the exact solution says."""

import numpy as np
import pytest
import torch

from camlucida.metrics.imputation.impute import impute
from reference import road as slow


def discs(size, places):
    y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    return torch.stack([(y - a) ** 2 + (x - b) ** 2 < r * r for a, b, r in places]).any(0)


SPOTS = [(20, 15, 6), (20, 70, 9), (85, 30, 4), (95, 99, 5), (60, 60, 7), (62, 68, 6)]


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
