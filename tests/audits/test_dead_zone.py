"""Dead zones: proved where they are, refuted where they are not, and what methods do with them (spec 13.11)."""

import math

import pytest
import torch
from torch import nn

from camlucida import CamlucidaError, explain
from camlucida.audits.deadzone.audit import audit_dead_zone, region_of, zones_of
from camlucida.audits.deadzone.mu import PAPER, Zones, all_methods, measure, tune_opticam, verdict
from camlucida.audits.deadzone.mu import Tested as Case
from camlucida.audits.deadzone.nets import NETS, build_net, stacked
from camlucida.audits.deadzone.proof import dead_zone
from camlucida.maps import resize
from camlucida.metrics.concentration import dead_zone_activity
from camlucida.models.masked_vgg import TARGET_LAYER, MaskedVGG
from camlucida.models.walls import Region, feature_wall, input_wall
from reference.walls import mu_by_loops


class Plain(nn.Module):
    """Every pixel matters."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.last(self.conv(x).relu()).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return MaskedVGG(7, width=1 / 64).double().eval()


@pytest.fixture(scope="module")
def zone(vgg):
    return dead_zone(vgg, (224, 224), draws=1)


@pytest.fixture
def plain():
    return Plain().double().eval()


def test_rows_170_to_223_of_the_papers_network_are_dead(zone):
    assert zone.rows == (170, 223)
    assert int(zone.mask.sum()) == 54 * 224
    assert zone.uniform == pytest.approx(0.4910, abs=5e-5)
    assert zone.proof["control"]
    assert zone.proof["border"]
    assert zone.proof["refuted"] == 0
    assert region_of(zone) == Region(170, 0, 224)


def test_changing_them_leaves_the_outputs_bit_identical(vgg):
    """Spec 9.1, without the library's own proof: rows 170 on change nothing, row 169 does."""
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        before = vgg(x)
        dead, alive = x.clone(), x.clone()
        dead[:, :, 170:] = 50 * torch.randn(1, 3, 54, 224, dtype=torch.float64)
        alive[:, :, 169] += 1
        assert torch.equal(vgg(dead), before)
        assert not torch.equal(vgg(alive), before)


def test_hirescam_is_exactly_zero_from_row_88(vgg, zone):
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    found = explain(vgg, x, method=["hirescam", "layercam", "gradcam-ew"], layers=TARGET_LAYER)
    for e in found.values():
        assert e.raw[:, 5:].abs().max() == 0
        enlarged = resize(e.raw, (224, 224))
        lit = enlarged.amax((0, 2)) > 0
        assert not lit[88:].any()
        assert dead_zone_activity(enlarged, zone.mask).max() == 0


def test_the_first_blank_row_is_88_when_the_seen_cells_are_lit():
    cells = torch.zeros(1, 14, 14, dtype=torch.float64)
    cells[:, :5] = 1
    lit = resize(cells, (224, 224))[0].amax(1) > 0
    assert int(lit.sum()) == 88
    assert pytest.approx(0.607, abs=1e-3) == 1 - 88 / 224  # 61 % blank where 24 % is dead


def test_the_unmasked_twin_has_no_dead_pixel():
    torch.manual_seed(0)
    twin = MaskedVGG(7, width=1 / 16, masked=False, size=64, seen_rows=2).eval()
    found = dead_zone(twin, (64, 64), draws=2)
    assert found.empty
    assert "no pixels are dead" in str(found)
    assert found.proof["changes"] == 0


@pytest.mark.parametrize("where", [Region.rows(6), Region(2, 3, 5, 8), Region(0, 0, 1, 1)])
def test_an_input_wall_is_found_to_the_pixel(plain, where):
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    found = dead_zone(input_wall(plain, where), x, draws=1)
    assert torch.equal(found.mask, where.mask((9, 10)))
    assert found.share == pytest.approx(float(where.mask((9, 10)).double().mean()))


def test_a_feature_wall_kills_cells_not_pixels(plain):
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    walled = feature_wall(plain, "last", Region.rows(8))
    cells = dead_zone(walled, x, "last", draws=1)
    assert torch.equal(cells.mask, Region.rows(8).mask((9, 10)))
    assert dead_zone(walled, x, draws=1).empty  # row 8 is still seen from row 7


