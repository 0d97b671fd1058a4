"""Grad-CAM++: its three forms, its pole and its eps (specification section 2.3)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camlucida import ExpLogit, Grid, Logit, LogitMargin, LogProbability, MethodError, Probability
from camlucida.methods import GradCAMpp, Task, build
from reference import cams as slow
from reference import networks

seeds = st.integers(0, 10_000)


def run(method, model, x, target, layers="features", **options):
    return method.run(Task.of(model, x, target, layers, **options))


def positive_gap(seed, size=(3, 4), bias=True):
    return networks.build(size=size, signed=False, seed=seed, bias=bias)


@given(seeds, st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_closed_form_of_gap_heads(seed, size):
    """w_k = ReLU(W_ck) / (2 + W_ck mean(A^k))."""
    model = networks.build(size=size, signed=False, seed=seed)
    x = networks.images(2, 3, size, seed)
    a = model.features(x).detach()
    W = model.head[1].weight.detach()[1]
    w = W.clamp_min(0) / (2 + W * a.mean((2, 3)))
    expected = (w[:, :, None, None] * a).sum(1)
    # dY/dA = W / N at each of the N cells
    torch.testing.assert_close(
        run(GradCAMpp(), model, x, Logit(1)).fused, expected, rtol=1e-12, atol=1e-12
    )


@given(seeds)
def test_exp_form_is_the_true_form_with_exp_logit_on_a_linear_head(seed):
    model = networks.build(size=(2, 3), head="dense", signed=False, k=2, seed=seed)
    x = networks.images(2, 3, (2, 3), seed)
    exp = run(GradCAMpp(), model, x, Logit(1)).fused
    # Y = exp(S): Y_i carries the factor e^S, which is common to all channels and dropped.
    true = run(GradCAMpp("true"), model, x, ExpLogit(1))
    factor = true.values[:, None, None]
    torch.testing.assert_close(true.fused / factor, exp, rtol=1e-12, atol=1e-12)
    assert not true.notes


@pytest.mark.parametrize(
    "target",
    [ExpLogit(0), Probability(0), LogProbability(0), LogitMargin(0, aggregator="lse")],
    ids=lambda t: type(t).__name__,
)
@pytest.mark.parametrize("smooth", [False, True])
@settings(max_examples=4)
@given(seed=st.integers(0, 300))
def test_true_form_against_nested_directional_derivatives(target, smooth, seed):
    size = (2, 2)
    model = networks.build(size=size, head="deep", k=2, signed=True, seed=seed, smooth=smooth)
    with torch.no_grad():
        model.head[3].weight.mul_(0.3)  # a softmax that is not saturated, where all would cancel
    x = networks.images(2, 3, size, seed)
    a, g, _ = networks.parts(model, x, target)
    raw = run(GradCAMpp("true"), model, x, target)
    for n in range(2):
        alpha = slow.alpha_true(lambda one: target(model.head(one[None]))[0], a[n])
        expected = slow.gradcampp(a[n].numpy(), g[n].numpy(), alpha)
        np.testing.assert_allclose(
            raw.fused[n].numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max()
        )


def test_true_form_of_a_bare_logit_is_zero_and_says_why():
    model = networks.build(size=(2, 3), head="dense", k=2)
    raw = run(GradCAMpp("true"), model, networks.images(2, 3, (2, 3)), Logit())
    assert not raw.fused.any()
    assert set(raw.notes) == {0, 1}
    assert "second derivative" in raw.notes[0][0]


def test_true_form_refuses_large_maps_before_the_work():
    model = networks.build(size=(5, 6), head="gap")
    x = networks.images(1, 3, (5, 6))
    with pytest.raises(MethodError, match="max_entries=120"):
        run(GradCAMpp("true", max_entries=119), model, x, ExpLogit(0))
    run(GradCAMpp("true", max_entries=120), model, x, ExpLogit(0))


def test_true_form_refuses_a_grid_function():
    """A function cannot be written back, so that single entries of its map cannot be differentiated."""
    model = networks.build(size=(2, 2), head="dense", k=2, signed=False, seed=1)
    x = networks.images(1, 3, (2, 2))
    with pytest.raises(MethodError, match="Grid"):
        run(GradCAMpp("true"), model, x, ExpLogit(0), grid=lambda output: output * 1)
    assert run(GradCAMpp("true"), model, x, ExpLogit(0), grid=Grid()).fused.any()


def test_true_form_leaves_no_gradients_behind():
    model = networks.build(size=(2, 2), head="dense", k=2)
    run(GradCAMpp("true"), model, networks.images(1, 3, (2, 2)), ExpLogit(0))
    assert all(p.grad is None for p in model.parameters())


@given(seeds, st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_tf_original_with_a_constant_gradient_is_the_rectified_gradient(seed, k, size):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, k, *size, generator=generator, dtype=torch.float64)
    g = torch.randn(2, k, 1, 1, generator=generator, dtype=torch.float64)
    expected = (g.clamp_min(0) * a).sum(1)
    got = GradCAMpp("tf_original").combine(a, g.expand_as(a))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(GradCAMpp().combine(a, g.expand_as(a)), expected) or not g.gt(0).any()


@pytest.mark.parametrize("form", ["exp", "tf_original"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_pole_is_guarded(form, eps):
    """2 + g sum(A) = 0 exactly: alpha is 0, not infinite."""
    a = torch.full((1, 1, 2, 2), -0.25, dtype=torch.float64)
    g = torch.full((1, 1, 2, 2), 2.0, dtype=torch.float64)
    method = GradCAMpp(form, eps=eps)
    assert method.combine(a, g).isfinite().all()
    if eps == 0:
        assert not method.alpha(a, g).any()


def test_zero_gradient_has_zero_alpha():
    a = torch.rand(1, 2, 2, 2)
    g = torch.zeros_like(a)
    g[0, 0, 0, 0] = 1.0
    alpha = GradCAMpp().alpha(a, g)
    assert float(alpha[0, 0, 0, 0]) == pytest.approx(1 / (2 + float(a[0, 0].sum())))
    assert (alpha != 0).sum() == 1


def test_zero_activation_has_alpha_one_half():
    alpha = GradCAMpp().alpha(torch.zeros(1, 2, 2, 2), torch.rand(1, 2, 2, 2) + 0.1)
    assert torch.equal(alpha, torch.full_like(alpha, 0.5))


@given(seeds)
def test_alpha_of_positive_activations_lies_in_0_to_one_half(seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(1, 3, 3, 3, generator=generator)
    g = torch.rand(1, 3, 3, 3, generator=generator) + 1e-3
    alpha = GradCAMpp().alpha(a, g)
    assert (alpha > 0).all()
    assert (alpha <= 0.5).all()


def test_eps_is_off_by_default_and_swamps_small_gradients():
    a = torch.rand(1, 3, 7, 7)
    g = torch.full_like(a, 5e-4)
    exact = GradCAMpp().combine(a, g)
    assert GradCAMpp().eps == 0
    assert float(GradCAMpp(eps=1e-6).combine(a, g).max()) < 0.5 * float(exact.max())


def test_diffgradcampp_is_gradcampp_on_the_margin():
    model = networks.build(head="deep")
    x = networks.images(2, 3, (5, 6))
    for aggregator in ("mean", "max", "lse", "lae"):
        method, target = build("diffgradcam++", [0, 2], aggregator=aggregator)
        expected = run(GradCAMpp(), model, x, LogitMargin([0, 2], aggregator=aggregator))
        torch.testing.assert_close(run(method, model, x, target).fused, expected.fused)


def test_unknown_form():
    with pytest.raises(MethodError, match="tf_original"):
        GradCAMpp("approximate")
