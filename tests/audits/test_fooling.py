"""The fooling audit: attacks, what they do, what is kept, and what is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from camlucida.audits.candidates import Candidate, choose, usual, with_margins
from camlucida.audits.fooling.audit import audit_sham
from camlucida.audits.fooling.measure import (
    CORE,
    compare_with,
    measure_variant,
    moved,
    ratio,
)
from camlucida.audits.fooling.nets import PAIRS, DigitPlan, stand_in, tail
from camlucida.audits.fooling.tables import condition_row, tail_table
from camlucida.audits.fooling.tune import Attack, attack_key, fool, last_linear
from camlucida.audits.fooling.verdicts import said_of_gap, verdict
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.store import Store
from camlucida.training.cam_loss import CAMOptions, TrainableCAM
from camlucida.training.classifier import accuracy
from reference import sham as slow

pytest.importorskip("lightning_fabric")


class Gap(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 24, 3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(24, 4)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


STRONG = Attack(epochs=12, learning_rate=0.1, batch=16, weight=0.1, cam=CAMOptions(mode="norms"))


@pytest.fixture(scope="module")
def case():
    """A network that tells four colours of a square apart, and its images."""
    torch.manual_seed(0)
    images = 0.2 * torch.randn(96, 3, 14, 14)
    labels = torch.arange(96) % 4
    colours = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [-1.0, -1.0, 2.0]])
    for i, c in enumerate(labels):
        top, left = int(torch.randint(2, 8, ())), int(torch.randint(2, 8, ()))
        images[i, :, top : top + 4, left : left + 4] += colours[c][:, None, None]
    model = Gap()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model.eval(), images, labels


@pytest.fixture(scope="module")
def fooled(case):
    model, images, labels = case
    attack = STRONG
    return fool(model, images, labels, attack, layer="features")


def test_sham_moves_the_maps_and_not_the_decisions(case, fooled):
    model, images, labels = case
    first, last = fooled.record["curves"][0], fooled.record["curves"][-1]
    assert last["cam_mse"] < 0.8 * first["cam_mse"]
    assert accuracy(fooled.model, images, labels) >= accuracy(model, images, labels) - 0.03
    subject = Trial(model, images[:24], labels[:24], "features")
    found = {
        v.label: measure_variant(subject, fooled.model, v, fooled.mask)
        for v in (Candidate("cam"), Candidate("gradcam"), Candidate("gradcam", "mean"))
    }
    mean = {k: np.mean(v["susceptibility"]) for k, v in found.items()}
    assert mean["cam"] > 0.1
    assert mean["MeanDiffGradCAM"] < mean["cam"]
    assert np.mean(found["cam"]["to_mask"][1]) < np.mean(found["cam"]["to_mask"][0])


def test_the_model_is_left_as_it_is(case):
    model, images, labels = case
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.features[0].weight.requires_grad_(False)
    found = fool(model, images[:32], labels[:32], Attack(batch=16), layer="features")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert not found.model.training
    assert not found.model.features[0].weight.requires_grad
    assert found.model.classifier.weight.requires_grad
    assert all(p.grad is None for p in found.model.parameters())
    model.features[0].weight.requires_grad_(True)


def test_head_only_trains_the_head(case):
    model, images, labels = case
    found = fool(
        model, images, labels, Attack(trainable="head", learning_rate=0.5), layer="features"
    )
    changed = {
        k for k, v in found.model.state_dict().items() if not torch.equal(v, model.state_dict()[k])
    }
    assert changed == {"classifier.weight", "classifier.bias"}
    assert last_linear(model, images[:2]) is model.classifier
    with pytest.raises(CamlucidaError, match="linear layer"):
        last_linear(nn.Sequential(model, nn.Softmax(1)), images[:2])


@pytest.mark.parametrize(
    "method", ["gradcam", "gradcam:max", "diffgradcam", "hirescam", "layercam"]
)
def test_adaptive_attacks_move_the_map_that_they_are_aimed_at(case, method):
    model, images, labels = case
    attack = STRONG.against(method)
    found = fool(model, images, labels, attack, layer="features")
    first, last = found.record["curves"][0], found.record["curves"][-1]
    assert last["cam_mse"] < 0.96 * first["cam_mse"], method
    assert last["accuracy"] > 0.9


def test_an_adaptive_attack_brings_the_shown_map_to_the_mask(case):
    model, images, labels = case
    attack = replace(STRONG, learning_rate=0.02).adaptive("gradcam:mean")
    assert (attack.optimizer, attack.clip, attack.weight) == ("adam", 1.0, 0.2)
    assert attack.learning_rate == pytest.approx(0.003)
    assert attack.adaptive("gradcam:max").learning_rate == attack.learning_rate
    assert (attack.cam.relu, attack.cam.scaling) == (False, "max")
    assert (attack.shown.relu, attack.shown.scaling) == (True, "minmax")
    found = fool(model, images, labels, attack, layer="features")
    options = replace(attack.shown, cam_layer="features", mode="eval")
    far = []
    for net in (model, found.model):
        maps = TrainableCAM(net, images[:1], options)(net, images, labels)[1].detach()
        far.append(float((maps - found.mask).square().mean()))
    assert far[1] < 0.75 * far[0]
    assert found.record["curves"][-1]["accuracy"] > 0.9
    assert STRONG.adaptive("sham") == STRONG.against("sham")


def test_control_and_location(case):
    model, images, labels = case
    control = fool(model, images, labels, Attack(kind="none", batch=16), layer="features")
    assert "cam_mse" not in control.record["curves"][0]
    heo = fool(
        model,
        images,
        labels,
        Attack(kind="location", batch=16, epochs=4, learning_rate=0.02),
        layer="features",
    )
    assert np.array_equal(heo.mask.numpy(), slow.border(7, 7))
    assert heo.record["curves"][-1]["cam_mse"] < heo.record["curves"][0]["cam_mse"]


def test_attacks_are_seeded_and_named_apart(case):
    model, images, labels = case
    attack = Attack(batch=16, learning_rate=0.05)
    one, two = (fool(model, images, labels, attack, layer="features").model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    names = {
        attack_key(a, 10)
        for a in (
            attack,
            replace(attack, epochs=2),
            attack.against("gradcam"),
            attack.against("gradcam:lse"),
        )
    }
    assert len(names) == 4
    assert attack.against("gradcam:lse").against("sham") == replace(
        attack, cam=replace(attack.cam, mode="norms")
    )


def test_what_is_measured_is_the_loops():
    generator = torch.Generator().manual_seed(3)
    clean, after = torch.randn(2, 5, 7, 7, generator=generator, dtype=torch.float64)
    mask = torch.from_numpy(slow.bits(slow.ROUNDED))
    found = moved(clean, after, mask)
    for i in range(5):
        a, b = slow.minmax(clean[i].numpy()), slow.minmax(after[i].numpy())
        assert found["susceptibility"][i] == pytest.approx(((a - b) ** 2).mean())
        other = slow.minmax(clean[i - 1].numpy())
        assert found["another"][i] == pytest.approx(((a - other) ** 2).mean())
        assert found["entropy"][0][i] == pytest.approx(slow.entropy(clean[i].numpy()))
        shown = slow.minmax(np.maximum(after[i].numpy(), 0))
        assert found["to_mask"][1][i] == pytest.approx(((shown - mask.numpy()) ** 2).mean())
    assert ratio(found) == pytest.approx(
        np.mean(found["susceptibility"]) / np.mean(found["another"])
    )
    assert found["blank"] == [0, 0]
    same = moved(torch.ones(3, 7, 7), torch.zeros(3, 7, 7), mask)
    assert math.isnan(ratio(same))
    assert same["blank"] == [3, 3]


def test_tests_are_those_of_scipy():
    generator = np.random.default_rng(0)
    values = {name: generator.random(30).tolist() for name in ("a", "b", "c")}
    values["d"] = (np.array(values["a"][:20]) + 0.2 + 0.01 * np.arange(20)).tolist()
    found = compare_with(values, "a")
    assert set(found) == {"b", "c", "d"}
    expected = stats.ranksums(values["a"], values["b"]).pvalue
    assert found["b"]["rank_sum"] == pytest.approx(expected, rel=1e-6)
    assert found["c"]["signed_rank"] == pytest.approx(
        stats.wilcoxon(values["a"], values["c"]).pvalue
    )
    assert found["d"]["signed_rank"] == pytest.approx(2 * 0.5**20), "20 pairs, all larger"
    assert found["d"]["holm"] == pytest.approx(3 * found["d"]["signed_rank"])


def every(names=None):
    quick = names is not None
    return with_margins(choose(names or usual(quick=False), quick=quick), quick=quick)


def test_variants_are_every_method_with_every_margin():
    everything = {v.label for v in every()}
    assert {"gradcam", "MeanDiffGradCAM", "MaxDiffGradCAM", "LSE-DiffGradCAM"} <= everything
    assert {"rise", "rise, lse margin", "layercam, max margin", "eigencam", "cam"} <= everything
    assert "eigencam, mean margin" not in everything, "its map knows no class"
    assert len(everything) == len(every())
    assert {v.label for v in CORE} <= everything
    assert [v.label for v in every(["diffgradcam"])] == [
        "MeanDiffGradCAM", "MaxDiffGradCAM", "LSE-DiffGradCAM",
    ]  # fmt: skip
    for both in (["gradcam", "diffgradcam"], ["diffgradcam", "gradcam"]):
        found = [v.label for v in every(both)]
        assert sorted(found) == ["LSE-DiffGradCAM", "MaxDiffGradCAM", "MeanDiffGradCAM", "gradcam"]


def numbers(susceptibility, another, blank=(0, 0)):
    return {
        "susceptibility": susceptibility, "another": another, "blank": list(blank), "entropy": [[1.0], [1.0]],
        "to_mask": [[0.5], [0.4]],
    }  # fmt: skip


def test_verdicts():
    one = Candidate("gradcam")
    far = verdict(
        one, numbers([0.1] * 6, [0.1] * 6, (0, 1)), numbers([0.01] * 2, [0.1] * 2), worked=True
    )
    assert far.outcome == "fail"
    assert "100 %" in far.text
    assert "the control: 10 %" in far.text
    assert "1 of 6 maps went blank" in far.text
    mere = verdict(one, numbers([0.09], [0.1]), numbers([0.08], [0.1]), worked=True)
    assert mere.outcome == "warn"
    assert "mere training" in mere.text
    assert verdict(one, numbers([0.03], [0.1]), None, worked=True).outcome == "warn"
    assert verdict(one, numbers([0.01] * 6, [0.1]), None, worked=True).outcome == "pass"
    assert verdict(one, numbers([0.01], [0.1]), None, worked=True).outcome == "unclear"
    weak = verdict(one, numbers([0.01], [0.1]), None, worked=False)
    assert weak.outcome == "warn"
    assert "says little" in weak.text
    assert verdict(one, numbers([0.0], [0.0]), None, worked=True).outcome == "not tested"
    blank = verdict(one, numbers([0.0], [0.0], (1, 1)), None, worked=True)
    assert (blank.outcome, blank.text) == (
        "not tested",
        "Its maps are blank, so nothing can be told.",
    )
    lit = verdict(one, numbers([0.5], [0.0], (1, 0)), None, worked=True)
    assert lit.outcome == "warn"
    assert "are blank; the attack moves them by 0.500" in lit.text
    assert verdict(one, {"error": "no"}, None, worked=True).outcome == "not tested"


def test_the_gap_is_judged():
    assert said_of_gap(0.24, 0.05, 1e-4, 0.8) == "yes"
    assert said_of_gap(0.24, 0.2, 1e-4, 0.8) == "in part"
    assert said_of_gap(0.15, 0.16, 0.4, 0.8) == "no"
    assert said_of_gap(0.24, 0.05, 1e-4, 0.2) == "attack too weak to tell"
    row = condition_row(
        "all, 1",
        {
            "gradcam": numbers([0.2, 0.3] * 5, [0.1] * 10),
            "MeanDiffGradCAM": numbers([0.01, 0.03] * 5, [0.1] * 10),
        },
        (0.9, 0.8),
        0.7,
    )
    assert row[-1] == "yes"
    assert row[-3] == "12.50"


def test_long_tail():
    labels = torch.arange(1000) % 10
    kept = tail(labels, 10, 100.0)
    counts = torch.bincount(labels[kept]).tolist()
    assert counts[0] == 100
    assert counts[9] == 1
    assert counts == sorted(counts, reverse=True)
    assert counts[4] == round(100 * 100 ** (-4 / 9))
    assert torch.equal(tail(labels, 10, 1.0), torch.arange(1000))
    table = tail_table({"gradcam": numbers([0.1, 0.2, 0.3], [0.1] * 3)}, [0, 5, 9], 10)
    assert [[c.value for c in cells[::2]] for _, cells in table.rows] == [[0.1, 0.2, 0.3]]


@pytest.mark.slow
def test_audit_of_ones_own_model(case, tmp_path):
    model, images, labels = case
    options = {
        "layers": "features",
        "attack": replace(STRONG, epochs=6),
        "attackers": ("none", "sham", "gradcam:mean"),
        "methods": ["gradcam", "eigencam", "cam"],
        "out": tmp_path,
        "held_out": 12,
    }
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = audit_sham(model, (images, labels), **options)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert {v.subject for v in report.verdicts} >= {
        "gradcam",
        "MeanDiffGradCAM",
        "eigencam",
        "cam",
    }
    assert report["cam"].outcome in {"fail", "warn"}
    assert [t.caption.split(":")[0] for t in report.tables] == [
        "The models", "Susceptibility", "Attacker against evaluated method",
    ]  # fmt: skip
    assert len(report.tables[-1].rows) == 3
    assert [p.name for p in report.pictures] == ["maps", "susceptibility", "attackers"]
    json.dumps(report.to_dict())
    said = []
    again = audit_sham(model, (images, labels), **options, say=lambda what, *_: said.append(what))
    assert not any("fine-tuning" in what for what in said), "finished attacks are kept"
    assert [v.text for v in again.verdicts] == [v.text for v in report.verdicts]
    with pytest.raises(CamlucidaError, match="six labelled"):
        audit_sham(model, (images[:4], labels[:4]), layers="features")


@pytest.mark.slow
def test_a_head_that_is_not_linear_is_attacked_through_gradcam(case):
    _, images, labels = case
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(294, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    ).eval()
    report = audit_sham(
        model, (images[:24], labels[:24]), layers="1", attack=Attack(batch=8), attackers=("sham",),
        methods=["gradcam"],
    )  # fmt: skip
    assert "Grad-CAM's map was attacked" in report.tested
    assert report.record["main"]["cam"]["cam"] == "gradcam"


@pytest.mark.slow
def test_stand_ins(tmp_path):
    plan = DigitPlan(train=200, test=40, epochs=1, long_tail=4)
    options = {
        "plan": plan, "count": 8, "methods": ["gradcam", "eigencam"], "attackers": ("none", "sham"),
        "attack": Attack(epochs=2, learning_rate=0.02), "out": tmp_path,
    }  # fmt: skip
    report = audit_sham(**options)
    titles = [t.caption for t in report.tables]
    assert "Under which conditions the published gap appears" in titles
    assert "Susceptibility by how frequent a class was in training" in titles
    assert list(report.record["conditions"]) == [
        "head, 1, 0.3", "head, 2, 0.3", "all, 1, 0.02", "all, 2, 0.02",
    ]  # fmt: skip
    assert "8 other images are explained" in report.tested
    more = audit_sham(
        **{**options, "count": 10_000, "attack": replace(options["attack"], trainable="head")}
    )
    assert "40 other images are explained" in more.tested, "as many as there are"
    rates = {k: v["attack"]["learning_rate"] for k, v in more.record["conditions"].items()}
    assert [rate for k, rate in rates.items() if k.startswith("head")] == [0.02, 0.02]
    again = audit_sham(**options)
    assert again.record["conditions"] == report.record["conditions"]


@pytest.mark.slow
def test_the_net_of_45_classes():
    net = stand_in(DigitPlan(train=90, test=45, epochs=1, classes=45), Store(None, {}))
    assert len(PAIRS) == len(net.class_names) == 45
    assert net.model(net.test[:2]).shape == (2, 45)
    assert net.test.shape[1:] == (3, 56, 56)
    with pytest.raises(CamlucidaError, match="10 or 45"):
        DigitPlan(classes=12)


def of_one_epoch(**changed):
    return replace(Attack(batch=16, learning_rate=0.05), **changed)


def test_parts_of_another_layer_or_model_are_not_taken(case, tmp_path):
    model, images, labels = case
    options = {
        "attack": of_one_epoch(), "attackers": ("sham",), "methods": ["gradcam"], "out": tmp_path, "held_out": 8,
        "name": "mine",
    }  # fmt: skip
    one = audit_sham(model, (images[:40], labels[:40]), layers="features", **options)
    gradcam = of_one_epoch().against("gradcam")
    options["attack"] = gradcam
    last = audit_sham(model, (images[:40], labels[:40]), layers="features", **options)
    first = audit_sham(model, (images[:40], labels[:40]), layers="features.2", **options)
    fresh = audit_sham(
        model, (images[:40], labels[:40]), layers="features.2", **{**options, "out": tmp_path / "new"}
    )  # fmt: skip
    assert first.record["measured"] == fresh.record["measured"]
    assert first.record["measured"] != last.record["measured"]
    assert last.record["main"] == gradcam.describe() != one.record["main"]


def test_a_stopped_attack_does_not_go_on_with_another_model(case, tmp_path):
    """Same architecture, same number of images, same options: but other weights."""
    model, images, labels = case
    other = Gap().eval()
    attack = of_one_epoch(epochs=3)
    options = {
        "layers": "features",
        "attack": attack,
        "attackers": ("sham",),
        "methods": ["gradcam"],
        "held_out": 8,
    }

    def stop(what, done, _):
        if "fine-tuning" in what and done == 4:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_sham(model, (images[:40], labels[:40]), out=tmp_path, say=stop, **options)
    assert list((tmp_path / "parts").glob("*.ckpt")), "the first epoch is kept"
    found = audit_sham(other, (images[:40], labels[:40]), out=tmp_path, **options)
    fresh = audit_sham(other, (images[:40], labels[:40]), **options)
    assert found.record["measured"] == fresh.record["measured"]
    again = audit_sham(model, (images[:40], labels[:40]), out=tmp_path, **options)
    whole = audit_sham(model, (images[:40], labels[:40]), **options)
    assert again.record["measured"] == whole.record["measured"], (
        "and its own goes on as if never stopped"
    )
    assert not list((tmp_path / "parts").glob("*.ckpt"))


def test_an_attack_that_breaks_the_model_proves_nothing(case):
    one = Candidate("gradcam")
    found = numbers([0.1, 0.1], [0.1, 0.1])
    broken = verdict(one, found, None, worked=True, broke=True)
    assert broken.outcome == "warn"
    assert "broke the model" in broken.text
    assert said_of_gap(0.24, 0.05, 1e-4, 0.8, kept=False) == "the attack broke the model"
    row = condition_row("all, 1", {"gradcam": found, "MeanDiffGradCAM": found}, (0.9, 0.7), 0.7)
    assert row[-1] == "the attack broke the model"
    model, images, labels = case
    report = audit_sham(
        model, (images, labels), layers="features", attack=of_one_epoch(learning_rate=3.0, weight=0.0),
        methods=["gradcam"], attackers=("sham",),
    )  # fmt: skip
    assert report.record["accuracy"]["sham"] < report.record["models"]["clean"]["accuracy"] - 0.1
    assert "broke the model: its accuracy fell from" in report.summary
    assert {v.outcome for v in report.verdicts} <= {"warn", "not tested"}


def test_what_is_unknown_is_told_before_anything_is_trained():
    def never(*_):
        raise AssertionError("it began")

    for options, says in (
        ({"methods": ["gradcamm"]}, "gradcam"),
        ({"attackers": ("none", "scorecam")}, "cannot take part"),
        ({"attackers": ("gradcam:median",)}, "aggregator"),
    ):
        with pytest.raises(CamlucidaError, match=says):
            audit_sham(say=never, **options)
    for options, says in (
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"epochs": 0}, "epochs must be"),
        ({"weight": 2.0}, "weight"),
        ({"layout": "circle"}, "layout must be"),
    ):
        with pytest.raises(CamlucidaError, match=says):
            Attack(**options)


def test_labels_that_are_no_classes_are_refused(case):
    model, images, _ = case
    for wrong in (4, -1):
        labels = torch.full((len(images),), wrong)
        with pytest.raises(CamlucidaError, match=f"classes 0 to 3, but a label is {wrong}"):
            audit_sham(model, (images, labels), layers="features")
        with pytest.raises(CamlucidaError, match="classes 0 to 3"):
            fool(model, images, labels, layer="features")


def test_a_mask_of_ones_own(case):
    model, images, labels = case
    mask = torch.zeros(7, 7)
    mask[0] = 1
    attack = of_one_epoch(layout=mask)
    assert torch.equal(fool(model, images, labels, attack, layer="features").mask, mask)
    other = mask.flip(0)
    assert attack_key(attack, 9) != attack_key(replace(attack, layout=other), 9)
    assert json.dumps(attack.describe())


def test_of_location_fooling_its_own_map_is_judged():
    shown = Attack(kind="location").shown
    assert (shown.cam, shown.relu, shown.scaling, shown.mode) == ("gradcam", True, "minmax", "eval")


def test_models_that_return_more_than_logits_and_odd_channels(case):
    class Pair(Gap):
        def __init__(self):
            super().__init__()
            self.features[0] = nn.Conv2d(5, 8, 3, 2, 1)

        def forward(self, x):
            return super().forward(x), x

    _, _, labels = case
    images = torch.randn(24, 5, 14, 14, generator=torch.Generator().manual_seed(0))
    report = audit_sham(
        Pair().eval(), (images, labels[:24]), layers="features", attack=of_one_epoch(), methods=["gradcam"],
        attackers=("sham",),
    )  # fmt: skip
    assert 0 <= report.record["accuracy"]["sham"] <= 1
    assert report.pictures[0].name == "maps"


def test_one_class_is_said(case):
    model, images, labels = case
    one = labels == 2
    report = audit_sham(
        model, (images[one], labels[one]), layers="features", attack=of_one_epoch(), methods=["gradcam"],
        attackers=("sham",),
    )  # fmt: skip
    assert "of one class only" in report.tested


def test_the_entropy_is_that_of_the_class_weight_map(case):
    """Also where another map is attacked."""
    model, images, labels = case
    options = {"layers": "features", "methods": ["gradcam"], "attackers": ("sham",), "held_out": 24}
    one = audit_sham(model, (images, labels), attack=of_one_epoch(), **options)
    two = audit_sham(
        model, (images, labels), attack=of_one_epoch().adaptive("gradcam:mean"), **options
    )
    assert (
        one.record["models"]["clean"]["cam_entropy"] == two.record["models"]["clean"]["cam_entropy"]
    )
    assert one.tables[0].rows[0][1][3] != two.tables[0].rows[0][1][3], (
        "the distance is the attacked map's"
    )


def test_refusals():
    for make, says in (
        (lambda: Attack(kind="other"), "kind must be"),
        (lambda: Attack(trainable="some"), "trainable must be"),
        (lambda: Attack(batch=1), "batch"),
        (lambda: Attack().against("scorecam"), "cannot take part"),
        (lambda: Attack().against("sham:mean"), "no margin"),
        (lambda: DigitPlan(long_tail=0.5), "long_tail"),
    ):
        with pytest.raises(CamlucidaError, match=says):
            make()
    assert Attack().against("hirescam:lse").cam == CAMOptions(
        "hirescam", "lse", relu=True, mode="norms"
    )
