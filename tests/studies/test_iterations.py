"""The effect of smoothing: one run, maps by iteration count and sigma."""

import pytest
import torch
from torch import nn

import camlucida
from camlucida.methods import FAME
from camlucida.studies.fame import iterations
from camlucida.studies.fame.smoothing import kernel_of


def test_each_map_equals_its_own_run():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    x = torch.randn(3, 40, 40, dtype=torch.float64)
    found = iterations(model, x, iterations=(3, 8), sigmas=(0, 2, 7.7), target=1)
    assert set(found.maps) == {(n, s) for n in (3, 8) for s in (0, 2, 7.7)}
    for (count, sigma), attribution in found.maps.items():
        method = FAME(iterations=count, sigma=sigma, kernel=kernel_of(sigma))
        own = camlucida.explain(model, x, method=method, target=1)
        torch.testing.assert_close(attribution, own.maps[0], rtol=0, atol=1e-12)
    assert len(found.figure().axes) == 2 * 3 + 1


def test_kernel_of_the_papers_sigma():
    assert kernel_of(7.7) == 49


def test_bad_counts():
    with pytest.raises(camlucida.MethodError, match="iteration counts"):
        iterations(nn.Identity(), torch.zeros(3, 8, 8), iterations=())
