"""Dead zones: proved where they are, refuted where they are not, and what methods do with them (spec 13.11)."""

import math

import pytest
import torch
from PIL import Image
from torch import nn

from camlucida import CamlucidaError, MethodError, explain
from camlucida.audits.candidates import Candidate, choose
from camlucida.audits.deadzone.activity import (
    PAPER,
    Zones,
    measure,
    tune_opticam,
    verdict,
)
from camlucida.audits.deadzone.audit import _methods, audit_dead_zone, zones_of
from camlucida.audits.deadzone.nets import NETS, build_net, stacked
from camlucida.audits.deadzone.proof import dead_zone
from camlucida.audits.deadzone.verdicts import summary
from camlucida.audits.deadzone.walls import feature_wall, input_wall
from camlucida.audits.request import Request
from camlucida.audits.trial import Trial
from camlucida.data.regions import Region
from camlucida.engine.maps import resize
from camlucida.metrics.concentration import dead_zone_activity
from camlucida.models.masked_vgg import TARGET_LAYER, MaskedVGG
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
    assert zone.region == Region(170, 0, 224)


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


def test_a_model_that_sees_nothing_has_no_dead_zone(plain):
    """Equal outputs prove nothing where nothing at all changes them."""
    with torch.no_grad():
        plain.head.weight.zero_()
    with pytest.raises(CamlucidaError, match="do not depend on any pixel"):
        dead_zone(plain, (9, 9), draws=1)


def test_saturated_outputs_prove_nothing():
    """Probabilities of exactly 0 and 1 have no gradient and do not move, whatever the model sees."""

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1e30, -1e30]))

        def forward(self, x):
            return (x.mean((2, 3))[:, :2] + self.bias).softmax(1)

    with pytest.raises(CamlucidaError, match="saturated"):
        dead_zone(Sure().eval(), (6, 6), draws=1)


def test_cells_that_no_head_reads_are_no_dead_zone():
    """Behind its last block a class token alone is read: not a wall, but the wrong layer."""

    class ClassToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.last, self.head = nn.Conv2d(3, 6, 4, 4), nn.Identity(), nn.Linear(6, 3)

        def forward(self, x):
            t = self.patch(x).flatten(2).transpose(1, 2)
            return self.head(self.last(torch.cat([t.mean(1, keepdim=True), t], 1))[:, 0])

    with pytest.raises(CamlucidaError, match="class token"):
        dead_zone(ClassToken().eval(), (16, 16), "last", draws=1)


def test_what_is_not_proved_is_not_said():
    """Without a gradient anywhere each change is noticed all the same."""

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            return self.scale * (x > 0).double().mean((2, 3))

    found = dead_zone(Steps(), (5, 5), draws=1)
    assert found.empty
    assert found.proof["refuted"] == 25
    assert "proved" in str(found)


# ------------------------------------------------------------------------------------- methods and words


@pytest.fixture
def walled(plain):
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    model = feature_wall(plain, "last", Region.rows(10))
    return model, x, zones_of(Trial(model, x, layer="last"), draws=1)


