"""Saliency, input x gradient, integrated gradients and SmoothGrad against loops and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from camlucida import Logit, LogitMargin, MethodError, Probability
from camlucida.common.seeds import ImageGenerators
from camlucida.methods import InputXGradient, IntegratedGradients, Saliency, SmoothGrad, Task
from reference import input_methods as slow
from reference import networks

seeds = st.integers(0, 1000)
reductions = st.sampled_from(["abs_max", "abs_sum", "sum"])
TARGETS = [Logit(1), Probability(0), LogitMargin(2, aggregator="lse")]


def run(method, model, x, target, seed=0, **options):
    return method.run(Task.of(model, x, target, seed=seed, **options))


def score_of(model, target):
    return lambda one: target(model(one[None]))[0]


def close(fast, reference, tolerance=1e-11):
    reference = np.stack(reference)
    np.testing.assert_allclose(
        fast.numpy(), reference, rtol=0, atol=tolerance * max(1.0, np.abs(reference).max())
    )


@given(seeds, st.integers(1, 3), reductions, st.sampled_from(TARGETS))
def test_saliency_and_input_x_gradient(seed, n, reduction, target):
    model = networks.build(head="deep", seed=seed)
    x = networks.images(n, 3, (5, 6), seed)
    score = score_of(model, target)
    close(
        run(Saliency(reduction), model, x, target).fused,
        [slow.saliency(score, one, reduction) for one in x],
    )
    close(
        run(InputXGradient(reduction), model, x, target).fused,
        [slow.input_x_gradient(score, one, reduction) for one in x],
    )


def test_defaults():
    assert Saliency().reduction == SmoothGrad().reduction == "abs_max"
    assert InputXGradient().reduction == IntegratedGradients().reduction == "abs_sum"
    assert Saliency("sum").steps.rectify
    assert not Saliency().steps.rectify


@settings(max_examples=5)
@given(seeds, st.sampled_from([0.0, -0.7]))
def test_integrated_gradients_is_the_path_integral(seed, baseline):
    model = networks.build(head="deep", signed=False, smooth=True, seed=seed)
    x = 0.5 * networks.images(2, 3, (5, 6), seed)
    score = score_of(model, Logit(1))
    raw = run(IntegratedGradients(n_steps=60, baseline=baseline), model, x, Logit(1))
    # 400 midpoints: an error of the order of 1/400^2
    close(raw.fused, [slow.integrated_gradients(score, one, 400, baseline) for one in x], 1e-3)


@settings(max_examples=5)
@given(seeds)
def test_integrated_gradients_is_complete(seed):
    model = networks.build(head="deep", signed=False, smooth=True, seed=seed)
    x = 0.5 * networks.images(2, 3, (5, 6), seed)
    raw = run(IntegratedGradients(n_steps=80, reduction="sum"), model, x, Logit(1))
    gained = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    torch.testing.assert_close(raw.fused.sum((1, 2)), gained, rtol=1e-4, atol=1e-4)


class Cubic(nn.Module):
    """z = sum of x^3 over the image: the integral is known."""

    def forward(self, x):
        return torch.stack([(x**3).flatten(1).sum(1), x.flatten(1).sum(1)], 1)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
@pytest.mark.parametrize("n_steps", [2, 3, 10])
def test_integrated_gradients_of_a_cubic_is_exact(baseline, n_steps):
    """Two Gauss-Legendre nodes integrate 3 x^2 exactly."""
    x = networks.images(1, 3, (4, 5))
    raw = run(
        IntegratedGradients(n_steps=n_steps, baseline=baseline, reduction="sum"),
        Cubic(),
        x,
        Logit(0),
    )
    torch.testing.assert_close(raw.fused, (x**3 - baseline**3).sum(1), rtol=1e-12, atol=1e-12)


def test_one_node_is_the_midpoint():
    x = networks.images(1, 3, (4, 5))
    raw = run(IntegratedGradients(n_steps=1, reduction="sum"), Cubic(), x, Logit(0))
    torch.testing.assert_close(raw.fused, (x * 3 * (x / 2) ** 2).sum(1))


@given(seeds, st.integers(1, 3), reductions, st.booleans(), st.sampled_from([0.0, 0.15, 1.0]))
def test_smoothgrad(seed, n, reduction, squared, noise):
    model = networks.build(head="deep", seed=seed)
    x = networks.images(n, 3, (5, 6), seed)
    method = SmoothGrad(n_samples=4, noise=noise, squared=squared, reduction=reduction)
    raw = run(method, model, x, Logit(1), seed=seed)
    stream = ImageGenerators.of(seed, x)
    draws = [stream.randn((3, 5, 6), x) for _ in range(4)]
    score = score_of(model, Logit(1))
    expected = [
        slow.smoothgrad(score, one, [d[i] for d in draws], noise, squared, reduction)
        for i, one in enumerate(x)
    ]
    close(raw.fused, expected)


def test_smoothgrad_without_noise_is_saliency():
    model, x = networks.build(head="deep"), networks.images(2, 3, (5, 6))
    smooth = run(SmoothGrad(n_samples=3, noise=0.0), model, x, Logit())
    torch.testing.assert_close(smooth.fused, run(Saliency(), model, x, Logit()).fused)


def test_smoothgrad_of_a_constant_image_is_saliency():
    """The noise is a share of the image's range, which is 0."""
    model, x = networks.build(head="deep"), torch.full((1, 3, 5, 6), 0.3, dtype=torch.float64)
    smooth = run(SmoothGrad(n_samples=3), model, x, Logit())
    torch.testing.assert_close(smooth.fused, run(Saliency(), model, x, Logit()).fused)


class Switch(nn.Module):
    """Predicts class 1 for bright images and class 0 for dark ones; the two look at different halves."""

    def forward(self, x):
        halves = x.mean(1).unflatten(-1, (2, -1)).sum((1, 3))
        return torch.stack(
            [torch.full_like(halves[:, 0], 0.5) + 0.01 * halves[:, 0], halves[:, 1]], 1
        )


def test_the_class_is_the_images_own_along_the_path():
    """A blank baseline is predicted as something else; the explained class must not change with it."""
    x = torch.ones(1, 1, 2, 4, dtype=torch.float64)
    model = Switch()
    assert model(x).argmax(1).tolist() == [1]
    assert model(0 * x).argmax(1).tolist() == [0]
    for method in (IntegratedGradients(n_steps=5), SmoothGrad(n_samples=5, noise=5.0)):
        free, fixed = run(method, model, x, Logit()), run(method, model, x, Logit(1))
        torch.testing.assert_close(free.fused, fixed.fused)
        assert free.target.classes.tolist() == [1]


def test_progress_is_counted_in_passes():
    model, x = networks.build(), networks.images(1, 3, (5, 6))
    for method in (IntegratedGradients(n_steps=4), SmoothGrad(n_samples=4)):
        seen = []
        run(method, model, x, Logit(), progress=lambda *done, seen=seen: seen.append(done))
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Saliency("mean"),
        lambda: IntegratedGradients(n_steps=0),
        lambda: SmoothGrad(n_samples=0),
        lambda: SmoothGrad(noise=-0.1),
    ],
)
def test_options_are_checked(make):
    with pytest.raises(MethodError):
        make()
