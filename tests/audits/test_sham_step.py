"""SHAM fine-tuning as a step of its own, two given models side by side, and the tables made of them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional as F
from typer.testing import CliRunner

import camlucida
from camlucida.audits import Attack, audit_fooled, train_sham
from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.compare import Sides
from camlucida.audits.fooling.given import said_of_guideline
from camlucida.audits.fooling.train import CHECKPOINT, RECORD, WEIGHTS
from camlucida.audits.request import Request
from camlucida.cli import app
from camlucida.common.errors import CamlucidaError
from camlucida.data.draws import draw
from camlucida.data.open import open_data
from reference import sham as slow

NET = """
import torch
from torch import nn

from camlucida import LoadedModel, Preprocess


class Gap(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 24, 3, padding=1), nn.ReLU()
        )
        self.classifier = nn.Linear(24, 4)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def net():
    torch.manual_seed(0)
    names = ("red", "green", "blue", "grey")
    return LoadedModel(Gap().eval(), "gap", Preprocess(size=(14, 14), resize=(14, 14), crop=False), names)
"""
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 220, 30),
    "blue": (30, 30, 220),
    "grey": (40, 40, 40),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of four classes, five of each and one more, and the network in a file."""
    root = tmp_path_factory.mktemp("step")
    (root / "net.py").write_text(NET)
    draws = np.random.default_rng(0)
    for number, (name, colour) in enumerate(COLOURS.items()):
        (root / "data" / name).mkdir(parents=True)
        for i in range(5 + (number == 0)):
            pixels = draws.integers(90, 160, (14, 14, 3)).astype(np.uint8)
            top, left = draws.integers(1, 9, 2)
            pixels[top : top + 4, left : left + 4] = colour
            Image.fromarray(pixels).save(root / "data" / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def model(folder):
    return camlucida.load_model(f"{folder / 'net.py'}:net")


STEP = Attack(epochs=2, learning_rate=0.05, batch=6)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def weights(folder):
    return torch.load(folder / WEIGHTS, weights_only=True)


def test_a_draw_takes_as_many_of_each_class(folder, model):
    data = open_data(str(folder / "data"), class_names=model.class_names)
    five = draw(data, per_class=5)
    assert [sum(s.label == c for s in five) for c in range(4)] == [5] * 4
    assert [s.key for s in five] == [s.key for s in draw(data, per_class=5)]
    others = {tuple(s.key for s in draw(data, per_class=2, seed=seed)) for seed in range(5)}
    assert len(others) > 1
    six = draw(data, per_class=6)
    assert len(six) == 21
    assert "5 photos, and 6 were asked for" in six.skipped[0][1]
    assert draw(data) is data
    assert len(draw(data, count=3)) == 3


def test_the_step_keeps_the_head_and_goes_on(folder, model, tmp_path):
    before = copy.deepcopy(model.module.state_dict())
    data = str(folder / "data")
    whole = train_sham(model, data, tmp_path / "whole", attack=STEP, keep_every=2)
    assert all(torch.equal(v, model.module.state_dict()[k]) for k, v in before.items())
    assert whole["steps"] == 8  # 21 photos in four batches, twice
    assert len(whole["curves"]) == 4
    assert weights(tmp_path / "whole").keys() == before.keys()
    assert json.loads((tmp_path / "whole" / RECORD).read_text())["steps"] == 8
    train_sham(model, data, tmp_path / "parts", attack=replace(STEP, epochs=1), keep_every=2)
    again = train_sham(model, data, tmp_path / "parts", attack=STEP, keep_every=2)
    assert again["resumed_from"] == 2
    states = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    with pytest.raises(CamlucidaError, match=r"another plan.*attack"):
        train_sham(model, data, tmp_path / "parts", attack=replace(STEP, weight=0.3), keep_every=2)


def test_a_stopped_step_goes_on_in_the_middle_of_an_epoch(folder, model, tmp_path):
    data, one = str(folder / "data"), replace(STEP, epochs=1)
    whole = train_sham(model, data, tmp_path / "whole", attack=one, keep_every=1)
    asked = []

    def stop(_, done, __):
        asked.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sham(model, data, tmp_path / "cut", attack=one, keep_every=1, say=stop)
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    assert not (tmp_path / "cut" / WEIGHTS).exists()
    rest = train_sham(model, data, tmp_path / "cut", attack=one, keep_every=1)
    assert rest["resumed_from"] == 2
    assert rest["steps"] == whole["steps"] == 4
    cut, full = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(cut[k], full[k]) for k in full)


