"""Cell analysis: where a cell looks, on networks for which that is known."""

import math

import pytest
import torch
from torch import nn

from camlucida import CamlucidaError, LayerError, MethodError
from camlucida.methods import FAME
from camlucida.studies.fame import cells, depth_curve, depth_figure
from camlucida.studies.fame.cell_maps import nominal_cell
from camlucida.studies.fame.depth import spread_cells

FAST = FAME(iterations=5, sigma=0)


class Patches(nn.Module):
    """Cells that look exactly at their 4x4 patch, then cells that look everywhere."""

    def __init__(self):
        super().__init__()
        self.local = nn.Conv2d(3, 4, 4, stride=4)
        self.wide = nn.Conv2d(4, 4, 7, padding=3)

    def forward(self, x):
        return self.wide(self.local(x)).mean((2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Patches().double().eval()


def test_local_cells_have_all_their_mass_on_the_patch(model):
    found = cells(model, torch.randn(3, 16, 20, dtype=torch.float64), "local", method=FAST)
    assert found.size == (4, 5)
    assert [(c.row, c.col) for c in found.cells] == [(r, c) for r in range(4) for c in range(5)]
    for cell in found.cells:
        assert cell.inside == pytest.approx(1)
        assert cell.support == cell.nominal == nominal_cell(cell.row, cell.col, (4, 5), (16, 20))
        assert cell.offset < 2
    assert str(found.field) == "4x4"
    assert found.chance == pytest.approx(1 / 20)


def test_wide_cells_do_not(model):
    found = cells(model, torch.randn(3, 16, 16, dtype=torch.float64), "wide", method=FAST)
    assert found.mean("inside") < 0.5
    assert found.mean("rms_radius") > 2
    assert found.cells[0].support == (0, 0, 16, 16)


def test_batches_do_not_matter(model):
    x = torch.randn(3, 16, 16, dtype=torch.float64)
    whole = cells(model, x, "wide", method=FAST)
    parts = cells(model, x, "wide", method=FAST, batch_size=3)
    torch.testing.assert_close(whole.maps, parts.maps, rtol=0, atol=1e-12)


def test_dead_cells_have_an_empty_map_and_no_numbers(model):
    with torch.no_grad():
        model.local.weight.zero_()
        model.local.bias.zero_()
    net = nn.Sequential(model.local, nn.ReLU())
    found = cells(net, torch.randn(3, 8, 8, dtype=torch.float64), "1", method=FAST)
    assert all(cell.dead and math.isnan(cell.inside) for cell in found.cells)
    assert found.maps.abs().max() == 0
    assert found.summary()["dead_cells"] == 4


def test_nominal_cells_tile_the_image():
    covered = torch.zeros(10, 11)
    for r in range(3):
        for c in range(4):
            top, left, bottom, right = nominal_cell(r, c, (3, 4), (10, 11))
            covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_figure_frames_every_cell(model):
    found = cells(model, torch.rand(3, 16, 16, dtype=torch.float64), "local", method=FAST)
    figure = found.figure()
    assert len(figure.axes) == 16
    assert all(len(axis.patches) == 1 for axis in figure.axes)


def test_depth_curve_falls_from_local_to_wide(model):
    curve = depth_curve(
        model, torch.randn(3, 32, 32, dtype=torch.float64), ["local", "wide"], method=FAST, most=9
    )
    assert [len(a.cells) for a in curve] == [9, 9]
    assert curve[0].mean("inside") > 0.99 > curve[1].mean("inside")
    assert len(depth_figure(curve).axes) == 2


def test_depth_curve_takes_the_last_layer_of_each_resolution_in_order():
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 2, stride=2))
    net = nn.Sequential(blocks, nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 2, stride=2)).double()
    curve = depth_curve(net, torch.randn(3, 16, 16, dtype=torch.float64), method=FAST, most=4)
    assert [a.layer for a in curve] == ["0.1", "1", "2"]


def test_spread_covers_the_map():
    assert spread_cells(2, 2, 9) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    chosen = spread_cells(14, 28, 16)
    assert len(chosen) == 16
    assert min(r for r, _ in chosen) <= 2
    assert max(c for _, c in chosen) >= 24


def test_unknown_layer(model):
    with pytest.raises(LayerError, match="nearest"):
        cells(model, torch.zeros(3, 8, 8, dtype=torch.float64), "locall")


def test_some_cells_also_counted_from_the_end(model):
    x = torch.randn(3, 16, 20, dtype=torch.float64)
    whole = cells(model, x, "local", method=FAST)
    some = cells(model, x, "local", method=FAST, cells=[(-1, -1), (0, 2)])
    assert some.cells == (whole.cells[-1], whole.cells[2])
    assert some.cells[0].inside == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cells": []}, "no cell"),
        ({"cells": [(0, 5)]}, r"\(0, 5\) lies outside the 4x5 map"),
        ({"cells": [(-5, 0)]}, "outside the 4x5"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_cells_that_cannot_be_analysed(model, options, words):
    with pytest.raises(CamlucidaError, match=words):
        cells(model, torch.randn(3, 16, 20, dtype=torch.float64), "local", method=FAST, **options)


def test_the_depth_curve_needs_a_cell(model):
    with pytest.raises(CamlucidaError, match="most must be at least 1"):
        depth_curve(model, torch.zeros(3, 16, 16, dtype=torch.float64), ["local"], most=-1)


def test_an_image_of_nan_has_dead_cells_and_empty_maps(model):
    x = torch.full((3, 8, 8), torch.nan, dtype=torch.float64)
    found = cells(model, x, "local", method=FAST)
    assert all(cell.dead for cell in found.cells)
    assert not found.maps.any()


def test_the_method_may_be_text():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)
    ).eval()
    x = torch.rand(1, 3, 8, 8)
    named = cells(net, x, "0", method="fame:iterations=5,sigma=0", cells=[(0, 0)])
    assert torch.equal(named.maps, cells(net, x, "0", method=FAST, cells=[(0, 0)]).maps)
    with pytest.raises(MethodError, match="FAME only, as in fame:key=value"):
        cells(net, x, "0", method="gradcam")
