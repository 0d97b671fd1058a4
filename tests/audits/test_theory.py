"""The theory of walls: closed forms against autograd, and expectations against drawn networks."""

import math

import pytest
import torch

from camlucida import CamlucidaError, explain
from camlucida.audits.deadzone.proof import dead_zone
from camlucida.audits.theory import expectations
from camlucida.audits.theory.theorems import (
    LAYER,
    Theorem1,
    TheoryCNN,
    expected_root,
    proposition_1,
)
from camlucida.engine.tap import tap
from camlucida.targets import Logit
from reference.walls import (
    gradcam_by_loops,
    mean_scores,
    residual_features,
    root_by_integration,
)


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5), (7, 6, 5)])
@pytest.mark.parametrize("filters", [1, 4])
@pytest.mark.parametrize("dead", [0, 2])
def test_proposition_1_is_autograd_at_any_depth(hidden, filters, dead):
    for seed in range(3):
        model = TheoryCNN(
            (14, 10), filters=filters, hidden=hidden, outputs=3, dead_rows=dead, seed=seed
        ).double()
        x = torch.rand(4, 1, 14, 10, dtype=torch.float64)
        _, gradient = tap(model, x, LAYER, Logit(1)).only
        expected = gradient.mean((2, 3))
        found = proposition_1(model, x, 1)
        assert expected.abs().max() > 0 or filters == 1
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_windows_that_are_all_zero_keep_their_gradient():
    """B4: with a ReLU in front of the first dense layer this fails."""
    model = TheoryCNN((9, 9), filters=2, kernel=2, seed=1).double()
    with torch.no_grad():
        model.conv.weight.neg_().abs_().neg_()  # every window is zero
    x = torch.rand(1, 1, 9, 9, dtype=torch.float64)
    assert model.relu(model.conv(x)).abs().max() == 0
    _, gradient = tap(model, x, LAYER, Logit(0)).only
    found = proposition_1(model, x)
    assert found.abs().max() > 0
    torch.testing.assert_close(found, gradient.mean((2, 3)), rtol=0, atol=1e-15)


