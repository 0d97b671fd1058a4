"""The table of edge cases (specification 1.5 and 2.14): never NaN, and empty where nothing is there."""

import pytest
import torch
from torch import nn

from camlucida import Logit, MethodError, explain
from camlucida.methods import (
    CAM,
    EigenCAM,
    FullGrad,
    GradCAM,
    GradCAMEW,
    GradCAMpp,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Saliency,
    SmoothGrad,
    XGradCAM,
)
from reference import networks

COMBINING = [
    GradCAM(), GradCAMpp(), GradCAMpp("tf_original"), GradCAMpp(eps=1e-6), XGradCAM(), XGradCAM("l1"),
    HiResCAM(), GradCAMEW(), LayerCAM(),
]  # fmt: skip
LAYERED = [*COMBINING, GradCAMpp("true"), CAM(), EigenCAM(), EigenCAM(center=False)]
ALL = [*LAYERED, FullGrad(), FullGrad("sample"), Saliency(), InputXGradient(),
       IntegratedGradients(n_steps=3), SmoothGrad(n_samples=2)]  # fmt: skip


def name(method):
    options = [str(v) for v in vars(method).values()]
    return "-".join([type(method).__name__, *options])


def head(k=3):
    return networks.randomise(nn.Sequential(networks.Gap(), nn.Linear(k, 3)).double(), 1)


def on(activation, method, head, **options):
    """Explain a given activation: the network's layer returns its input."""
    model = networks.Split(nn.Identity(), head).eval()
    layers = "features" if method.uses_layers else None
    return explain(model, activation, method=method, layers=layers, **options)


def check(found, *, empty):
    assert found.maps.isfinite().all()
    assert float(found.maps.min()) >= 0
    assert float(found.maps.max()) <= 1
    if empty:
        assert not found.maps.any()
        assert not found.raw.any()


@pytest.mark.parametrize("method", COMBINING, ids=name)
def test_zero_gradient(method):
    a = torch.rand(2, 3, 4, 5)
    assert not method.combine(a, torch.zeros_like(a)).any()


@pytest.mark.parametrize("method", [m for m in ALL if not isinstance(m, EigenCAM)], ids=name)
def test_target_without_gradient(method):
    dead = head()
    nn.init.zeros_(dead[1].weight)
    found = on(torch.rand(2, 3, 4, 5, dtype=torch.float64), method, dead, target=1)
    check(found, empty=True)
    assert any(d.messages for d in found.diagnostics)


@pytest.mark.parametrize("method", [*LAYERED, InputXGradient(), FullGrad()], ids=name)
def test_zero_activation(method):
    """FullGrad is given the same zeros as its input; only the linear bias is left, which is no place."""
    found = on(torch.zeros(2, 3, 4, 5, dtype=torch.float64), method, head(), target=1)
    check(found, empty=True)
    if method.uses_layers:
        assert "all 3 channels of layer 'features' are zero" in found.diagnostics[0].messages


@pytest.mark.parametrize("method", ALL, ids=name)
def test_one_by_one_map(method):
    a = torch.rand(2, 3, 1, 1, dtype=torch.float64) + 0.1
    found = on(a, method, head(), target=1)
    check(found, empty=False)
    assert not found.maps.any()
    assert all(d.constant for d in found.diagnostics)


def test_one_by_one_map_under_max_is_ones():
    from camlucida import Steps

    positive = head()
    nn.init.ones_(positive[1].weight)
    a = torch.rand(2, 3, 1, 1, dtype=torch.float64) + 0.1
    found = on(a, GradCAM(), positive, steps=Steps(normalise="max"))
    assert torch.equal(found.maps, torch.ones(2, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("method", [m for m in LAYERED if m != CAM()], ids=name)
def test_constant_activation(method):
    a = torch.full((1, 3, 4, 5), 0.7, dtype=torch.float64)
    found = on(a, method, head(), target=1)
    check(found, empty=False)
    assert not found.maps.any()


@pytest.mark.parametrize("method", COMBINING, ids=name)
def test_constant_channel_is_fine(method):
    a = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    a[:, 1] = 0.7
    check(on(a, method, head(), target=1), empty=False)


@pytest.mark.parametrize(
    "method", [GradCAM(), GradCAMpp(), XGradCAM(), HiResCAM(), LayerCAM()], ids=name
)
def test_all_negative_map_is_zero_and_says_so(method):
    against = head()
    sign = 1.0 if isinstance(method, GradCAMpp | LayerCAM) else -1.0
    nn.init.constant_(against[1].weight, sign)
    a = torch.rand(1, 3, 4, 5, dtype=torch.float64) + 0.1
    if sign > 0:
        a = -0.01 * a  # these two drop negative gradients, so the activation is negative
    found = on(a, method, against, target=1)
    check(found, empty=True)
    assert found.diagnostics[0].all_negative
    assert "every value is negative" in found.diagnostics[0].messages[0]
    assert float(found.signed.max()) < 0


def test_cam_keeps_an_all_negative_map():
    against = head()
    nn.init.constant_(against[1].weight, -1.0)
    a = torch.rand(1, 3, 4, 5, dtype=torch.float64) + 0.1
    assert float(on(a, CAM(), against, target=1).maps.max()) == 1
    check(on(a, CAM(relu=True), against, target=1), empty=True)


@pytest.mark.parametrize("norm", ["sum", "l1"])
def test_xgradcam_channel_that_sums_to_zero(norm):
    a = torch.tensor([[[[1.0, -1.0], [2.0, -2.0]]]], dtype=torch.float64)
    g = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    found = XGradCAM(norm).combine(a, g)
    assert found.isfinite().all()
    assert bool(found.any()) == (norm == "l1")


@pytest.mark.parametrize("method", ALL, ids=name)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_activation_is_drawn_as_zeros_and_named(method, value):
    a = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    a[0, 0, 1, 1] = value
    try:
        found = on(a, method, head(), target=1)
    except MethodError:
        assert isinstance(method, CAM)  # it cannot see that the head is its own
        return
    check(found, empty=False)
    if not found.diagnostics[0].finite:
        assert not found.maps[0].any()
        assert any("NaN or infinite" in m for m in found.diagnostics[0].messages)
    # The other image is not touched by it.
    alone = on(a[1:], method, head(), target=1)
    torch.testing.assert_close(found.maps[1], alone.maps[0])
    assert found.diagnostics[1].finite


def test_nan_activation_is_reported_by_gradcam():
    a = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    a[0, 0, 1, 1] = torch.nan
    found = on(a, GradCAM(), head(), target=Logit(1))
    assert not found.diagnostics[0].finite
    assert not found.raw.any()


@pytest.mark.parametrize("scale", [1e-25, 1e18])
@pytest.mark.parametrize("method", [m for m in ALL if not isinstance(m, GradCAMpp)], ids=name)
def test_extreme_activations_in_single_precision(method, scale):
    """Any positive scale of the activation gives the map of scale 1."""
    a = torch.rand(1, 3, 4, 5)
    one = on(a, method, head().float(), target=1)
    found = on(a * scale, method, head().float(), target=1)
    check(found, empty=False)
    torch.testing.assert_close(found.maps, one.maps, rtol=0, atol=1e-4)
