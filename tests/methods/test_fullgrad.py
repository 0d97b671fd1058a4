"""FullGrad: completeness in double precision, and its map (specification section 2.12)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import camlucida
from camlucida import Logit, LogitMargin, MethodError, Probability
from camlucida.methods import FullGrad, Task, full_gradient
from reference import input_methods as slow
from reference import networks


def chain(kind, seed=0):
    """A network as a list of layers, so that the reference can walk through it."""
    bodies = {
        "relu": [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()],
        "no-bias": [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU()],
        "bn": [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)],
        "bn-plain": [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()],
        "relu6": [nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 5, 3), nn.ReLU6()],
        "hardtanh": [nn.Conv2d(3, 4, 3), nn.Hardtanh(-0.5, 0.75), nn.Conv2d(4, 5, 3)],
        "pools": [
            nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 5, 1),
            nn.AvgPool2d(2),
        ],
        "leaky": [nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 5, 3), nn.PReLU(5)],
    }  # fmt: skip
    body = bodies[kind]
    with torch.no_grad():
        features = nn.Sequential(*body).eval()(torch.zeros(1, 3, 8, 6)).flatten(1).shape[1]
    layers = [*body, nn.Flatten(), nn.Linear(features, 6), nn.BatchNorm1d(6), nn.ReLU()]
    layers.append(nn.Linear(6, 4))
    model = nn.Sequential(*layers).double().eval()
    networks.randomise(model, seed)
    if kind == "relu6":
        with torch.no_grad():
            model[0].weight.mul_(6)
    return model


KINDS = ["relu", "no-bias", "bn", "bn-plain", "relu6", "hardtanh", "pools", "leaky"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(seed=st.integers(0, 500))
def test_completeness_and_terms(kind, seed):
    model = chain(kind, seed)
    x = networks.images(2, 3, (8, 6), seed)
    full = full_gradient(model, x, Logit(1))
    assert full.residual.abs().max() < 1e-10 * full.values.abs().max().clamp_min(1)
    for n in range(2):
        value, input_term, spatial, other = slow.fullgrad_terms(list(model), lambda z: z[1], x[n])
        assert value == pytest.approx(float(full.values[n]))
        np.testing.assert_allclose(full.input_term[n].numpy(), input_term, atol=1e-10)
        found = [t[n].numpy() for t in full.spatial_terms]
        assert len(found) == len(spatial)
        for ours, theirs in zip(found, spatial, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)
        assert float(full.other[n]) == pytest.approx(other, abs=1e-9)
        # The reference itself is complete too, or it proves nothing.
        total = input_term.sum() + sum(t.sum() for t in spatial) + other
        assert total == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("scale", ["channel", "sample"])
@pytest.mark.parametrize("kind", ["bn", "relu6", "pools"])
def test_map(kind, scale):
    model = chain(kind, 3)
    x = networks.images(2, 3, (8, 6), 4)
    raw = FullGrad(scale).run(Task.of(model, x, Logit(1)))
    for n in range(2):
        _, input_term, spatial, _ = slow.fullgrad_terms(list(model), lambda z: z[1], x[n])
        expected = slow.fullgrad(input_term, spatial, scale)
        np.testing.assert_allclose(raw.fused[n].numpy(), expected, atol=1e-9)
    assert not raw.notes


def test_scales_differ():
    model, x = chain("bn", 3), networks.images(1, 3, (8, 6), 4)
    maps = [FullGrad(s).run(Task.of(model, x, Logit(1))).fused for s in ("channel", "sample")]
    assert not torch.allclose(*maps)
    with pytest.raises(MethodError, match="channel"):
        FullGrad("layer")


class Reused(nn.Module):
    """One ReLU module everywhere, functional calls, a skip connection, in-place operations."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.weight = nn.Parameter(torch.zeros(5, 4))
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x):
        h = self.relu(self.norm(self.a(x)))
        h = self.relu(h + self.b(h))
        h = F.max_pool2d(F.relu6(self.b(h)), 2)  # a convolution that runs twice
        h = F.hardtanh(h, min_val=-0.3, max_val=0.4)
        h = F.adaptive_avg_pool2d(h, 1).flatten(1)
        return F.linear(h, self.weight, bias=self.bias)


