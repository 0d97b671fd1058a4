"""The effect of smoothing: one run, maps by iteration count and sigma."""

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida.common.seeds import ImageGenerators
from camlucida.methods import FAME
from camlucida.models import LoadedModel
from camlucida.studies.fame import iterations, starts
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


def test_starts_against_the_methods_own_maps():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    x = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    loaded = LoadedModel(model, "tiny", camlucida.Preprocess((40, 40), 40), None)
    table = starts(loaded, x, settings=[(1, 6), (3, 2)], paths=2, steps=6)
    classes = model(x).argmax(1)

    def maps(count, steps, draw):
        near = loaded.preprocess.jittered(x, ImageGenerators(draw, x)) if draw else x
        method = FAME(starts=count, iterations=steps)
        found = camlucida.explain(loaded, near, method=method, target=classes, seed=draw)
        return found.maps.flatten(1).numpy()

    for (name, cells), (count, steps) in zip(table.rows, ((1, 6), (3, 2)), strict=False):
        a, b, whole = maps(count, steps, 1), maps(count, steps, 2), maps(2, 6, 0)
        again = [np.corrcoef(a[i], b[i])[0, 1] for i in (0, 1)]
        near = [np.corrcoef(m[i], whole[i])[0, 1] for m in (a, b) for i in (0, 1)]
        wanted = [count * steps, np.mean(again), np.min(again), np.mean(near)]
        assert name == f"{count} x {steps}"
        assert [cell.value for cell in cells] == pytest.approx(wanted, abs=1e-12)
    with pytest.raises(camlucida.MethodError, match="grey level"):
        starts(model, x)