def test_the_step_takes_only_the_models_classes(model, tmp_path):
    for name in ("red", "violet"):
        (tmp_path / "odd" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "odd" / name / "0.png")
    said = []
    with pytest.raises(CamlucidaError, match="too few"):
        train_sham(model, str(tmp_path / "odd"), tmp_path / "run", note=said.append)
    assert "violet" in said[0]
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "loose" / "0.png")
    with pytest.raises(CamlucidaError, match="keeps the model's head"):
        train_sham(model, str(tmp_path / "loose"), tmp_path / "run")


def moves(clean, fooled, inputs, labels, aggregator=None):
    """Grad-CAM image by image, from section 3.1, and the mean squared distance of the scaled maps."""
    found = []
    for image, label in zip(inputs, labels.tolist(), strict=True):
        maps = []
        for net in (clean, fooled):
            activation = net.features(image[None]).detach().requires_grad_()
            logits = net.classifier(activation.mean((2, 3)))[0]
            others = torch.cat([logits[:label], logits[label + 1 :]])
            value = logits[label]
            if aggregator == "mean":
                value = value - others.sum() / len(others)
            elif aggregator == "max":
                value = value - max(others)
            elif aggregator == "lse":
                value = value - torch.log(torch.exp(others).sum())
            (gradient,) = torch.autograd.grad(value, activation)
            total = torch.zeros(activation.shape[2:])
            for k in range(activation.shape[1]):
                total += gradient[0, k].mean() * activation[0, k].detach()
            maps.append(slow.minmax(total.clamp_min(0).numpy().astype(float)))
        found.append(((maps[0] - maps[1]) ** 2).mean())
    return found


@pytest.fixture(scope="module")
def pair(model):
    """A model that was taught, and a copy with other weights."""
    torch.manual_seed(1)
    images = 0.2 * torch.randn(26, 3, 14, 14)
    labels = torch.arange(26) % 4
    clean = copy.deepcopy(model.module)
    optimiser = torch.optim.Adam(clean.parameters(), 0.02)
    for i, c in enumerate(labels):
        images[i, c % 3, 3:8, 3 + c : 8 + c] += 2
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(clean(images), labels).backward()
        optimiser.step()
    fooled = copy.deepcopy(clean)
    with torch.no_grad():
        fooled.classifier.weight.add_(0.3 * torch.randn_like(fooled.classifier.weight))
    return clean.eval(), fooled.eval(), images, labels


def test_two_models_are_compared_batch_by_batch_as_written_out(pair):
    clean, fooled, images, labels = pair
    found = {}
    for size in (26, 7):  # a last batch of five
        request = Request(clean, (images, labels), batch_size=size, layers="features")
        sides = Sides.open(request, {"fooled": fooled})
        methods = [Candidate("gradcam", a) for a in (None, "mean", "max", "lse")]
        found[size] = sides.compare(methods)
        for one in methods:
            ours = found[size].moves["fooled"][one.label]["susceptibility"]
            assert ours == pytest.approx(
                moves(clean, fooled, images, labels, one.aggregator), abs=1e-6
            )
    assert found[7].images == 26
    with torch.no_grad():
        right = (clean(images).argmax(1) == labels).tolist()
    assert found[7].right["clean"] == right
    assert found[7].similarity("MeanDiffGradCAM") == pytest.approx(
        found[26].similarity("MeanDiffGradCAM"), abs=1e-6
    )