@pytest.mark.parametrize("target", [Logit(1), LogitMargin(1), lambda z: z[:, 0] - 2 * z[:, 3]])
def test_completeness_of_reused_modules_and_functional_calls(target):
    from camlucida.targets import as_target

    for seed in range(5):
        model = networks.randomise(Reused().double().eval(), seed)
        full = full_gradient(model, networks.images(3, 3, (8, 6), seed), as_target(target))
        assert full.residual.abs().max() < 1e-10 * full.values.abs().max().clamp_min(1)


@pytest.mark.parametrize("bounds", [(-0.3, 0.4), (-0.5, 0.75)])
def test_bounds_of_clipping_activations_are_exact(bounds):
    """Also bounds that single precision cannot hold."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(*bounds), nn.Flatten(), nn.Linear(96, 2))
    networks.randomise(model.double().eval(), 1)
    full = full_gradient(model, networks.images(1, 3, (8, 6)), Logit(1))
    assert float(full.residual.abs()) < 1e-12


def test_completeness_of_timm_batch_norm_with_activation():
    timm = pytest.importorskip("timm")
    model = timm.create_model("tf_efficientnet_lite0", num_classes=10).double()
    for seed, module in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        networks.randomise(module, seed, 0.1)
        with torch.no_grad():
            module.weight.add_(1)
    model.eval()
    full = full_gradient(model, networks.images(1, 3, (64, 48)), Logit(3))
    clipped = [t for t in full.spatial_terms if t.any()]
    assert len(clipped) > 30
    assert float(full.residual.abs()) < 1e-8 * max(1.0, float(full.values.abs()))


def test_smooth_networks_print_their_residual():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 6 * 4, 3)
    ).double()
    networks.randomise(model.eval(), 1)
    x = networks.images(2, 3, (8, 6))
    raw = FullGrad().run(Task.of(model, x, Logit(0)))
    full = full_gradient(model, x, Logit(0))
    assert full.residual.abs().min() > 1e-3
    assert set(raw.notes) == {0, 1}
    for n in range(2):
        assert "unexplained" in raw.notes[n][0]
        assert f"{float(full.residual[n]):.3g}" in raw.notes[n][0]


def test_a_probability_is_not_piecewise_linear():
    model, x = chain("relu", 1), networks.images(1, 3, (8, 6))
    with torch.no_grad():
        model[-1].weight.mul_(0.01)
    assert full_gradient(model, x, Probability(0)).residual.abs() > 1e-6


class ChannelsLast(nn.Module):
    """A linear layer on ``(N, h, w, K)``, as in ConvNeXt and Swin."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.mix = nn.Linear(4, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        h = self.stem(x).permute(0, 2, 3, 1)
        return self.head(F.relu(self.mix(h)).mean((1, 2)))


def test_linear_biases_are_dropped_from_the_map():
    """Also where the linear layer's output is four-dimensional with the channels last."""
    model = networks.randomise(ChannelsLast().double().eval(), 2)
    x = networks.images(1, 3, (8, 6))
    full = full_gradient(model, x, Logit(0))
    assert full.residual.abs() < 1e-10
    assert [tuple(t.shape) for t in full.spatial_terms] == [(1, 4, 8, 6)]
    raw = FullGrad().run(Task.of(model, x, Logit(0)))
    expected = slow.fullgrad(full.input_term[0].numpy(), [full.spatial_terms[0][0].numpy()])
    np.testing.assert_allclose(raw.fused[0].numpy(), expected, atol=1e-9)