def test_cells_are_judged_where_no_pixel_is_dead(walled):
    model, x, zones = walled
    assert zones.cells.rows == (10, 15)
    found = {
        one.label: measure(Trial(model, x.repeat(6 // len(x), 1, 1, 1)), one, zones)
        for one in choose(["gradcam", "hirescam"], quick=True)
    }
    if zones.judged == "cells":
        assert found["gradcam"]["pixels"] is None
    assert max(found["hirescam"]["cells"]) == 0
    assert found["hirescam"]["always_lost"] < 1
    said = {label: verdict(label, values, zones) for label, values in found.items()}
    assert said["hirescam"].outcome in {"pass", "warn"}
    if zones.judged == "cells":  # what the head ignores is no statement about pixels
        texts = [v.text for v in said.values()] + [summary(tuple(said.values()), zones.unseen)]
        assert said["gradcam"].text.startswith(
            "Lights up cells of last that the head provably ignores"
        )
        assert not any("pixels" in text or "does not see" in text for text in texts)


def test_global_weights_light_up_what_is_dead():
    torch.manual_seed(1)
    net = build_net("masked").double()
    x = torch.randn(6, 3, 64, 64, dtype=torch.float64)
    zones = zones_of(Trial(net, x, layer="features"), draws=1)
    assert zones.pixels.rows == (39, 63)
    assert zones.cells.rows == (3, 7)
    for name in ("gradcam", "gradcam++", "xgradcam", "eigencam"):
        found = measure(Trial(net, x), Candidate(name), zones)
        assert max(found["pixels"]) > 0.1, name
        assert verdict(name, found, zones).outcome == "fail"
    for name in ("hirescam", "layercam"):
        found = measure(Trial(net, x), Candidate(name), zones)
        assert max(found["pixels"]) == max(found["cells"]) == 0
        said = verdict(name, found, zones)
        assert said.outcome == "warn"
        assert "blank on" in said.text


def test_fame_is_judged_before_its_blur():
    net = build_net("masked").double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    zones = zones_of(Trial(net, x, layer="features"), draws=1)
    found = measure(Trial(net, x), Candidate("fame", options={"iterations": 2}), zones)
    assert max(found["pixels"]) == 0
    assert max(found["finished"]) > 0
    assert found["cells"] is None


def test_methods_that_cannot_explain_a_model_are_named(walled):
    model, x, zones = walled
    found = measure(Trial(model, x), Candidate("rollout"), zones)
    assert verdict("rollout", found, zones).outcome == "not tested"


def test_every_registered_method_is_tested_once():
    from camlucida.methods import list_methods

    chosen = _methods(Request())
    assert {one.name for one in chosen} == {row.name for row in list_methods() if not row.control}
    assert len({one.label for one in chosen}) == len(chosen)
    assert tuple(one.name for one in chosen[:8]) == PAPER
    assert all(not one.options for one in _methods(Request(quick=False)))


def test_methods_have_options():
    names = ["gradcam", ("fame", {"iterations": 3}), ("fame", {}), ("icam", {"n_perturb": 2})]
    chosen = {one.label: one.options for one in _methods(Request(methods=names))}
    assert chosen["fame:iterations=3"] == {"iterations": 3}
    assert chosen["fame"] == {"iterations": 40}
    assert chosen["icam:n_perturb=2, one layer"] == {"n_perturb": 2}
    assert len(chosen) == 5
    with pytest.raises(CamlucidaError, match="'fame:iterations=3' is given twice"):
        _methods(Request(methods=[names[1], names[1]]))


def test_finished_parts_of_other_options_are_not_taken(plain, tmp_path):
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)

    def audited(*methods):
        options = {"wall": "rows:10-15", "methods": methods, "out": tmp_path}
        return audit_dead_zone(plain, x, **options).record

    one, two = ("saliency", {"reduction": "abs_max"}), ("saliency", {"reduction": "sum"})
    first, both = audited(one), audited(one, two)
    measured = both["measured"]
    assert list(measured) == ["saliency:reduction=abs_max", "saliency:reduction=sum"]
    assert measured["saliency:reduction=abs_max"] == next(iter(first["measured"].values()))
    assert measured["saliency:reduction=sum"]["options"]["reduction"] == "sum"
    assert len(list((tmp_path / "parts").iterdir())) == 2
    with pytest.raises(MethodError, match="no option 'reduce'"):
        audited(("saliency", {"reduce": "max"}))


def test_opticam_with_options_is_not_tuned(plain):
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    methods = [("opticam", {"iterations": 2})]
    record = audit_dead_zone(plain, x, wall="rows:10-15", methods=methods).record
    assert record["opticam"] is None
    assert record["measured"]["opticam:iterations=2"]["options"]["iterations"] == 2


def test_opticam_is_tuned_to_the_lowest_average_drop(walled):
    model, x, _ = walled
    found = tune_opticam(
        Trial(model, x, layer="last"), learning_rates=(0.01, 0.3), iterations=(3, 6)
    )
    assert len(found["tried"]) == 4
    assert found["average_drop"] == min(row["average_drop"] for row in found["tried"])
    assert set(found["options"]) == {"learning_rate", "iterations"}


def test_the_audit_on_a_model_of_ones_own(plain, tmp_path):
    x = torch.rand(6, 3, 16, 16, dtype=torch.float64)
    options = {
        "wall": "rows:10-15",
        "methods": ["gradcam", "saliency", "rollout"],
        "out": tmp_path,
    }
    told = []
    report = audit_dead_zone(plain, x, **options, say=lambda *what: told.append(what))
    assert report["saliency"].outcome == "pass"
    assert report["saliency"].value == 0
    assert report["gradcam"].outcome == "fail"
    assert report["rollout"].outcome == "not tested"
    assert report.record["dead_pixels"]["rows"] == [10, 15]
    assert told[0][0] == "proving what is dead"
    few = audit_dead_zone(plain, x[:3], **{**options, "out": None})
    assert {few[m].outcome for m in ("saliency", "gradcam")} == {"unclear"}
    assert "Not enough to tell from 3 images" in few["gradcam"].text
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


class Strided(nn.Module):
    """Its stride leaves out the last row and column of odd images: they are dead without any wall."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)
        self.mix = nn.Conv2d(4, 4, 5, padding=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.mix(self.conv(x).relu()).relu().mean((2, 3)))


def test_pixels_that_are_dead_without_the_wall_say_nothing_about_it():
    torch.manual_seed(0)
    model, x = Strided().double().eval(), torch.rand(3, 3, 9, 9, dtype=torch.float64)
    assert int(dead_zone(model, x, draws=1).mask.sum()) == 17
    report = audit_dead_zone(model, x, wall="rows:3-3@mix", methods=["hirescam", "saliency"])
    assert report["hirescam"].value == 0
    assert "cells of mix" in report["hirescam"].measure
    assert report["saliency"].outcome == "not tested"
    assert "dead without the wall too" in report.tested
    # Taken as it is, or behind an input wall, the same pixels count.
    for wall in (None, "rows:6-8"):
        report = audit_dead_zone(model, x, wall=wall, methods=["saliency"])
        assert "pixels" in report["saliency"].measure
        assert report["saliency"].value == 0


def test_a_model_without_maps_is_judged_by_what_explains_pixels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 9), nn.Tanh(), nn.Linear(9, 4)).eval()
    x = torch.rand(6, 3, 8, 8)
    report = audit_dead_zone(model, x, wall="rows:5-7", methods=["saliency", "opticam", "eigencam"])
    assert report.record["layer"] == "input"
    assert report["saliency"].outcome == "pass"
    assert report.record["dead_pixels"]["rows"] == [5, 7]


def test_a_method_that_cannot_be_tuned_does_not_end_the_audit(plain, monkeypatch):
    from camlucida.audits.deadzone import audit

    def refuse(*_, **__):
        raise MethodError("no")

    monkeypatch.setattr(audit, "tune_opticam", refuse)
    x = torch.rand(6, 3, 12, 12, dtype=torch.float64)
    report = audit_dead_zone(plain, x, wall="rows:9-11", methods=["opticam", "saliency"])
    assert report.record["opticam"] is None
    assert report["saliency"].outcome == "pass"


def test_finished_parts_of_other_images_are_not_taken(plain, tmp_path):
    """Mirrored images have the same sum, but other maps."""
    torch.manual_seed(0)
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    options = {"wall": "box:10-15,0-6", "methods": ["gradcam"]}
    audit_dead_zone(plain, x, **options, out=tmp_path)
    mirrored = audit_dead_zone(plain, x.flip(-1), **options, out=tmp_path)
    fresh = audit_dead_zone(plain, x.flip(-1), **options)
    assert mirrored.record["measured"] == fresh.record["measured"]


def test_maps_of_nan_do_not_pass(zone):
    zones = Zones(zone, None, TARGET_LAYER)
    common = {"always_lost": 0, "always_blank": 0, "blank": 0, "layers": [], "options": {}}
    none = verdict("x", {"pixels": [None, float("nan")], **common}, zones)
    some = verdict("x", {"pixels": [0.0] * 6 + [None], **common}, zones)
    assert none.outcome == "not tested"
    assert some.outcome == "warn"
    assert "1 of 7 maps hold NaN" in some.text


def test_blank_maps_are_not_praised(zone):
    zones = Zones(zone, None, TARGET_LAYER)
    common = {"always_lost": 1, "always_blank": 1, "layers": [], "options": {}}
    said = verdict("x", {"pixels": [0.0, 0.0], "blank": 2, **common}, zones)
    assert said.outcome == "not tested"
    assert "2 maps are blank" in said.text


def test_a_method_that_breaks_does_not_end_the_audit(plain, monkeypatch):
    from camlucida.methods import GradCAM

    def broken(*_):
        raise RuntimeError("sizes differ\nand more")

    monkeypatch.setattr(GradCAM, "combine", broken)
    x = torch.rand(6, 3, 12, 12, dtype=torch.float64)
    report = audit_dead_zone(plain, x, wall="rows:9-11", methods=["gradcam", "saliency"])
    assert "RuntimeError: sizes differ" in report["gradcam"].text
    assert report["gradcam"].outcome == "not tested"
    assert report["saliency"].outcome == "pass"


def test_one_method_is_not_many():
    from camlucida.audits.verdicts import Verdict

    said = summary([Verdict("a", "fail", ""), Verdict("b", "pass", "")], "cells of x")
    assert said == "1 method lights up cells of x: a. 1 does not: b."


def test_stacked_images_are_not_resized_again(plain, tmp_path):
    """Their seam stays where the wall is, whatever the model does to photos (spec 9.2)."""
    from camlucida.data.preprocess import Preprocess
    from camlucida.data.stack_mix import StackFolder, StackMix
    from camlucida.models import LoadedModel

    for number, grey in enumerate((0, 255)):
        path = tmp_path / "0" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 50), (grey,) * 3).save(path)
    model = LoadedModel(plain, "plain", Preprocess(size=(32, 32), resize=40), None)
    data = StackMix(tmp_path, None, dead=Region.rows(20, 31), size=32)
    trial = Request(model, data, count=5).open()
    inputs, preprocess = trial.inputs, trial.preprocess
    pixels = preprocess.denormalise(inputs)[0, 0].round()
    assert (pixels[:20] == pixels[0, 0]).all()
    assert (pixels[20:] == 1 - pixels[0, 0]).all()
    drawn = StackFolder(tmp_path, size=32, resize=32)
    assert torch.equal(
        Request(model, drawn, count=1).open().inputs[0], preprocess(drawn[0].picture())
    )
    with pytest.raises(CamlucidaError, match="size=32"):
        Request(model, StackMix(tmp_path, None, dead=Region.rows(9, 15), size=16), count=5).open()


def test_a_lost_training_record_is_measured_again(tmp_path):
    from camlucida.audits.deadzone.nets import WalledNets, WallPlan
    from camlucida.common.store import Store

    plan = WallPlan(train=64, validation=10, test=10, epochs=1)
    nets = WalledNets(plan, Store(tmp_path, {"a": 1}))
    first = nets.get("masked").record
    (kept,) = (tmp_path / "parts").glob("masked-training*.json")
    kept.unlink()
    again = WalledNets(plan, Store(tmp_path, {"a": 1})).get("masked").record
    assert again["accuracy"] == first["accuracy"]
    assert again["parameters"] == first["parameters"]
    assert not list((tmp_path / "parts").glob("*.ckpt"))