@pytest.fixture(scope="module")
def report(pair):
    clean, fooled, images, labels = pair
    return audit_fooled(clean, fooled, (images, labels), layers="features", batch_size=10)


def test_the_guideline_is_measured(pair, report):
    clean, _, images, labels = pair
    compared = report.record["compared"]
    with torch.no_grad():
        logits = clean(images).double().numpy()
    wanted = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        rivals = np.delete(row, label)
        wanted.append(rivals.var())
    assert compared["spread"] == pytest.approx(np.sqrt(wanted), rel=1e-4)
    assert compared["soft"] == [v * 3 <= 1 for v in wanted]
    moved = compared["moves"]["fooled"]
    chosen = [
        moved[f"{'LSE-' if soft else 'Mean'}DiffGradCAM"]["susceptibility"][i]
        for i, soft in enumerate(compared["soft"])
    ]
    assert moved["gradcam, guideline margin"]["susceptibility"] == pytest.approx(chosen, abs=1e-6)
    assert "guideline takes LSE for" in report.summary


def test_tests_are_of_the_published_kind_and_of_pairs(report):
    (table,) = [t for t in report.tables if t.name == "susceptibility"]
    moved = report.record["compared"]["moves"]["fooled"]
    a, b = (moved[k]["susceptibility"] for k in ("LSE-DiffGradCAM", "gradcam"))
    row = dict(table.rows)["LSE-DiffGradCAM"]
    texts = [str(c.value) for c in row]
    ranks = stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=False).pvalue
    pairs = stats.wilcoxon(np.subtract(a, b)).pvalue
    for p in (ranks, pairs):
        assert (f"{p:.1e}" if p < 0.001 else f"{p:.3f}") in texts


@pytest.mark.slow
def test_the_report_of_given_models(folder, model, tmp_path):
    data = str(folder / "data")
    train_sham(model, data, tmp_path / "run", attack=replace(STEP, epochs=4))
    train_sham(model, data, tmp_path / "plain", attack=replace(STEP, kind="none"))
    fooled, control = (tmp_path / name / WEIGHTS for name in ("run", "plain"))
    options = {"control": str(control), "per_class": 5, "methods": ["gradcam", "eigencam"]}
    options |= {"batch_size": 6, "out": tmp_path / "out"}
    report = audit_fooled(model, str(fooled), data, **options)
    assert report.record["compared"]["images"] == 20
    assert [t.name for t in report.tables] == ["models", "susceptibility"]
    assert [row[0] for row in report.tables[0].rows] == ["clean", "fooled", "control"]
    assert {p.name for p in report.pictures} == {"maps", "susceptibility"}
    again = audit_fooled(model, str(fooled), data, **options)
    assert again.record["resumed_parts"] == 4
    assert again.record["compared"] == report.record["compared"]
    sides = Sides.open(Request(model, data, batch_size=6), {"fooled": str(fooled)})
    assert sides.compare([Candidate("gradcam")]).images == 21  # every photo


def test_unreadable_photos_are_left_out_and_wrong_models_refused(folder, model, tmp_path):
    import shutil

    shutil.copytree(folder / "data", tmp_path / "data")
    (tmp_path / "data" / "red" / "0.png").write_bytes(b"x")
    found = audit_fooled(model, model, str(tmp_path / "data"), methods=["gradcam"], batch_size=6)
    assert found.record["compared"]["images"] == 20
    assert found["gradcam"].details["susceptibility"] == 0
    images = torch.zeros(3, 3, 14, 14)
    with pytest.raises(CamlucidaError, match="3 images and 2 labels"):
        audit_fooled(model, model, (images, torch.zeros(2, dtype=torch.long)))
    with pytest.raises(CamlucidaError, match="classes 0 to 3, but a label is 7"):
        audit_fooled(model, model, (images, torch.full((3,), 7)))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CamlucidaError, match=r"other\.pt"):
        audit_fooled(model, tmp_path / "other.pt", (images, torch.zeros(3, dtype=torch.long)))


