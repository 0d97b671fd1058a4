"""Explainers of other libraries: computed by these, and equal to what they give when they are called directly."""

from __future__ import annotations

import gc
import json

import pytest
import torch
from torch import nn

import camlucida
from camlucida import MethodError
from camlucida.cli import main
from camlucida.common import optional
from camlucida.methods import build, list_methods
from camlucida.methods.registry import LIBRARIES
from reference.state import differences, snapshot

ROWS = {row.name: row for row in list_methods(libraries=True)}
FAST = {"n_samples": 8, "alpha": 1e-6, "stride": 8, "cells": 3, "n_steps": 4}


class Net(nn.Module):
    """Modules for every operation, as hooks of other libraries need; some of them write in place."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.pool(self.features(x)).flatten(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = Net()
    made(torch.randn(8, 3, 16, 16))  # statistics that are not trivial
    return made.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def maps(model, images, name, **options):
    return camlucida.explain(model, images, method=name, target=1, steps="signed", **options)


@pytest.mark.parametrize("name", ROWS)
def test_each_explains_and_leaves_the_model_as_it_was(model, images, name):
    row = ROWS[name]
    pytest.importorskip(LIBRARIES[row.library].package)
    before = snapshot(model)
    options = {key: value for key, value in FAST.items() if key in row.options}
    found = maps(model, images, name, **options)
    assert not differences(before, snapshot(model))
    assert found.raw.shape == (2, 16, 16)
    assert found.raw.isfinite().all()
    assert torch.allclose(maps(model, images[1:], name, **options).raw, found.raw[1:])
    if row.discriminative and "random" not in name:
        other = camlucida.explain(model, images, method=name, target=2, steps="signed", **options)
        assert not torch.allclose(other.raw, found.raw)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_are_complete(row):
    assert row.summary.endswith(".")
    assert row.paper
    assert row.equation
    assert row.cost_in_words
    assert set(row.quick) <= set(row.options)
    assert row.explains == (
        "input" if row.library != "pytorch-grad-cam" or "full" in row.name else "layer"
    )


def test_captum_computes_what_it_computes(model, images):
    attr = pytest.importorskip("captum.attr")
    direct = attr.Occlusion(model).attribute(
        images, sliding_window_shapes=(3, 5, 5), strides=(3, 4, 4), target=1
    )
    ours = maps(model, images, "captum:occlusion:window=5,stride=4")
    assert torch.allclose(ours.raw, direct.sum(1), atol=1e-5)
    direct = attr.IntegratedGradients(model).attribute(images, target=1, n_steps=20)
    theirs = maps(model, images, "captum:integrated-gradients:n_steps=20,reduction=sum")
    own = maps(model, images, "integrated-gradients:n_steps=20,reduction=sum")
    assert torch.allclose(theirs.raw, direct.sum(1), atol=1e-5)
    assert torch.allclose(theirs.raw, own.raw, atol=1e-5)


def test_zennit_computes_what_it_computes(model, images):
    pytest.importorskip("zennit")
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlusFlat

    composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
    wanted = torch.eye(4)[[1, 1]]
    with Gradient(model, composite) as attributor:
        _, direct = attributor(images.clone(), lambda out: out * wanted)
    ours = maps(model, images, "zennit:epsilon_plus_flat")
    assert torch.allclose(ours.raw, direct.sum(1), atol=1e-5)


def test_batch_norms_are_merged_only_where_the_model_says_the_same(images):
    pytest.importorskip("zennit")

    class Odd(Net):
        def forward(self, x):  # the norm stands behind the convolution, and is used before it
            f = self.features
            seen = f[2](f[0](x)) + f[1](x[:, :1].expand(-1, 4, -1, -1))
            return self.fc(self.pool(f[5](f[4](f[3](seen)))).flatten(1))

    found = maps(Odd().eval(), images, "zennit:epsilon_plus")
    assert found.raw.isfinite().all()


def test_pytorch_grad_cam_computes_what_ours_does(model, images):
    pytest.importorskip("pytorch_grad_cam")
    for name in ("gradcam", "layercam", "hirescam"):
        ours = camlucida.explain(
            model, images, method=name, target=1, layers="features.5", steps="pytorch-grad-cam"
        )
        theirs = maps(model, images, f"pytorch-grad-cam:{name}", layers="features.5")
        assert torch.allclose(theirs.raw, ours.maps, atol=1e-5), name


def test_pytorch_grad_cam_draws_its_bars_for_others_only(model, images, capsys):
    module = pytest.importorskip("pytorch_grad_cam.score_cam")
    maps(model, images, "pytorch-grad-cam:scorecam")
    assert not capsys.readouterr().err
    assert list(module.tqdm.tqdm([1, 2])) == [1, 2]
    assert "2/2" in capsys.readouterr().err


def test_tokens_are_read_by_the_grid_that_is_found():
    pytest.importorskip("pytorch_grad_cam")
    timm = pytest.importorskip("timm")
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    x = torch.randn(1, 3, 64, 64)
    theirs = camlucida.explain(net, x, method="pytorch-grad-cam:gradcam", target=1, steps="signed")
    ours = camlucida.explain(net, x, method="gradcam", target=1, steps="pytorch-grad-cam")
    assert torch.allclose(theirs.raw, ours.maps, atol=1e-4)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_library_that_fails_leaves_nothing_that_fails_later():
    timm = pytest.importorskip("timm")
    pytest.importorskip("pytorch_grad_cam")
    tokens = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=3
    ).eval()
    with pytest.raises(MethodError, match="shapleycam failed"):
        maps(tokens, torch.randn(1, 3, 32, 32), "pytorch-grad-cam:shapleycam")
    gc.collect()


def test_a_method_without_relus_to_change_says_so(images):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    for name in ("captum:guided-backprop", "zennit:guided_backprop"):
        pytest.importorskip(name.partition(":")[0])
        found = camlucida.explain(net, images, method=name, target=1)
        assert "plain gradient" in found.diagnostics[0].messages[0]


def test_what_a_library_refuses_is_told_in_a_line(images):
    pytest.importorskip("captum")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(MethodError, match="captum:lrp failed with TypeError"):
        camlucida.explain(net, images, method="captum:lrp", target=1)


def test_a_library_that_is_missing_is_named(monkeypatch):
    usual = optional.importlib.import_module

    def without(name, package=None):
        if name == "zennit":
            raise ModuleNotFoundError("no", name="zennit")
        return usual(name, package)

    monkeypatch.setattr(optional.importlib, "import_module", without)
    with pytest.raises(MethodError, match=r"zennit is not installed.*camlucida\[peers\]"):
        build("zennit:epsilon_plus")


def test_they_are_listed_without_being_imported(capsys):
    assert main(["methods", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(ROWS) <= set(listed)
    assert listed["captum:occlusion"]["options"]["window"] == 15
    assert listed["captum:occlusion"]["library"] == "captum"
    assert not listed["gradcam"]["library"]


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(MethodError, match="captum:occlusion"):
        build("captum:oclusion")
    with pytest.raises(MethodError, match="did you mean 'window'"):
        build("captum:occlusion:windw=3")
