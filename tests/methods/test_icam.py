"""I-CAM against loops in float64, the constants of its equations, and its numerical traps."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from camlucida import LogitMargin, Preprocess, Probability, explain, list_layers
from camlucida.common.errors import MethodError
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import ssim
from camlucida.methods.icam import ICAM
from camlucida.methods.icam.alpha import (
    SoftmaxMoments,
    alpha,
    automatic_derivatives,
    derivatives,
    exp_derivatives,
    identity_derivatives,
    softmax_derivatives,
)
from camlucida.methods.icam.layer_map import LayerMap, entry_weights, layer_map
from camlucida.methods.icam.passes import rivals
from camlucida.methods.icam.scores import (
    distance,
    dynamic_range,
    layer_weights,
    mdd,
    mds,
    perturb,
    perturbation_weights,
    select_layers,
    svim,
)
from camlucida.studies.icam import ablation
from camlucida.targets import Custom
from reference import icam as slow

D = torch.float64
NAMES = ("first", "second")


class Net(nn.Module):
    """Two maps behind ReLUs and a mean."""

    def __init__(self, classes=4, scale=1.0):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(6, classes)
        self.scale = scale

    def parts(self, x):
        a = self.first(x)
        b = self.second(a)
        return self.scale * self.head(b.mean((2, 3))), {"first": a, "second": b}

    def forward(self, x):
        return self.parts(x)[0]


@pytest.fixture
def net():
    return Net().double().eval()


def run(net, x, method, target=None, seed=0, layers=NAMES, **more):
    return explain(net, x, method=method, target=target, layers=list(layers), seed=seed, **more)


# -------------------------------------------------------------------------------- the whole method


@pytest.mark.parametrize(
    ("bias", "form"),
    [("channel", "product_of_sums"), ("channel", "sum_of_products"), ("spatial", "product_of_sums"),
     ("none", "product_of_sums")],
)  # fmt: skip
def test_whole_method_equals_the_loops(net, bias, form):
    x = torch.randn(2, 3, 8, 10, dtype=D)
    n = 3
    found = run(net, x, ICAM(n_perturb=n, alpha=0.2, bias=bias, bias_form=form))
    generator = ImageGenerators.of(0, x)
    drawn = [
        (generator.randn(x.shape[1:], x), generator.rand((1, 8, 10), x.float())) for _ in range(n)
    ]
    for i in range(2):
        expected, scores, weights, counted = slow.icam(
            net.parts, x[i].numpy(), NAMES, [d[0][i].numpy() for d in drawn],
            [d[1][i].numpy() for d in drawn], level=0.2, bias=bias, form=form,
        )  # fmt: skip
        np.testing.assert_allclose(found.details["perturbation_weight"][i, 0], counted, rtol=1e-9)
        np.testing.assert_allclose(found.details["layer_score"][i], scores, rtol=1e-9)
        np.testing.assert_allclose(found.details["layer_weight"][i], weights, rtol=1e-9)
        np.testing.assert_allclose(found.maps[i], expected, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [{}, {"chunk": 1}, {"runs": 3, "chunk": 5}, {"score": "prob"}, {"alpha_form": "softmax_full"},
     {"ssim": "windowed", "compare_at": "layer", "normalise_terms": True, "include_original": True}],
)  # fmt: skip
def test_batch_equals_single_and_chunks_change_nothing(net, options):
    x = torch.randn(3, 3, 9, 9, dtype=D)
    method = ICAM(n_perturb=3, **options)
    whole = run(net, x, method)
    other = run(net, x, dataclasses.replace(method, chunk=16))
    torch.testing.assert_close(whole.maps, other.maps)
    for i in range(3):
        one = run(net, x[i : i + 1], method)
        torch.testing.assert_close(one.maps[0], whole.maps[i])
        for name, detail in one.details.items():
            torch.testing.assert_close(detail[0], whole.details[name][i], msg=name)


def test_seed_fixes_the_draws_and_more_copies_start_with_the_same(net):
    x = torch.randn(1, 3, 8, 8, dtype=D)
    a, b = (run(net, x, ICAM(n_perturb=n)).details["ssim"] for n in (3, 6))
    torch.testing.assert_close(a[..., :3], b[..., :3])
    assert not torch.equal(a, run(net, x, ICAM(n_perturb=3), seed=1).details["ssim"])
    torch.testing.assert_close(a, run(net, x, ICAM(n_perturb=3)).details["ssim"])


def test_runs_average_and_tell_their_spread(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    found = run(net, x, ICAM(runs=4, n_perturb=2, bias="none", coverage=1.0))
    d = found.details
    torch.testing.assert_close(d["layer_weight"], d["run_weight"].mean(1))
    torch.testing.assert_close(d["layer_score_std"], d["run_score"].std(1))
    assert d["map_std"].shape == found.maps.shape
    assert (d["map_std"] > 0).any()
    expected = sum(
        d["layer_weight"][:, i, None, None]
        * torch.nn.functional.interpolate(
            found.layer_maps[n][:, None], size=(8, 8), mode="bilinear"
        )[:, 0]
        for i, n in enumerate(NAMES)
    )
    torch.testing.assert_close(found.signed, expected)
    assert "map_std" not in run(net, x, ICAM(n_perturb=1)).details


def test_passes_are_one_for_the_image_and_one_for_each_copy(net):
    seen = []
    x = torch.randn(2, 3, 8, 8, dtype=D)
    list_layers(net, x)
    handle = net.head.register_forward_hook(lambda *seen_by: seen.append(len(seen_by[2])))
    method = ICAM(n_perturb=8, chunk=64)
    run(net, x, method)  # looks at the outputs once
    seen.clear()
    run(net, x, method)
    handle.remove()
    assert seen == [2, 16]
    assert sum(seen) == 2 * method.passes


# ------------------------------------------------------------------------------------ perturbation


@pytest.mark.parametrize("convention", ["keep", "remove"])
def test_perturb_equals_the_loops(convention):
    x = torch.randn(2, 3, 5, 6, dtype=D)
    noise, uniform = (
        (g := ImageGenerators.of(3, x)).randn(x.shape[1:], x), g.rand((1, 5, 6), x.float())
    )  # fmt: skip
    found = perturb(x, ImageGenerators.of(3, x), alpha=0.3, mask_convention=convention)
    for i in range(2):
        expected = slow.perturbed(
            x[i].numpy(), noise[i].numpy(), uniform[i].numpy(), 0.3, convention
        )
        np.testing.assert_allclose(found[i], expected)


def test_kept_share_is_one_minus_alpha_by_default():
    x = torch.ones(1, 1, 200, 200)
    shares = {
        c: float(
            (perturb(x, ImageGenerators.of(0, x), alpha=0.4, mask_convention=c) != 0).float().mean()
        )
        for c in ("keep", "remove")
    }
    assert shares["keep"] == pytest.approx(0.6, abs=0.02)
    assert shares["remove"] == pytest.approx(0.4, abs=0.02)


def test_ssim_equals_the_loops_and_is_one_for_equal_images():
    x, y = torch.randn(2, 2, 3, 6, 5, dtype=D)
    extent = dynamic_range(x)
    expected = [
        slow.ssim(a.numpy(), b.numpy(), float(r)) for a, b, r in zip(x, y, extent, strict=True)
    ]
    np.testing.assert_allclose(ssim(x, y, extent), expected)
    torch.testing.assert_close(ssim(x, x, extent), torch.ones(2, dtype=D))
    torch.testing.assert_close(ssim(x, x, extent, how="windowed"), torch.ones(2, dtype=D))


def test_windowed_ssim_equals_direct_sums():
    x, y = torch.rand(2, 1, 1, 13, 12, dtype=D)
    offsets = np.arange(11) - 5
    g = np.exp(-0.5 * (offsets / 1.5) ** 2)
    w = np.outer(g, g) / g.sum() ** 2
    values = []
    for i, j in itertools.product(range(3), range(2)):
        a, b = (t[0, 0].numpy()[i : i + 11, j : j + 11] for t in (x, y))
        ma, mb = (w * a).sum(), (w * b).sum()
        va, vb, cov = (
            (w * (a - ma) ** 2).sum(),
            (w * (b - mb) ** 2).sum(),
            (w * (a - ma) * (b - mb)).sum(),
        )
        values.append(
            (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
        )
    assert float(ssim(x, y, 1.0, how="windowed")) == pytest.approx(np.mean(values))


def test_constant_images_have_finite_ssim():
    x = torch.ones(1, 3, 4, 4)
    assert dynamic_range(x) == 1
    assert ssim(x, x, dynamic_range(x)) == 1


def test_input_space_lies_near_the_bell_centre_and_pixel_space_does_not():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    copy = perturb(x, ImageGenerators.of(0, x))
    removed = perturb(x, ImageGenerators.of(0, x), mask_convention="remove")
    assert float(ssim(x, copy, dynamic_range(x))) == pytest.approx(0.72, abs=0.03)
    assert float(ssim(x, removed, dynamic_range(x))) == pytest.approx(0.57, abs=0.03)


@pytest.mark.parametrize(
    ("sigma", "at_ends"), [(1 / 6, 0.011), (0.15, 0.004), (0.25, 0.135), (0.5, 0.607)]
)
def test_svim_of_the_ends(sigma, at_ends):
    ends = svim(torch.tensor([0.0, 0.5, 1.0], dtype=D), sigma)
    np.testing.assert_allclose(ends, [at_ends, 1, at_ends], atol=5e-4)
    assert float(ends[0]) == pytest.approx(slow.svim(0.0, sigma))


def test_mdd_is_half_the_jeffreys_divergence():
    a, b = torch.randn(2, 3, 7, dtype=D)
    for i in range(3):
        p, q = slow.softmax(a[i].numpy()), slow.softmax(b[i].numpy())
        assert float(mdd(a, b)[i]) == pytest.approx(slow.mdd(p, q))
        assert float(mdd(a, b)[i]) == pytest.approx(0.5 * (slow.kl(p, q) + slow.kl(q, p)))
    assert (mdd(a, a) == 0).all()


def test_mds_of_minus_2_4_is_clamped_and_its_weight_is_0():
    # Two classes, p = sigmoid(t) and its mirror: MDD = (2p - 1) t.
    t = torch.tensor(3.5, dtype=D)
    for _ in range(60):
        p = t.sigmoid()
        t = t - ((2 * p - 1) * t - 3.4) / (2 * p - 1 + 2 * t * p * (1 - p))
    a, b = torch.tensor([[float(t), 0.0]], dtype=D), torch.tensor([[0.0, float(t)]], dtype=D)
    raw = mds(a, b, clamp=False)
    assert float(raw) == pytest.approx(-2.4)
    assert mds(a, b) == 0
    bell = torch.tensor([0.5, 0.9], dtype=D)
    assert perturbation_weights(bell, torch.cat([mds(a, b), torch.ones(1, dtype=D)]))[0] == 0
    assert perturbation_weights(bell, torch.cat([raw, torch.ones(1, dtype=D)]))[0].isnan()


def test_mdd_is_finite_for_disjoint_outputs():
    a, b = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert float(mdd(a, b)) == pytest.approx(-math.log(1e-12), rel=1e-5)


def test_all_zero_weights_become_uniform_one_by_one():
    s, m = torch.ones(2, 3), torch.tensor([[0.0, 0, 0], [0, 1, 0]])
    assert perturbation_weights(s, m).tolist() == [[1, 1, 1], [0, 1, 0]]


# -------------------------------------------------------------------------------------- the layers


def test_example_of_the_95_percent_filter():
    scores = torch.tensor([5, 1, 3, 0.2, 0.8], dtype=D)
    kept = select_layers(scores)
    assert kept.nonzero()[:, 0].tolist() == [0, 1, 2, 4]
    found = layer_weights(scores, kept)
    np.testing.assert_allclose(found, [0.5102, 0.1020, 0.3061, 0, 0.0816], atol=5e-5)
    np.testing.assert_allclose(found, slow.layer_weights(scores.tolist()))


def test_filter_reaches_the_share_exactly_and_keeps_the_order_of_ties():
    # 19 of 20 equal scores are exactly 95 %, which float sums miss.
    scores = torch.full((20,), 0.1, dtype=D)
    kept = select_layers(scores)
    assert kept.tolist() == [True] * 19 + [False]
    assert select_layers(torch.tensor([1.0, 2, 2, 2]), 0.5).tolist() == [False, True, True, False]
    assert select_layers(scores, 1.0).all()


def test_all_scores_zero_keeps_all_uniformly():
    scores = torch.zeros(2, 4, dtype=D)
    scores[1, 2] = 1
    kept = select_layers(scores)
    assert kept.tolist() == [[True] * 4, [False, False, True, False]]
    assert layer_weights(scores, kept).tolist() == [[0.25] * 4, [0, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(20))
def test_filter_equals_the_loops(seed):
    scores = np.random.default_rng(seed).gamma(0.5, size=9)
    t = torch.from_numpy(scores)
    np.testing.assert_allclose(layer_weights(t, select_layers(t)), slow.layer_weights(list(scores)))


def test_distance_at_the_layer_averages_the_input_and_normalised_terms_ignore_scale():
    a, b = torch.rand(2, 4, 6, dtype=D), torch.rand(2, 2, 3, dtype=D)
    pooled = a.reshape(2, 2, 2, 3, 2).mean((2, 4))
    torch.testing.assert_close(
        distance(a, b, compare_at="layer"), (pooled - b).square().sum((1, 2)).sqrt()
    )
    torch.testing.assert_close(
        distance(a, b, normalise_terms=True), distance(7 * a, 0.1 * b, normalise_terms=True)
    )


def test_include_original_adds_the_image_itself(net):
    x = torch.randn(1, 3, 8, 8, dtype=D)
    a, b = (run(net, x, ICAM(include_original=o)).details["layer_score"] for o in (False, True))
    x0 = x.clone().requires_grad_()
    logits, maps = net.parts(x0)
    grads = torch.autograd.grad(logits.max(), [x0, *maps.values()])
    for i, (activation, gradient) in enumerate(zip(maps.values(), grads[1:], strict=True)):
        d = slow.distance(
            x[0].numpy(), grads[0][0].numpy(), activation[0].detach().numpy(), gradient[0].numpy()
        )
        assert float(b[0, i] - a[0, i]) == pytest.approx(math.sqrt(slow.svim(1.0)) * d)


def test_layer_behind_the_target_scores_0():
    class Blind(Net):
        def forward(self, x):
            _, maps = self.parts(x)
            return maps["first"].mean((2, 3)) + 0 * maps["second"].mean()

    found = run(Blind().double().eval(), torch.randn(1, 3, 8, 8, dtype=D), ICAM())
    assert found.details["layer_score"][0, 1] == 0
    assert found.details["layer_weight"].tolist() == [[1, 0]]
    assert any("second" in m for m in found.diagnostics[0].messages)


# ------------------------------------------------------------------------------------------- alpha


@pytest.mark.parametrize("y", [1e-9, 0.1, 0.2113, 0.4, 0.5, 0.7, 0.9, 1 - 1e-9])
def test_softmax_derivatives_are_the_printed_ones(y):
    margin = torch.tensor([math.log(y / (1 - y))], dtype=D)
    f = softmax_derivatives(margin)
    found = [float(f.first), float(f.first * f.second), float(f.first * f.third)]
    np.testing.assert_allclose(found, slow.softmax_derivatives(y), rtol=1e-6, atol=1e-15)


def test_softmax_derivatives_equal_autograd_of_the_softmax_in_one_logit():
    z = torch.randn(5, dtype=D)
    s = z[2].clone().requires_grad_()
    value = torch.cat([z[:2], s[None], z[3:]]).softmax(0)[2]
    expected = []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, s, create_graph=True)
        expected.append(float(value.detach()))
    others = torch.cat([z[:2], z[3:]]).logsumexp(0)
    f = derivatives("softmax", z[2:3], z[2:3] - others)
    found = [float(f.first), float(f.first * f.second), float(f.first * f.third)]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [("sigmoid", torch.sigmoid), ("exp", torch.exp), ("identity", lambda s: s)],
)
def test_named_functions_equal_the_automatic_derivatives(name, function):
    s = torch.tensor([-1.3, 0.2, 2.0], dtype=D)
    a, b = derivatives(name, s, s), automatic_derivatives(function, s)
    for one, other in zip(vars(a).values(), vars(b).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_alpha_equals_the_loops():
    a, g = torch.rand(2, 3, 4, 5, dtype=D), torch.randn(2, 3, 4, 5, dtype=D)
    y = torch.tensor([0.3, 0.9], dtype=D)
    found = alpha(a, g, softmax_derivatives(y.logit()))
    for i in range(2):
        _, d2, d3 = slow.softmax_derivatives(float(y[i]))
        np.testing.assert_allclose(
            found[i], slow.alpha(a[i].numpy(), g[i].numpy(), d2, d3), rtol=1e-9
        )


def test_exp_alpha_is_that_of_gradcampp_and_identity_gives_0():
    a, g = torch.rand(1, 3, 4, 4, dtype=D), torch.rand(1, 3, 4, 4, dtype=D)
    s = torch.tensor([1.0], dtype=D)
    expected = 1 / (2 + g * a.sum((2, 3), keepdim=True))
    torch.testing.assert_close(alpha(a, g, exp_derivatives(s)), expected)
    assert (alpha(a, g, identity_derivatives(s)) == 0).all()


@pytest.mark.parametrize(
    ("y", "bounded"),
    [(0.01, True), (0.21, True), (0.2117, False), (0.49, False), (0.51, True), (0.78, True),
     (0.7890, False), (0.999, False)],
)  # fmt: skip
def test_pole_bands_of_alpha(y, bounded):
    g = torch.logspace(-4, 5, 4000, dtype=D).reshape(1, 4000, 1, 1)
    found = alpha(torch.ones_like(g), g, softmax_derivatives(torch.tensor([y], dtype=D).logit()))
    assert bool(((found > 0) & (found <= 0.5)).all()) is bounded
    assert bool((found < 0).any()) is not bounded


def test_pole_lies_at_2_for_saturated_y_and_is_infinite():
    f = softmax_derivatives(torch.tensor([200.0], dtype=D))
    g = torch.tensor([2.0], dtype=D).reshape(1, 1, 1, 1)
    found = alpha(torch.ones_like(g), g, f)
    assert found == torch.inf
    assert entry_weights(found, g) == g


def test_y_one_half_gives_0_also_where_the_sum_is_0():
    f = softmax_derivatives(torch.zeros(1, dtype=D))
    g = torch.ones(1, 2, 2, 2, dtype=D)
    assert (alpha(g, g, f) == 0).all()
    assert (alpha(0 * g, g, f) == 0).all()


def test_cancelled_form_is_right_where_equation_30_is_0_by_0():
    margin = torch.tensor([90.0, -90.0])
    y = margin.sigmoid()
    assert (y * (1 - 3 * y + 2 * y**2))[0] == 0  # eq. 30 literally
    found = alpha(
        torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 0.1), softmax_derivatives(margin)
    )
    np.testing.assert_allclose(found.flatten(), [1 / (2 - 0.3), 1 / (2 + 0.3)], rtol=1e-6)


def test_softmax_full_equals_autograd_entry_by_entry():
    w = torch.randn(4, 2 * 2 * 2, dtype=D)
    a = torch.rand(1, 2, 2, 2, dtype=D, requires_grad=True)
    logits = a.flatten(1) @ w.T
    p, c = logits.softmax(1)[0], 1
    moments = SoftmaxMoments.like(a.detach())
    for j in (0, 2, 3):
        delta = (w[j] - w[c]).view_as(a)
        moments.add(torch.tensor([0]), p.detach()[j : j + 1], delta)
    found = [float(p[c].detach()) * d.flatten() for d in moments.derivatives()]
    for entry in range(8):
        value, expected = p[c], []
        for _ in range(3):
            (grad,) = torch.autograd.grad(value, a, create_graph=True)
            value = grad.flatten()[entry]
            expected.append(float(value.detach()))
        np.testing.assert_allclose(
            [float(f[entry]) for f in found], expected, rtol=1e-9, atol=1e-14
        )


def test_softmax_full_runs_through_the_network_and_literal_differs(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    full = run(net, x, ICAM(alpha_form="softmax_full", softmax_mass=1.0, bias="none"))
    assert not torch.allclose(full.maps, run(net, x, ICAM(bias="none")).maps)
    a = net.parts(x)[1]["second"].detach().requires_grad_()
    logits = net.head(a.mean((2, 3)))
    c = logits.argmax(1)
    p = logits.softmax(1).gather(1, c[:, None]).sum()
    (g,) = torch.autograd.grad(p, a, create_graph=True)
    second, third = torch.zeros_like(a), torch.zeros_like(a)
    for k, i, j in itertools.product(*map(range, a.shape[1:])):
        (row,) = torch.autograd.grad(g[:, k, i, j].sum(), a, create_graph=True)
        second[:, k, i, j] = row[:, k, i, j].detach()
        (row,) = torch.autograd.grad(row[:, k, i, j].sum(), a, retain_graph=True)
        third[:, k, i, j] = row[:, k, i, j].detach()
    weight = second / (2 * second + third * a.sum((2, 3), keepdim=True))
    expected = (entry_weights(weight, g) * a).sum(1)
    torch.testing.assert_close(full.layer_maps["second"], expected.detach())


def test_softmax_full_needs_a_class(net):
    with pytest.raises(MethodError, match="needs a class"):
        run(net, torch.randn(1, 3, 8, 8, dtype=D), ICAM(alpha_form="softmax_full"), LogitMargin())


def test_rivals_hold_the_mass_and_one_always_counts():
    p = torch.tensor([[0.6, 0.3, 0.1, 0.0], [0.0, 1.0, 0.0, 0.0]], dtype=D)
    own = torch.tensor([0, 1])
    assert rivals(p, own, 0.85).tolist() == [[0, 1], [1, 0]]
    assert rivals(p, own, 0.95).tolist() == [[0, 1], [0, 2], [1, 0]]


# ------------------------------------------------------------------------------- map, bias, fusion


@pytest.mark.parametrize("bias", ["channel", "spatial", "none"])
@pytest.mark.parametrize("form", ["product_of_sums", "sum_of_products"])
def test_layer_map_equals_the_loops(bias, form):
    a, g = torch.rand(1, 3, 4, 5, dtype=D), torch.randn(1, 3, 4, 5, dtype=D)
    y, s = 0.7, 2.5
    f = softmax_derivatives(torch.tensor([y], dtype=D).logit())
    weight = alpha(a, g, f)
    found = layer_map(
        a, entry_weights(weight, g), torch.tensor([s], dtype=D), f.first, bias=bias, bias_form=form
    )
    d1, d2, d3 = slow.softmax_derivatives(y)
    loops = slow.alpha(a[0].numpy(), g[0].numpy(), d2, d3)
    expected = slow.layer_map(a[0].numpy(), g[0].numpy(), loops, d1, s, bias, form)
    np.testing.assert_allclose((found.values + found.constant)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("layer_normalise", ["none", "minmax"])
def test_channel_bias_does_nothing_under_minmax(net, layer_normalise):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    maps = [
        run(net, x, ICAM(bias=b, layer_normalise=layer_normalise)).maps for b in ("channel", "none")
    ]
    assert torch.equal(*maps)


def test_float32_would_swallow_the_map_under_its_bias():
    torch.manual_seed(0)
    a, g = torch.rand(1, 2048, 7, 7), torch.randn(1, 2048, 7, 7) / 49 * 0.03
    s = torch.tensor([20.0], dtype=D)
    f = softmax_derivatives(torch.tensor([1 - 1e-3], dtype=D).logit())
    found = layer_map(a, entry_weights(alpha(a, g, f), g), s, f.first)
    assert abs(float(found.constant)) > 3e4
    added = found.values.float() + found.constant.float()
    assert len(added.unique()) <= 2  # what adding it in single precision leaves
    assert len(found.values.float().unique()) == 49


def test_spatial_bias_opposes_the_unbiased_map():
    torch.manual_seed(0)
    a, g = torch.rand(1, 64, 7, 7, dtype=D), torch.rand(1, 64, 7, 7, dtype=D)
    maps = [
        layer_map(a, g, torch.ones(1, dtype=D), torch.ones(1, dtype=D), bias=b).values.flatten()
        for b in ("none", "spatial")
    ]
    assert float(torch.corrcoef(torch.stack(maps))[0, 1]) < -0.4


def test_constant_takes_part_in_relu_and_max():
    values = torch.tensor([[[-2.0, 0.0, 4.0]]], dtype=D)
    constant = torch.tensor([1.0], dtype=D)
    one = LayerMap(values, constant)
    both = one.rectified()
    assert (both.values + both.constant).tolist() == [[[0, 1, 5]]]
    top = one.normalised("max")
    torch.testing.assert_close(top.values + top.constant, (values + 1) / 5)
    assert one.normalised("minmax").constant == 0
    low = LayerMap(values, torch.tensor([-9.0], dtype=D)).normalised("max")
    assert not low.values.any()
    assert low.constant == 0
    assert (
        not LayerMap(values, torch.tensor([-9.0], dtype=D))
        .rectified()
        .normalised("max")
        .values.any()
    )


def test_plain_alpha_and_one_layer_is_layercam(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    method = ICAM(alpha_form="none", bias="none", relu=True)
    a = run(net, x, method, layers=["second"])
    b = explain(net, x, method="layercam", layers="second")
    torch.testing.assert_close(a.maps, b.maps)


def test_uniform_weighting_averages_the_kept_layers(net):
    found = run(
        net, torch.randn(1, 3, 8, 8, dtype=D), ICAM(layer_weighting="uniform", coverage=1.0)
    )
    assert found.details["layer_weight"].tolist() == [[0.5, 0.5]]


# --------------------------------------------------------------------------- targets and functions


def test_probability_stands_for_its_logit_and_values_stay_the_users(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    a, b = run(net, x, ICAM(), 1), run(net, x, ICAM(), Probability(1))
    torch.testing.assert_close(a.maps, b.maps)
    torch.testing.assert_close(b.target_values, net(x).softmax(1)[:, 1].detach())


def test_target_without_classes_uses_its_sigmoid(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    found = run(net, x, ICAM(score="prob"), Custom(lambda z: z[:, 0] - z[:, 1]))
    expected = (net(x)[:, 0] - net(x)[:, 1]).sigmoid()
    torch.testing.assert_close(found.details["probability"], expected.detach())
    # A two-class softmax of the same margin has the same outputs and the same Y.
    two = Net(2).double().eval()
    margin = {
        f"head.{name}": torch.stack([p[0] - p[1], 0 * p[0]]).detach()
        for name, p in net.head.named_parameters()
    }
    two.load_state_dict({**net.state_dict(), **margin})
    torch.testing.assert_close(run(two, x, ICAM(score="prob"), 0).maps, found.maps)


def test_prob_score_is_the_gradient_of_the_probability(net):
    x = torch.randn(1, 3, 8, 8, dtype=D)
    a, b = (run(net, x, ICAM(score=s)).details["layer_score"] for s in ("logit", "prob"))
    assert not torch.allclose(a, b)


def test_any_smooth_function_serves(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    a, b = run(net, x, ICAM(function=torch.sigmoid)), run(net, x, ICAM(function="sigmoid"))
    torch.testing.assert_close(a.maps, b.maps)
    falling = run(net, x, ICAM(function=lambda s: torch.exp(-s), bias="none"))
    assert falling.diagnostics[0].finite
    assert a.record()["provenance"]


# ------------------------------------------------------------------------------------------- traps


def test_pixel_space_needs_preprocessing_and_equals_input_space_for_the_identity(net):
    x = torch.rand(1, 3, 8, 8, dtype=D)
    method = ICAM(perturb_space="pixel")
    with pytest.raises(MethodError, match="pixel"):
        run(net, x, method)
    plain = Preprocess(size=(8, 8), resize=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    a, b = run(net, x, method, preprocess=plain), run(net, x, ICAM(), preprocess=plain)
    torch.testing.assert_close(a.details["mds"], b.details["mds"])
    assert not torch.equal(a.details["ssim"], b.details["ssim"])  # R = 1, not max - min


def test_saturated_softmax_keeps_its_map_and_says_so_where_it_cannot():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 8)
    net = Net(scale=1.0).eval()
    normal = run(net, x, ICAM(bias="none", drop_common_factor=True))
    assert normal.maps.any()
    net.scale = 30 / float(net(x).sort(1).values.diff()[0, -1])
    found = run(net, x, ICAM(bias="none"))
    assert float(net(x).softmax(1).max()) == 1.0
    assert found.maps.any()
    net.scale *= 20
    lost = run(net, x, ICAM(bias="none"))
    assert not lost.maps.any()
    assert any("drop_common_factor" in m for m in lost.diagnostics[0].messages)
    assert run(net, x, ICAM(bias="none", drop_common_factor=True)).maps.any()


def test_identity_and_y_one_half_are_said_to_be_empty(net):
    x = torch.randn(1, 3, 8, 8, dtype=D)
    found = run(net, x, ICAM(function="identity", bias="none"))
    assert not found.maps.any()
    assert any("factor alpha is 0" in m for m in found.diagnostics[0].messages)


def test_hopeless_copies_are_counted_alike_and_it_is_said(net):
    # Copies are all black (alpha = 1), and a black image is another class.
    x = torch.randn(1, 3, 8, 8, dtype=D)
    with torch.no_grad():
        for bias in (net.first[0].bias, net.second[0].bias, net.head.bias):
            bias.zero_()
        net.head.bias[int(net(x).argmin())] = 1e-3
    net.scale = 1e6
    found = run(net, x, ICAM(alpha=1.0))
    assert (found.details["perturbation_weight"] == 1).all()
    assert any("weight is 0" in m for m in found.diagnostics[0].messages)
    raw = run(net, x, ICAM(alpha=1.0, mds_clamp=False))
    assert not raw.diagnostics[0].finite
    assert any("mds_clamp" in m for m in raw.diagnostics[0].messages)


@pytest.mark.parametrize("scale", [torch.nan, 1e30])
def test_no_share_of_what_is_no_number_is_told(scale):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    found = explain(model.eval(), scale * torch.rand(1, 3, 8, 8), method="icam", n_perturb=2)
    assert found.diagnostics[0].messages
    assert not any("nan" in message for message in found.diagnostics[0].messages)


def test_pole_is_told(net):
    net.scale = 300.0
    x = torch.randn(4, 3, 8, 8, dtype=D)
    found = run(net, x, ICAM())
    said = [any("counted against it" in m for m in d.messages) for d in found.diagnostics]
    shares = (found.details["layer_weight"] * found.details["pole_share"]).sum(1)
    assert said == (shares > 0.01).tolist()
    assert any(said)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bias": "both"}, "bias"), ({"n_perturb": 0}, "n_perturb"), ({"alpha": 1.5}, "alpha"),
     ({"function": "tanh"}, "function"), ({"coverage": 0}, "coverage"), ({"svim_sigma": 0}, "svim_sigma"),
     ({"chunk": 0}, "chunk"), ({"layer_normalise": "l2"}, "layer_normalise")],
)  # fmt: skip
def test_wrong_options_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        ICAM(**options)


def test_zero_image_and_zero_head_are_finite(net):
    zero = run(net, torch.zeros(1, 3, 8, 8, dtype=D), ICAM())
    assert zero.maps.isfinite().all()
    nn.init.zeros_(net.head.weight)
    empty = run(net, torch.randn(1, 3, 8, 8, dtype=D), ICAM())
    assert not empty.maps.any()
    assert any("averaged" in m for m in empty.diagnostics[0].messages)


def test_classes_per_image_are_divided_with_the_images(net):
    x = torch.randn(5, 3, 8, 8, dtype=D)
    classes = [0, 1, 2, 3, 0]
    whole = run(net, x, ICAM(chunk=2, n_perturb=2), classes)
    assert whole.target.classes.tolist() == classes
    one = run(net, x[3:4], ICAM(n_perturb=2), 3)
    torch.testing.assert_close(whole.maps[3], one.maps[0])


# ---------------------------------------------------------------------------------------- ablation


def test_ablation_measures_what_differs_and_proves_what_does_not(net):
    x = torch.randn(2, 3, 8, 8, dtype=D)
    table = ablation(net, x, layers=list(NAMES), method=ICAM(n_perturb=2))
    rows = {(r.part, r.setting): r for r in table.rows}
    equal = rows["bias", "bias=none"]
    assert (equal.correlation, equal.mse) == (1, 0)
    assert "proof" in equal.proof
    assert rows["bias", "bias=spatial"].mse > 0
    assert rows["alpha", "function=identity"].empty == 2
    assert rows["copies", "n_perturb=16"].passes == 17
    assert ("copies", "n_perturb=2") not in rows
    assert table.to_dict()["images"] == 2
    assert table.__rich__().row_count == len(table.rows)
    with pytest.raises(MethodError, match="unknown part"):
        ablation(net, x, parts=["colour"])


def test_ablation_measures_the_channel_bias_where_it_counts(net):
    x = torch.randn(1, 3, 8, 8, dtype=D)
    method = ICAM(n_perturb=2, relu=True)
    table = ablation(net, x, layers=list(NAMES), method=method, parts=["bias"])
    assert not any(row.proof for row in table.rows[1:])