def test_from_the_command_line(folder, tmp_path):
    net, data, out = f"{folder / 'net.py'}:net", folder / "data", tmp_path / "run"
    made = run(
        "train", "sham", data, "--model", net, "--lr", 0.05, "--epochs", 2, "--batch-size", 6, "--workers", 0, "--out",
        out, "--json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["attack"]["learning_rate"] == 0.05
    pair = ("--clean", net, "--fooled", out / WEIGHTS, "--data", data, "--per-class", 5)
    audited = run(
        "audit", "sham", *pair, "--method", "gradcam", "--out", tmp_path / "audit", "--json"
    )
    assert audited.exit_code == 0, audited.output
    assert json.loads(audited.stdout)["record"]["compared"]["images"] == 20
    assert (tmp_path / "audit" / "sham-maps.png").is_file()


@pytest.mark.slow
def test_tables_of_given_models(folder, tmp_path):
    net, data, out = f"{folder / 'net.py'}:net", folder / "data", tmp_path / "run"
    run("train", "sham", data, "--model", net, "--lr", 0.05, "--workers", 0, "--out", out)
    for name, pair in (
        ("diff-table2", ("--model", net)),
        ("diff-table3", ("--clean", net, "--fooled", out / WEIGHTS)),
    ):
        made = run(
            "reproduce", name, *pair, "--data", data, "--per-class", 5, "--out", tmp_path, "--json"
        )
        assert made.exit_code == 0, made.output
        assert json.loads(made.stdout)["record"]["images"] == 20
    lone = run("reproduce", "diff-table3", "--clean", net, "--data", data, "--out", tmp_path)
    assert isinstance(lone.exception, CamlucidaError)
    assert "--fooled" in str(lone.exception)


PARALLEL = """
import sys

import camlucida
from camlucida.audits import Attack, train_sham

net, data, out = sys.argv[1:]
attack = Attack(epochs=2, learning_rate=0.05, batch=6)
record = train_sham(
    camlucida.load_model(net), data, out, attack=attack, accelerator="cpu", devices=2, strategy="ddp", keep_every=2
)
assert record["devices"] == 2 and record["steps"] == 6
"""


@pytest.mark.slow
def test_two_processes_share_a_batch(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PARALLEL)
    done = subprocess.run(  # noqa: S603
        [sys.executable, script, f"{folder / 'net.py'}:net", folder / "data", tmp_path / "run"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    state = weights(tmp_path / "run")
    assert all(v.isfinite().all() for v in state.values())


def test_what_is_said_of_the_guideline_without_a_fooled_model(pair):
    clean, _, images, labels = pair
    sides = Sides.open(Request(clean, (images, labels), layers="features"), {})
    assert "standard deviation" in said_of_guideline(sides.compare([Candidate("gradcam")]))


def test_a_copy_tuned_on_holes_is_what_f_fidelity_asks(folder, model, tmp_path):
    from camlucida.audits.fooling.tune import _with_holes

    images = torch.ones(64, 3, 20, 20)
    torch.manual_seed(0)
    holed, labels = _with_holes((images, torch.arange(64)))
    gone = (holed == 0).all(1).flatten(1).double().mean(1)
    assert torch.equal((holed == 0).any(1), (holed == 0).all(1))  # whole pixels
    assert 0 <= gone.min() < 0.03
    assert 0.07 < gone.max() < 0.16
    assert labels.equal(torch.arange(64))
    data = str(folder / "data")
    train_sham(model, data, tmp_path, attack=replace(STEP, kind="holes"))
    out = tmp_path / "run"
    metric = f"f_fidelity:samples=3,tuned={tmp_path / WEIGHTS}"
    camlucida.benchmark.evaluate(model, data, methods=["gradcam"], metrics=[metric], out=out)
    found = camlucida.benchmark.summarise(out).to_dict()
    assert "f_fidelity" in str(found)
