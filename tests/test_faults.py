"""Faults found in the field (the end of the design document): each fails on the faulty behaviour.

Numbers as there; 2 and 6 belong to methods and metrics that have tests of their own.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camlucida import (
    CamlucidaError,
    Logit,
    LogitMargin,
    Probability,
    Steps,
    TargetError,
    explain,
    tap,
)
from camlucida.engine.maps import normalise
from camlucida.methods import EigenCAM, FullGrad, GradCAMpp, Task, full_gradient
from reference import cams, networks
from reference import steps as slow
from reference.state import differences, snapshot

SIZE = (7, 7)
X = networks.images(3, 3, SIZE)


def model(**options):
    return networks.build(size=SIZE, signed=False, **options)


# ---- 1: Grad-CAM++ that never divides, or whose eps swamps g^2


def test_fault_1_gradcampp_alpha_is_divided():
    """The division went into a copy, so alpha stayed g^2."""
    a, g, _ = networks.parts(model(head="dense"), X, Logit(1))
    alpha = GradCAMpp().alpha(a, g)
    assert not torch.allclose(alpha, g.square())
    np.testing.assert_allclose(alpha[0].numpy(), cams.alpha_exp(a[0].numpy(), g[0].numpy()))
    assert float(alpha[g > 0].max()) <= 0.5


def test_fault_1_gradcampp_has_no_eps_that_swamps_small_gradients():
    """7 x 7, 1024 channels, weights of 0.03: with 1e-6 in the denominator alpha loses most of itself."""
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(1, 1024, 7, 7, generator=generator, dtype=torch.float64)
    g = 0.03 / 49 * torch.randn(1, 1024, 1, 1, generator=generator, dtype=torch.float64)
    g = g.expand_as(a)
    exact, swamped = GradCAMpp().alpha(a, g), GradCAMpp(eps=1e-6).alpha(a, g)
    expected = 1 / (2 + g * a.sum((2, 3), keepdim=True))
    torch.testing.assert_close(exact, expected)
    assert float((swamped / exact).median()) < 0.5
    # Small gradients in single precision: still the closed form.
    tiny = GradCAMpp().alpha(a.float(), 1e-25 * torch.ones(1, 1024, 7, 7))
    torch.testing.assert_close(tiny, torch.full_like(tiny, 0.5))


# ---- 3: a class out of range is swallowed; fewer targets than images give zero maps


@pytest.mark.parametrize("method", ["gradcam", "cam", "eigencam", "fullgrad", "saliency"])
def test_fault_3_class_out_of_range_is_an_error(method):
    layers = None if method in {"fullgrad", "saliency"} else "features"
    for wrong in (3, -1, [0, 1, 7]):
        with pytest.raises(TargetError, match="does not exist"):
            explain(model(), X, method=method, target=wrong, layers=layers)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_fault_3_fewer_or_more_targets_than_images_is_an_error(batch_size):
    for classes in ([0], [0, 1], [0, 1, 2, 0]):
        with pytest.raises(TargetError, match="for 3 images"):
            explain(model(), X, target=classes, layers="features", batch_size=batch_size)


def test_fault_3_index_errors_of_a_users_target_get_through():
    def wrong(outputs):
        return outputs[:, [0, 1, 2]][:, 99]

    with pytest.raises(IndexError):
        explain(model(), X, target=wrong, layers="features")


# ---- 4: models left in evaluation mode, gradients overwritten


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "eigencam", "fullgrad", "smoothgrad"])
def test_fault_4_the_model_is_given_back_as_it_was(method):
    m = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 2)
    ).double()
    m.train()
    m[1].eval()
    for parameter in m.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = snapshot(m)
    explain(m, X, method=method)
    assert differences(before, snapshot(m)) == []


# ---- 5: an in-place ReLU behind the layer


class DenseNetEnd(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.classifier = nn.Linear(4, 3)

    def forward(self, x):
        out = F.relu(self.features(x), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(out, 1).flatten(1))


def test_fault_5_in_place_relu_behind_the_layer():
    """Post-ReLU activations must not meet pre-ReLU gradients."""
    m = networks.randomise(DenseNetEnd().double().eval(), 4)
    a = m.features(X).detach().requires_grad_()
    score = m.classifier(a.clamp_min(0).mean((2, 3)))[:, 1].sum()
    (g,) = torch.autograd.grad(score, a)
    found = tap(m, X, "features", 1)
    torch.testing.assert_close(found.only[0], a.detach())
    torch.testing.assert_close(found.only[1], g)
    maps = explain(m, X, target=1, layers="features").signed
    for n in range(3):
        expected = cams.gradcam(a[n].detach().numpy(), g[n].numpy())
        np.testing.assert_allclose(maps[n].numpy(), expected, atol=1e-12)
    # What the fault would give is another map.
    post = torch.einsum("nk,nkhw->nhw", g.mean((2, 3)), a.detach().clamp_min(0))
    assert not torch.allclose(post, maps)


@pytest.mark.parametrize("method", ["fullgrad", "cam", "eigencam", "hirescam", "saliency"])
def test_fault_5_every_method_agrees_with_the_same_network_without_in_place(method):
    class Plain(DenseNetEnd):
        def forward(self, x):
            out = F.relu(self.features(x))
            return self.classifier(F.adaptive_avg_pool2d(out, 1).flatten(1))

    inplace = networks.randomise(DenseNetEnd().double().eval(), 4)
    plain = networks.randomise(Plain().double().eval(), 4)
    layers = None if method in {"fullgrad", "saliency"} else "features"
    a, b = (explain(m, X, method=method, layers=layers).maps for m in (inplace, plain))
    torch.testing.assert_close(a, b)


# ---- 7: FullGrad, EigenCAM, completeness


def test_fault_7_fullgrad_can_be_scaled_per_image():
    m = networks.build(size=SIZE, head="deep", signed=False)
    per_channel, per_image = (
        FullGrad(s).run(Task.of(m, X, Logit())).fused for s in ("channel", "sample")
    )
    assert not torch.allclose(normalise(per_channel), normalise(per_image))


def test_fault_7_eigencam_has_a_fixed_sign():
    """The sign of a singular vector follows the driver: the same image, turned about, must agree."""
    for seed in range(20):
        a = networks.images(1, 4, (5, 6), seed)
        one = EigenCAM().project(a)
        assert -one.min() <= one.max()
        for other in (a.flip(1), torch.cat([a, 0 * a], 1), a * 3):
            again = EigenCAM().project(other)
            torch.testing.assert_close(again / again.max(), one / one.max(), rtol=0, atol=1e-9)
        # A few bits more must not turn the map over.
        torch.testing.assert_close(EigenCAM().project(a * (1 + 1e-12)), one, rtol=0, atol=1e-6)


def test_fault_7_completeness_holds_with_relu6():
    m = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Flatten(),
        nn.Linear(36, 3),
    )  # fmt: skip
    networks.randomise(m.double().eval(), 1, 3.0)
    outputs = m[:2](X)
    assert (outputs == 6).any()
    full = full_gradient(m, X, Logit(0))
    assert full.residual.abs().max() < 1e-9 * full.values.abs().max()


# ---- 8: a large constant swallows the map


def test_fault_8_a_large_offset_does_not_swallow_the_map():
    """The offset is taken off exactly where it is representable: nothing is added before scaling."""
    maps = torch.arange(16.0).view(1, 4, 4)
    for offset in (2.0**10, 2.0**16, 2.0**20):
        shifted = normalise(maps + offset)
        assert torch.equal(shifted, normalise(maps)), offset
        finished = Steps().finish(maps + offset, (9, 11))[0].numpy()
        expected = slow.finish((maps[0] + offset).double().numpy(), (9, 11))
        # One rounding of the offset is 2^-23 of it; the map's range is 15.
        assert np.abs(finished - expected).max() < 4 * offset * 2**-23 / 15 + 1e-6


def test_fault_8_small_maps_are_scaled_like_any_other():
    maps = torch.rand(1, 4, 4) * 1e-12
    torch.testing.assert_close(
        Steps().finish(maps, (8, 8)), Steps().finish(maps * 1e12, (8, 8)), rtol=0, atol=1e-6
    )


def test_fault_8_a_common_logit_offset_does_not_swallow_a_margin():
    m = model().float()
    x = X.float()
    before = explain(m, x, target=LogitMargin(1, aggregator="lse"), layers="features").maps
    with torch.no_grad():
        m.head[1].bias.add_(4096.0)
    after = explain(m, x, target=LogitMargin(1, aggregator="lse"), layers="features").maps
    torch.testing.assert_close(after, before, rtol=0, atol=5e-3)


# ---- 9: blank or NaN maps without a word


def blank(kind):
    m = model()
    target, x = None, X
    with torch.no_grad():
        if kind == "all negative":
            m.head[1].weight.fill_(-1.0)
        elif kind == "dead":
            m.features[0].weight.zero_()
            m.features[0].bias.fill_(-1.0)
        elif kind == "disconnected":
            return explain(m, x, target=lambda z: z.detach()[:, 0], layers="features")
        elif kind == "saturated":
            m.head[1].bias[0] = 2000.0
            target = Probability(0)
        elif kind == "constant":
            m.head[1].weight.zero_()
        elif kind == "nan":
            m.features[0].bias[0] = torch.nan
    return explain(m, x, target=target, layers="features")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("all negative", "every value is negative"),
        ("dead", "channels"),
        ("disconnected", "does not depend"),
        ("saturated", "saturated"),
        ("constant", "constant"),
        ("nan", "NaN"),
    ],
)
def test_fault_9_a_blank_map_says_why(kind, word):
    found = blank(kind)
    assert not found.maps.any()
    assert found.maps.isfinite().all()
    for n, d in enumerate(found.diagnostics):
        assert any(word in message for message in d.messages), d.messages
        assert found.record()["images"][n]["messages"] == list(d.messages)


def test_fault_9_every_error_of_ours_is_one_sentence():
    for call in (
        lambda: explain(model(), X, method="gradcamm"),
        lambda: explain(model(), X, target=99, layers="features"),
        lambda: explain(model(), X, layers="nowhere"),
        lambda: explain(model(), X[0, 0]),
    ):
        with pytest.raises(CamlucidaError) as raised:
            call()
        assert len(str(raised.value)) > 20
        assert "\n" not in str(raised.value)