def test_zero_gradient_leaves_an_empty_map():
    model, x = chain("relu", 1), networks.images(1, 3, (8, 6))
    raw = FullGrad().run(Task.of(model, x, Logit(0)))
    assert raw.fused.any()
    with torch.no_grad():
        model[-1].weight.zero_()
    raw = FullGrad().run(Task.of(model, x, Logit(0)))
    assert not raw.fused.any()


class Windows(nn.Module):
    """Quarters of the image's map go through a linear layer as members of the batch, as a Swin's windows do.

    Args:
        first: what comes first in the batch: ``"images"``, or ``"windows"``.
        conv: whether the layer is a convolution of the windows.
    """

    def __init__(self, first, *, conv=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.window = nn.Conv2d(4, 4, 3, padding=1) if conv else nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.first, self.conv = first, conv

    def forward(self, x):
        h = self.stem(x).relu()
        n, k, height, width = h.shape
        parts = h.view(n, k, 2, height // 2, 2, width // 2)
        order = (0, 2, 4, 3, 5, 1) if self.first == "images" else (2, 4, 0, 3, 5, 1)
        folded = parts.permute(order).reshape(4 * n, height // 2, width // 2, k)
        if self.conv:
            folded = self.window(folded.permute(0, 3, 1, 2)).relu().permute(0, 2, 3, 1)
        else:
            folded = self.window(folded.flatten(1, 2)).relu()
        shape = (n, 4, -1, k) if self.first == "images" else (4, n, -1, k)
        pooled = folded.reshape(shape).mean(2)
        return self.head(pooled.mean(1 if self.first == "images" else 0))


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_windows_in_the_batch_are_counted_with_their_image(count, conv):
    model = Windows("images", conv=conv).double().eval()
    networks.randomise(model, 2)
    x = networks.images(count, 3, (8, 6), 3)
    full = full_gradient(model, x, Logit(1))
    assert full.other.shape == full.residual.shape == (count,)
    assert full.residual.abs().max() < 1e-10 * full.values.abs().max().clamp_min(1)
    for n in range(count):
        alone = full_gradient(model, x[n : n + 1], Logit(1))
        assert float(alone.other) == pytest.approx(float(full.other[n]), abs=1e-12)
    # Maps of windows are no maps of the image.
    assert [tuple(t.shape) for t in full.spatial_terms] == [(count, 4, 8, 6)]


def test_images_that_do_not_follow_each_other_are_refused():
    model = Windows("windows").double().eval()
    networks.randomise(model, 2)
    x = networks.images(3, 3, (8, 6), 3)
    with pytest.raises(MethodError, match="one image at a time"):
        full_gradient(model, x, Logit(1))
    alone = full_gradient(model, x[:1], Logit(1))
    assert alone.residual.abs().max() < 1e-10


def test_a_swin_is_explained():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=56,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 2),
        num_classes=4,
    ).eval()
    x = torch.randn(2, 3, 56, 56)
    raw = FullGrad().run(Task.of(model, x, Logit(1)))
    for n in range(2):
        one = x[n : n + 1]
        alone = FullGrad().run(Task.of(model, one, Logit(1)))
        torch.testing.assert_close(raw.fused[n], alone.fused[0], rtol=1e-3, atol=1e-4)


def test_a_channel_that_is_constant_up_to_rounding_is_not_blown_up():
    from camlucida.data.planted import Planted
    from camlucida.models.planted import planted_network

    loaded, data = planted_network("objects@0"), Planted("objects", count=4, seed=0)
    images = torch.stack([loaded.preprocess(data.sample(i).picture()) for i in range(4)])
    batch = camlucida.explain(loaded, images, method="fullgrad", target=[0] * 4)
    for i in range(4):
        alone = camlucida.explain(loaded, images[i : i + 1], method="fullgrad", target=[0])
        assert (batch.maps[i] - alone.maps[0]).abs().max() < 1e-5