def test_a_gradient_of_zero_is_no_proof():
    """A pixel that only acts far away from the tried images has no gradient there, but is not dead."""

    class Far(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            seen = x[:, :, :3].sum((1, 2, 3)) * self.scale
            far = (x[:, 0, 3, 2].abs() - 40).relu()
            return torch.stack([seen + far, seen - far], 1)

    found = dead_zone(Far(), 0.1 * torch.randn(2, 3, 5, 4, dtype=torch.float64), draws=2)
    expected = torch.zeros(5, 4, dtype=torch.bool)
    expected[3:] = True
    expected[3, 2] = False
    assert torch.equal(found.mask, expected)
    assert found.proof["refuted"] == 1


def test_outputs_that_are_not_the_same_twice_prove_nothing():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.scale * x.mean((2, 3)) + self.calls

    with pytest.raises(CamlucidaError, match="same images"):
        dead_zone(Noisy(), (6, 6), draws=1)


def test_activity_against_loops():
    maps = torch.randn(3, 6, 5, dtype=torch.float64).clamp_min(0)
    dead = Region(3, 1, 6, 4).mask((6, 5))
    expected = torch.tensor([mu_by_loops(m, dead) for m in maps], dtype=torch.float64)
    torch.testing.assert_close(dead_zone_activity(maps, dead), expected)
    assert dead_zone_activity(torch.ones(1, 224, 224), 54).item() == pytest.approx(0.4910, abs=5e-5)


# ------------------------------------------------------------------------------------- methods and words


@pytest.fixture
def walled(plain):
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    model = feature_wall(plain, "last", Region.rows(10))
    return model, x, zones_of(model, x, "last", draws=1)


def test_cells_are_judged_where_no_pixel_is_dead(walled):
    model, x, zones = walled
    assert zones.cells.rows == (10, 15)
    found = {
        one.label: measure(model, x, one, zones)
        for one in all_methods(quick=True, names=["gradcam", "hirescam"])
    }
    if zones.judged == "cells":
        assert found["gradcam"]["pixels"] is None
    assert max(found["hirescam"]["cells"]) == 0
    assert found["hirescam"]["always_lost"] < 1
    said = {label: verdict(label, values, zones) for label, values in found.items()}
    assert said["hirescam"].outcome in {"pass", "warn"}


def test_global_weights_light_up_what_is_dead():
    torch.manual_seed(1)
    net = build_net("masked").double()
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    zones = zones_of(net, x, "features", draws=1)
    assert zones.pixels.rows == (39, 63)
    assert zones.cells.rows == (3, 7)
    for name in ("gradcam", "gradcam++", "xgradcam", "eigencam"):
        found = measure(net, x, Case(name, name), zones)
        assert max(found["pixels"]) > 0.1, name
        assert verdict(name, found, zones).outcome == "fail"
    for name in ("hirescam", "layercam"):
        found = measure(net, x, Case(name, name), zones)
        assert max(found["pixels"]) == max(found["cells"]) == 0
        said = verdict(name, found, zones)
        assert said.outcome == "warn"
        assert "blank on" in said.text


def test_fame_is_judged_before_its_blur():
    net = build_net("masked").double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    zones = zones_of(net, x, "features", draws=1)
    found = measure(net, x, Case("fame", "fame", {"iterations": 2}, own_layers=True), zones)
    assert max(found["pixels"]) == 0
    assert max(found["finished"]) > 0
    assert found["cells"] is None


def test_methods_that_cannot_explain_a_model_are_named(walled):
    model, x, zones = walled
    found = measure(model, x, Case("rollout", "rollout"), zones)
    assert verdict("rollout", found, zones).outcome == "not tested"


def test_every_registered_method_is_tested_once():
    from camlucida.methods import methods

    chosen = all_methods(quick=True)
    assert {one.name for one in chosen} == {row.name for row in methods()}
    assert len({one.label for one in chosen}) == len(chosen)
    assert tuple(one.name for one in chosen[:8]) == PAPER
    assert all(not one.options for one in all_methods(quick=False))


def test_opticam_is_tuned_to_the_lowest_average_drop(walled):
    model, x, _ = walled
    found = tune_opticam(model, x, "last", learning_rates=(0.01, 0.3), iterations=(3, 6))
    assert len(found["tried"]) == 4
    assert found["average_drop"] == min(row["average_drop"] for row in found["tried"])
    assert set(found["options"]) == {"learning_rate", "iterations"}


def test_the_audit_on_a_model_of_ones_own(plain, tmp_path):
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    options = {
        "wall": "rows:10-15",
        "methods": ["gradcam", "saliency", "rollout"],
        "folder": tmp_path,
    }
    told = []
    report = audit_dead_zone(plain, x, **options, say=lambda *what: told.append(what))
    assert report["saliency"].outcome == "pass"
    assert report["saliency"].value == 0
    assert report["gradcam"].outcome == "fail"
    assert report["rollout"].outcome == "not tested"
    assert report.record["dead_pixels"]["rows"] == [10, 15]
    assert told[0][0] == "proving what is dead"
    again = audit_dead_zone(plain, x, **options)
    assert again.record["measured"] == report.record["measured"]
    assert len(list((tmp_path / "parts").iterdir())) == 3
    page = report.html()
    assert "rows 10-15" in page
    assert "<script" not in page


def test_without_a_dead_part_there_is_nothing_to_judge(plain):
    report = audit_dead_zone(
        plain, torch.rand(2, 3, 12, 12, dtype=torch.float64), methods=["gradcam"]
    )
    assert not report.verdicts
    assert "Nothing is dead" in report.summary


def test_stand_ins_have_their_wall_before_they_are_trained():
    zones = {kind: dead_zone(build_net(kind), (64, 64), draws=1) for kind in NETS}
    assert zones["masked"].rows == zones["residual"].rows == (39, 63)
    assert zones["unmasked"].empty
    weights = [
        dict(build_net(kind).named_parameters())["features.0.weight"]
        for kind in ("masked", "unmasked")
    ]
    assert torch.equal(*weights)
    drawn = stacked(39, 4).tensors()
    assert not drawn.masks[:, 39:].any()
    assert not drawn.second_masks[:, :39].any()
    assert (drawn.labels != drawn.second_labels).all()


def test_constant_maps_score_the_root_of_the_dead_share(zone):
    zones = Zones(zone, None, TARGET_LAYER)
    assert zones.uniform == pytest.approx(math.sqrt(54 / 224))
    assert zones.judged == "pixels"