def test_one_dense_layer_is_the_mean_of_its_weights():
    model = TheoryCNN((8, 8), filters=3, seed=2).double()
    weights = model.dense[0].weight.detach().view(3, -1)
    found = proposition_1(model, torch.rand(1, 1, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(found[0], weights.sum(1) / 36)


def test_the_maps_dead_half_is_dead_and_gradcam_lights_it_up():
    model = TheoryCNN((14, 14), filters=16, dead_rows=3, seed=3).double()
    zone = dead_zone(model, (14, 14), draws=1)
    assert zone.rows == (8, 13)
    x = torch.rand(2, 1, 14, 14, dtype=torch.float64)
    maps = explain(model, x, method=["gradcam", "hirescam"], target=0, layers=LAYER)
    assert maps["hirescam"].raw[:, 6:].abs().max() == 0
    assert maps["gradcam"].raw[:, 6:].amax() > 0


@pytest.mark.parametrize(
    ("filters", "published"),
    [(1, 0.39894), (21, 3.14258), (32, 3.92116), (64, 5.60136), (256, 11.28606)],
)
def test_expected_root_is_the_published_table(filters, published):
    assert expected_root(filters) == pytest.approx(published, abs=6e-6)


@pytest.mark.parametrize("filters", [1, 2, 5])
def test_expected_root_by_integration(filters):
    assert expected_root(filters) == pytest.approx(root_by_integration(filters), rel=1e-6)


def test_many_filters_do_not_overflow():
    assert expected_root(4000) == pytest.approx(math.sqrt(2000), rel=1e-3)
    with pytest.raises(CamlucidaError, match="at least one filter"):
        expected_root(0)


@pytest.mark.parametrize(("filters", "ratio"), [(24, 0.121), (32, 0.270), (64, 0.491)])
def test_the_bound_is_below_the_exact_value(filters, ratio):
    theorem = Theorem1(filters=filters)
    image = torch.rand(14, 14, dtype=torch.float64)
    found = theorem.bound(image) / theorem.exact(image)
    torch.testing.assert_close(found, torch.full_like(found, float(found[0, 0])))
    assert float(found[0, 0]) == pytest.approx(ratio, abs=6e-4)


def test_samples_are_gradcam_of_random_networks():
    """The closed form that is drawn from is what the library's GradCAM gives for the same networks."""
    theorem = Theorem1(size=(10, 8), filters=5, kernel=3, pool=2)
    image = torch.rand(10, 8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    draws, total = 4, torch.zeros(8, 6, dtype=torch.float64)
    filters = torch.randn(draws, 5, 9, generator=generator, dtype=torch.float64)
    weights = torch.randn(draws, 5, 6, generator=generator, dtype=torch.float64)
    for f, w in zip(filters, weights, strict=True):
        model = TheoryCNN((10, 8), filters=5, dead_rows=2).double()
        with torch.no_grad():
            model.conv.weight.copy_(f.view(5, 1, 3, 3))
            first = model.dense[0].weight.view(5, 4, 3)
            first.zero_()
            first[:, :2] = w.view(5, 2, 3)
        library = explain(
            model, image[None, None], method="gradcam", target=0, layers=LAYER, outputs="regression"
        ).raw[0]
        slow = gradcam_by_loops(image, f, w.view(5, 2, 3), pool=2)
        torch.testing.assert_close(library, slow, rtol=1e-12, atol=1e-15)
        total += slow
    found = theorem.sample(image, draws, seed=7)
    torch.testing.assert_close(found.mean, total / draws, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("filters", [24, 32, 64])
def test_theorem_1_by_monte_carlo(filters):
    theorem = Theorem1(filters=filters)
    image = torch.rand(14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = theorem.sample(image, 3000, seed=filters)
    assert float(found.z(theorem.exact(image)).abs().max()) < 4
    assert bool((found.mean > theorem.bound(image)).all())
    # The dead half is lit as the seen one: what differs is the patch under a cell, nothing else.
    per_norm = found.mean / theorem.patch_norms(image)
    assert float(per_norm[6:].mean() / per_norm[:6].mean()) == pytest.approx(1, abs=0.1)


def test_tau_scales_the_expectation():
    image = torch.rand(14, 14, dtype=torch.float64)
    one, three = Theorem1(tau=1.0), Theorem1(tau=3.0)
    torch.testing.assert_close(three.exact(image), 9 * one.exact(image))
    torch.testing.assert_close(three.bound(image), 9 * one.bound(image))
    a, b = one.sample(image, 50, seed=1), three.sample(image, 50, seed=1)
    torch.testing.assert_close(b.mean, 9 * a.mean)


@pytest.mark.parametrize(
    "options", [{"size": (13, 13)}, {"size": (12, 12), "pool": 2}, {"size": (2, 2)}]
)
def test_theorem_1_needs_two_halves(options):
    with pytest.raises(CamlucidaError, match="even number of rows"):
        Theorem1(**options)


def test_a_pooling_that_does_not_divide_is_refused():
    with pytest.raises(CamlucidaError, match="divide"):
        TheoryCNN((14, 13))
    with pytest.raises(CamlucidaError, match="dead_rows"):
        TheoryCNN((14, 14), dead_rows=6)


def test_samples_need_a_spread_and_the_right_image():
    for image, draws in ((torch.rand(14, 14), 1), (torch.rand(14, 12), 9)):
        with pytest.raises(CamlucidaError, match="two networks"):
            Theorem1().sample(image, draws)
    for options in ({"filters": 0}, {"tau": 0.0}):
        with pytest.raises(CamlucidaError, match="filters must be"):
            Theorem1(**options)


# ---- by autograd, and for all methods ------------------------------------------------------------


def small(residual):
    return Theorem1(size=(10, 8), filters=4).network(3, residual=residual)


def test_the_residual_version_by_loops():
    model, image = small(True), torch.rand(10, 8, dtype=torch.float64)
    expected = residual_features(
        image, model.conv.weight.detach()[:, 0], model.branch.weight.detach()
    )
    activation, _ = tap(model, image[None, None], LAYER, Logit(0)).only
    torch.testing.assert_close(activation[0], expected)
    plain = small(False)
    assert torch.equal(plain.conv.weight, model.conv.weight)
    assert float(model.branch.weight.detach().std()) == pytest.approx(
        1 / 6, rel=0.3
    )  # 1 / sqrt(9 V)


@pytest.mark.parametrize("residual", [False, True])
def test_autograd_through_real_networks(residual):
    """Draws are the library's own GradCAM; their mean is Theorem 1's, and given the features for any network."""
    theorem = Theorem1(size=(10, 8), filters=4)
    image = torch.rand(10, 8, dtype=torch.float64)
    maps = [
        explain(
            theorem.network(seed, residual=residual), image[None, None], method="gradcam", target=0,
            layers=LAYER, outputs="regression",
        ).raw[0]
        for seed in range(3)
    ]  # fmt: skip
    found, _ = theorem.by_autograd(image, 3, residual=residual)
    torch.testing.assert_close(found.mean, torch.stack(maps).mean(0))
    torch.testing.assert_close(found.error, torch.stack(maps).std(0) / 3**0.5)
    found, off = theorem.by_autograd(image, 400, residual=residual)
    assert float(off.z(0).abs().max()) < 4
    exact = found.z(theorem.exact(image)).abs()
    assert float(exact.max()) < 4 or residual
    with pytest.raises(CamlucidaError, match="two networks"):
        theorem.by_autograd(image, 1)


@pytest.mark.parametrize("net", expectations.NETS)
def test_expected_scores_by_loops(net):
    found = expectations.expected_scores(net, 2, 5, lambda *_: None)
    assert set(found["methods"]) == set(expectations.METHODS)
    theorem = Theorem1()
    dead = torch.zeros(14, 14, dtype=torch.bool)
    dead[8 + expectations.NETS[net] :] = True  # the residual block sees one cell further
    for draw in (5, 6):
        model = theorem.network(draw, residual=expectations.NETS[net])
        generator = torch.Generator().manual_seed(draw)
        x = torch.rand(1, 1, 14, 14, generator=generator, dtype=torch.float64)
        a, g = tap(model, x, LAYER, Logit(0)).only
        slow = {
            "gradcam": (g.mean((2, 3), keepdim=True) * a)[0].sum(0),
            "hirescam": (g * a)[0].sum(0),
            "layercam": (g.clamp_min(0) * a)[0].sum(0),
        }
        for name, attribution in slow.items():
            values = found["methods"][name]
            expected = mean_scores(attribution.detach(), dead)
            got = values["dead"][draw - 5], values["seen"][draw - 5]
            assert got == pytest.approx(expected, abs=1e-9)
    for name, values in found["methods"].items():
        assert all(0 <= v <= 1 for key in ("dead", "seen", "mu") for v in values[key])
        if name in ("hirescam", "layercam"):
            assert values["dead"] == [0, 0]


def test_what_expected_scores_say():
    values = {
        "dead": [0.2] * 6, "seen": [0.4] * 6, "mu": [0.5] * 6, "blank": [0.0] * 6,
    }  # fmt: skip
    quiet = {**values, "dead": [0.0] * 6, "mu": [0.0] * 6}
    found = [
        {
            "net": net, "draws": 6, "zone": "rows", "uniform": 0.6,
            "methods": {m: quiet if m == "hirescam" else values for m in expectations.METHODS},
        }
        for net in expectations.NETS
    ]  # fmt: skip
    said = expectations.verdicts(found)
    assert said["gradcam"].outcome == "fail"
    assert "[CNN] 0.200" in said["gradcam"].text
    assert "residual 0.200" in said["gradcam"].text
    assert said["hirescam"].outcome == "pass"
    assert "6 networks" in said["hirescam"].text
    assert len(expectations.table(found).rows) == len(expectations.METHODS)
    assert expectations.chart(found).is_chart
