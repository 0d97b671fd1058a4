"""Identities of the specification, sections 2.13 and 3.2, in double precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import ExpLogit, Logit, LogitMargin, LogProbability, Probability
from camlucida.engine.maps import normalise, rectify
from camlucida.methods import (
    CAM,
    GradCAM,
    GradCAMEW,
    GradCAMpp,
    HiResCAM,
    LayerCAM,
    Task,
    XGradCAM,
    build,
)
from reference import networks

AGGREGATORS = ["mean", "max", "lse", "lae"]
FIRST_ORDER = [GradCAM(), HiResCAM(), LayerCAM(), GradCAMEW(), XGradCAM()]
seeds = st.integers(0, 10_000)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))


def run(method, model, x, target):
    return method.run(Task.of(model, x, target, "features")).fused


def same(a, b, tolerance=1e-12):
    scale = max(1.0, float(b.abs().max()))
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


@given(seeds, sizes, st.booleans())
def test_cam_is_n_times_gradcam(seed, size, signed):
    model = networks.build(size=size, signed=signed, seed=seed)
    x = networks.images(2, 3, size, seed)
    n = size[0] * size[1]
    for target in (Logit(), Logit(1), LogitMargin(aggregator="lse")):
        same(run(CAM(), model, x, target), n * run(GradCAM(), model, x, target))


@given(seeds, sizes)
def test_gap_head_gradcam_hirescam_and_xgradcam_are_one(seed, size):
    # A gradient that is constant over the channel; XGradCAM then averages it with any weights.
    model = networks.build(size=size, signed=False, seed=seed)
    x = networks.images(2, 3, size, seed)
    grad = run(GradCAM(), model, x, Logit())
    same(run(HiResCAM(), model, x, Logit()), grad)
    same(run(XGradCAM(), model, x, Logit()), grad)
    same(run(XGradCAM("l1"), model, x, Logit()), grad)


def test_other_heads_tell_them_apart():
    model = networks.build(head="dense", signed=False)
    x = networks.images(1, 3, (5, 6))
    maps = [run(m, model, x, Logit(0)) for m in (GradCAM(), HiResCAM(), XGradCAM())]
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


@given(seeds, st.sampled_from(["gap", "dense", "deep"]))
def test_elementwise_is_layercam_for_positive_activations(seed, head):
    model = networks.build(head=head, signed=False, seed=seed)
    x = networks.images(2, 3, (5, 6), seed)
    same(run(GradCAMEW(), model, x, Logit()), run(LayerCAM(), model, x, Logit()))


def test_elementwise_is_not_layercam_for_signed_activations():
    model = networks.build(signed=True)
    x = networks.images(1, 3, (5, 6))
    assert not torch.allclose(
        rectify(run(GradCAMEW(), model, x, Logit(0))), rectify(run(LayerCAM(), model, x, Logit(0)))
    )


@pytest.mark.parametrize("method", FIRST_ORDER, ids=lambda m: type(m).__name__)
@given(seeds, st.sampled_from([1e-3, 7.0, 1e4]))
def test_positive_rescaling_of_the_target_changes_nothing(method, seed, factor):
    model = networks.build(head="deep", seed=seed)
    x = networks.images(2, 3, (5, 6), seed)
    one = normalise(rectify(run(method, model, x, Logit(1))))
    scaled = normalise(
        rectify(method.run(Task.of(model, x, _Scaled(1, factor), "features")).fused)
    )  # fmt: skip
    same(scaled, one, 1e-9)


class _Scaled(Logit):
    def __init__(self, classes, factor):
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "factor", factor)

    def pin(self, outputs):  # noqa: ARG002
        return self

    def __call__(self, outputs):
        return self.factor * outputs[:, self.classes]


def test_gradcampp_is_not_scale_free():
    model = networks.build(head="deep", signed=False)
    x = networks.images(1, 3, (5, 6))
    one = normalise(rectify(run(GradCAMpp(), model, x, _Scaled(1, 1.0))))
    many = normalise(rectify(run(GradCAMpp(), model, x, _Scaled(1, 100.0))))
    assert float((one - many).abs().max()) > 1e-3


def test_a_positive_factor_is_what_exp_logit_is():
    model = networks.build(head="deep")
    x = networks.images(2, 3, (5, 6))
    for method in FIRST_ORDER:
        same(
            normalise(rectify(run(method, model, x, ExpLogit(1)))),
            normalise(rectify(run(method, model, x, Logit(1)))),
            1e-9,
        )


# ----------------------------------------------------------------------------------------- DiffGradCAM


def diff(model, x, classes, aggregator):
    method, target = build("diffgradcam", classes, aggregator=aggregator)
    assert isinstance(target, LogitMargin)
    return run(method, model, x, target)


@given(seeds, st.sampled_from(["gap", "dense", "deep"]))
def test_two_classes_all_aggregators_give_one_map(seed, head):
    model = networks.build(head=head, m=2, seed=seed)
    x = networks.images(2, 3, (5, 6), seed)
    first = diff(model, x, None, "mean")
    for aggregator in AGGREGATORS[1:]:
        same(diff(model, x, None, aggregator), first)


@given(seeds, st.sampled_from(["gap", "dense", "deep"]), st.integers(2, 5))
def test_lse_margin_is_gradcam_on_the_probability(seed, head, m):
    model = networks.build(head=head, m=m, seed=seed)
    x = networks.images(2, 3, (5, 6), seed)
    lse = run(GradCAM(), model, x, LogitMargin(0, aggregator="lse"))
    # grad Delta = grad p / (p (1 - p)) = grad log p / (1 - p), before any normalisation
    p = model(x).softmax(1)[:, 0].detach()[:, None, None]
    usable = (p * (1 - p) > 1e-6).flatten()
    probability = run(GradCAM(), model, x, Probability(0)) / (p * (1 - p))
    same(probability[usable], lse[usable], 1e-8) if usable.any() else None
    logarithm = run(GradCAM(), model, x, LogProbability(0)) / (1 - p)
    same(logarithm[usable], lse[usable], 1e-8) if usable.any() else None
    same(
        normalise(rectify(probability))[usable], normalise(rectify(lse))[usable], 1e-6
    ) if usable.any() else None


@given(seeds, st.integers(2, 6))
def test_lae_is_lse(seed, m):
    model = networks.build(head="deep", m=m, seed=seed)
    x = networks.images(2, 3, (5, 6), seed)
    same(diff(model, x, None, "lae"), diff(model, x, None, "lse"))


@given(seeds, st.integers(2, 6))
def test_centred_head_mean_margin_is_gradcam(seed, m):
    model = networks.build(m=m, seed=seed)
    with torch.no_grad():
        head = model.head[1].weight
        head.sub_(head.mean(0, keepdim=True))
    x = networks.images(2, 3, (5, 6), seed)
    grad = run(GradCAM(), model, x, Logit(1))
    same(diff(model, x, 1, "mean"), m / (m - 1) * grad)


@given(seeds, st.integers(2, 6))
def test_a_common_row_moves_gradcam_and_no_margin(seed, m):
    """Passive fooling in one line: the softmax is unchanged, Grad-CAM goes where the row says."""
    model = networks.build(m=m, seed=seed)
    x = networks.images(2, 3, (5, 6), seed)
    before = {a: diff(model, x, 1, a) for a in AGGREGATORS}
    grad, p = run(GradCAM(), model, x, Logit(1)), model(x).softmax(1)
    generator = torch.Generator().manual_seed(seed)
    row = 5 * torch.randn(1, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.head[1].weight.add_(row)
    torch.testing.assert_close(model(x).softmax(1), p, rtol=1e-9, atol=1e-9)
    moved = run(GradCAM(), model, x, Logit(1))
    assert float((moved - grad).abs().max()) > 1e-3
    # ... exactly by the row
    a = model.features(x).detach()
    same(moved - grad, torch.einsum("k,nkhw->nhw", row[0], a) / 30, 1e-11)
    for aggregator in AGGREGATORS:
        same(diff(model, x, 1, aggregator), before[aggregator], 1e-11)


def test_every_method_has_its_contrastive_form():
    """Contrast is a property of the target: any method takes a margin."""
    model = networks.build(m=4)
    x = networks.images(1, 3, (5, 6))
    for method in [*FIRST_ORDER, GradCAMpp(), CAM()]:
        logit, margin = run(method, model, x, Logit(0)), run(method, model, x, LogitMargin(0))
        assert margin.isfinite().all()
        assert not torch.allclose(logit, margin)


def test_diffgradcam_defaults_to_the_mean():
    _, target = build("diffgradcam", 3)
    assert target.aggregator == "mean"
    assert target.classes == 3


# ------------------------------------------------------------------------------ function-preserving attack


def test_a_row_fitted_to_a_mask_moves_gradcam_to_the_border():
    """Specification 13.4: probabilities and margins stay, Grad-CAM becomes the mask."""
    generator = torch.Generator().manual_seed(0)
    k, m, size = 64, 20, (5, 5)
    a = torch.rand(1, k, *size, generator=generator, dtype=torch.float64)
    border = torch.ones(size, dtype=torch.float64)
    border[1:-1, 1:-1] = 0
    head = torch.nn.Sequential(networks.Gap(), torch.nn.Linear(k, m)).double()
    networks.randomise(head, 4, 0.1)
    model = networks.Split(torch.nn.Identity(), head).eval()

    def grad(target):
        return normalise(rectify(run(GradCAM(), model, a, target)))

    before = {t: grad(LogitMargin(3, aggregator=t)) for t in AGGREGATORS}
    p = model(a).softmax(1)
    row = torch.linalg.lstsq(a[0].flatten(1).T, border.flatten()[:, None]).solution[:, 0]
    with torch.no_grad():
        head[1].weight.add_(1e5 * row)
    torch.testing.assert_close(model(a).softmax(1), p, rtol=1e-6, atol=1e-9)
    assert float((grad(Logit(3))[0] - border).square().mean()) < 1e-4
    for aggregator, expected in before.items():
        same(grad(LogitMargin(3, aggregator=aggregator)), expected, 1e-6)
