"""Sparseness, entropies, areas and dead zones: closed forms, slow loops, quantus."""

import math

import numpy as np
import pytest
import torch

from camlucida import CamlucidaError
from camlucida.metrics import (
    cam_entropy,
    complexity,
    dead_zone_activity,
    effective_area,
    seen_area_lost,
    sparseness,
)
from reference import metrics_maps as slow

FUNCTIONS = [sparseness, cam_entropy, complexity, effective_area]


def draw(n=4, size=(6, 7), seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *size, generator=g, dtype=torch.float64)


def compare(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_against_loops():
    maps = draw()
    plain = [m.numpy() for m in maps]
    compare(sparseness(maps), [slow.gini(m) for m in plain])
    compare(cam_entropy(maps), [slow.cam_entropy(m) for m in plain])
    compare(cam_entropy(maps, 2), [slow.cam_entropy(m, 2) for m in plain])
    compare(complexity(maps), [slow.complexity(m) for m in plain])
    compare(effective_area(maps), [math.exp(slow.complexity(m)) / 42 for m in plain])
    dead = torch.rand(6, 7) < 0.4
    expected = [slow.dead_zone(m, dead.numpy()) for m in plain]
    compare(dead_zone_activity(maps, dead), expected)
    compare(dead_zone_activity(maps, dead.expand(4, 6, 7).contiguous()), expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_batch_is_its_images_one_by_one(function):
    maps = draw()
    found = function(maps)
    assert found.dtype == torch.float64
    compare(found, [function(m[None]).item() for m in maps])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_scale_does_not_matter_and_tiny_maps_are_not_lost(function):
    maps = draw().abs()
    for factor in (1e-170, 1e170):
        torch.testing.assert_close(function(maps * factor), function(maps), atol=1e-8, rtol=0)


def test_sparseness_closed_forms():
    one = torch.zeros(1, 5, 5)
    one[0, 2, 2] = 3
    assert sparseness(one).item() == pytest.approx(1 - 1 / 25)
    assert sparseness(-one).item() == pytest.approx(1 - 1 / 25)
    assert sparseness(torch.full((1, 5, 5), 0.1)).item() == 0
    assert sparseness(torch.zeros(1, 5, 5)).item() == 0


def test_entropy_of_equal_cells_is_nats():
    for count, entropy in ((28, 3.3322), (24, 3.178), (29, 3.367)):
        cells = torch.zeros(1, 49)
        cells[0, :count] = 2
        found = cam_entropy(cells.view(1, 7, 7))
        assert found.item() == pytest.approx(math.log(count), abs=1e-6)
        assert found.item() == pytest.approx(entropy, abs=1e-3)
    ring = torch.zeros(1, 49)
    ring[0, :28] = 1
    assert cam_entropy(ring.view(1, 7, 7), base=2).item() == pytest.approx(4.8074, abs=1e-4)


def test_entropy_keeps_signs_and_blank_maps_are_zero():
    """A signed map is lifted, not rectified: its least cell is the empty one."""
    signed = torch.tensor([[[-3.0, -1.0], [-1.0, -1.0]]])
    assert cam_entropy(signed).item() == pytest.approx(math.log(3), abs=1e-6)
    assert cam_entropy(torch.zeros(1, 7, 7)).item() == 0
    assert cam_entropy(torch.full((1, 7, 7), -2.5)).item() == 0


def test_complexity_closed_forms():
    maps = torch.zeros(3, 4, 5)
    maps[0, :2] = 0.3
    maps[1, 1, 1] = -7
    assert complexity(maps).tolist() == pytest.approx([math.log(10), 0, math.nan], nan_ok=True)
    assert effective_area(maps).tolist() == pytest.approx([0.5, 1 / 20, math.nan], nan_ok=True)


def test_constant_map_in_the_dead_zone():
    flat = torch.full((1, 224, 224), 0.2)
    assert dead_zone_activity(flat, 54).item() == pytest.approx(math.sqrt(54 / 224), abs=1e-7)
    assert round(dead_zone_activity(flat, 54).item(), 4) == 0.4910
    rows = torch.zeros(1, 224, 224)
    rows[0, 169] = 1  # the last row that is alive
    rows[0, 170] = 1
    assert dead_zone_activity(rows, 54).item() == pytest.approx(math.sqrt(0.5))


def test_zero_maps_in_the_dead_zone():
    maps = torch.zeros(2, 6, 6)
    maps[1] = -1
    assert dead_zone_activity(maps, 2).tolist() == [0, 0]
    assert dead_zone_activity(maps, 2, empty=math.nan).isnan().all()
    assert seen_area_lost(maps, 2).tolist() == [1, 1]


def test_seen_area_lost():
    maps = torch.zeros(1, 10, 4)
    maps[0, 2:] = 1
    assert seen_area_lost(maps, 2).item() == 2 / 8
    assert seen_area_lost(maps, torch.ones(10, 4, dtype=torch.bool)).isnan().all()


def test_not_a_number_stays_one():
    maps = draw()
    maps[1, 0, 0] = math.nan
    for function in FUNCTIONS:
        assert function(maps).isnan().tolist() == [False, True, False, False]
    for function in (dead_zone_activity, seen_area_lost):
        assert function(maps, 2).isnan().tolist() == [False, True, False, False]


def test_against_quantus():
    quantus = pytest.importorskip("quantus")
    maps = draw(size=(16, 16)).abs()
    a = maps[:, None].numpy()
    quiet = {"disable_warnings": True, "abs": False, "normalise": False}
    gini = quantus.Sparseness(**quiet).evaluate_batch(x_batch=a, a_batch=a.copy())
    entropy = quantus.Complexity(**quiet).evaluate_batch(x_batch=a, a_batch=a.copy())
    np.testing.assert_allclose(sparseness(maps).numpy(), gini, atol=1e-6)
    np.testing.assert_allclose(complexity(maps).numpy(), entropy, atol=1e-8)


def test_errors_say_what_was_given():
    with pytest.raises(CamlucidaError, match="7 dead rows"):
        dead_zone_activity(torch.zeros(1, 6, 6), 7)
    with pytest.raises(CamlucidaError, match=r"\(5, 6\)"):
        dead_zone_activity(torch.zeros(1, 6, 6), torch.zeros(5, 6, dtype=torch.bool))
    with pytest.raises(CamlucidaError, match="base"):
        cam_entropy(torch.zeros(1, 6, 6), 1)
