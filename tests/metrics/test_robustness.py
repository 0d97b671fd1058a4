"""Sensitivity and infidelity: slow loops, captum, closed forms, and the user's model left alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import camlucida
from camlucida import CamlucidaError, Preprocess
from camlucida.common.seeds import ImageGenerators
from camlucida.metrics import Infidelity, SensitivityMax, infidelity, sensitivity_max
from camlucida.metrics.robustness import streams
from reference import metrics_robustness as slow
from reference import scenes
from reference.scenes import part, scene_of
from reference.state import differences, snapshot

PIXELS = Preprocess(size=(9, 10), resize=None, mean=(0.4, 0.5, 0.3), std=(0.2, 0.25, 0.3))


def explained(scene, method="gradcam", **options):
    return scenes.explained(scene, method, **options)


@torch.enable_grad()
def gradients(model, x, c):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(model(x)[:, c].sum(), x)
    return g


# ------------------------------------------------------------------------------------------ sensitivity


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "saliency"])
def test_sensitivity_is_the_loop(method):
    scene = scene_of()
    options = {} if method != "saliency" else {"layers": None}
    found = explained(scene, method, **options)
    values = SensitivityMax(samples=3).measure(scene, found).values["sensitivity_max"]
    for i, x in enumerate(scene.inputs):
        c = int(scene.classes[i])

        def again(y, c=c):
            kept = {"layers": "features"} if method != "saliency" else {}
            return camlucida.explain(scene.model, y, method=method, target=c, **kept).maps

        expected = slow.sensitivity(again, x[None], 0.02, 3, streams(part(scene, i)))
        assert values[i].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("image", range(3))
def test_sensitivity_is_captums(image):
    captum = pytest.importorskip("captum.metrics")
    scene = scene_of()
    x = scene.inputs[image : image + 1]
    g = ImageGenerators.of(5, x)
    drawn = torch.cat([g.rand(x.shape[1:], x) * 2 - 1 for _ in range(6)])
    theirs = captum.sensitivity_max(
        lambda y: (gradients(scene.model, y[0] if isinstance(y, tuple) else y, 1),),
        x,
        perturb_func=lambda y: y + 0.3 * drawn,
        n_perturb_samples=6,
    )
    ours = sensitivity_max(
        lambda y: gradients(scene.model, y, 1),
        x,
        gradients(scene.model, x, 1),
        ImageGenerators.of(5, x),
        radius=0.3,
        samples=6,
    )
    torch.testing.assert_close(ours, theirs.double())


def test_sensitivity_closed_forms():
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    g = ImageGenerators.of(0, x)
    still = sensitivity_max(lambda y: torch.ones_like(y[:, 0]), x, torch.ones(2, 4, 5), g)
    assert still.tolist() == [0, 0]
    blank = sensitivity_max(lambda y: y[:, 0], x, torch.zeros(2, 4, 5), g)
    assert blank.isnan().all()
    # The explanation is the image: it moves at most by the radius in every pixel.
    moved = sensitivity_max(lambda y: y, x, x, g, radius=0.1, samples=20)
    bound = 0.1 * math.sqrt(60) / x.flatten(1).norm(dim=1)
    assert (moved <= bound).all()
    assert (moved > 0.5 * bound).all()


def test_more_samples_never_find_less():
    scene = scene_of()
    found = explained(scene)
    few, many = (
        SensitivityMax(samples=n).measure(scene, found).values["sensitivity_max"] for n in (2, 5)
    )
    assert (few <= many).all()
    assert (few < many).any()


def test_radius_in_pixels_is_that_over_the_standard_deviation():
    same = replace(PIXELS, std=(0.5, 0.5, 0.5))
    scene = scene_of(preprocess=same)
    found = explained(scene, preprocess=same)
    pixel = SensitivityMax(radius=0.02, samples=2, space="pixel").measure(scene, found)
    inputs = SensitivityMax(radius=0.04, samples=2).measure(scene, found)
    torch.testing.assert_close(
        pixel.values["sensitivity_max"], inputs.values["sensitivity_max"], rtol=1e-9, atol=0
    )


def test_the_same_method_target_layers_and_steps_explain_again():
    scene = scene_of()
    target = camlucida.LogitMargin([2, 0, 1], aggregator="max")
    found = explained(scene, "xgradcam", norm="l1", target=target, steps="signed")
    assert (found.maps < 0).any()
    radius_zero = SensitivityMax(radius=0, samples=1).measure(scene, found)
    assert radius_zero.values["sensitivity_max"].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------------ infidelity


@pytest.mark.parametrize("perturbation", ["square", "noisy_baseline"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("preprocess", [None, PIXELS])
def test_infidelity_is_the_loop(perturbation, scale, preprocess):
    scene = scene_of(preprocess=preprocess, seed=3)
    found = explained(scene)
    metric = Infidelity(perturbation=perturbation, samples=5, scale=scale)
    values = metric.measure(scene, found).values["infidelity"]
    images = scene.inputs if preprocess is None else preprocess.denormalise(scene.inputs)
    for i, x in enumerate(images):

        def f(y, i=i):
            y = y if preprocess is None else preprocess.normalise(y)
            with torch.no_grad():
                return scene.model(y)[0, scene.classes[i]].item()

        # The stream belongs to the input, whatever space the perturbation lives in.
        g = streams(part(scene, i))
        attribution = found.maps[i].numpy()
        expected = slow.infidelity(f, x[None], attribution, perturbation, 5, g, scale)
        assert values[i].item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", ["square", "noisy_baseline"])
def test_infidelity_is_captums(kind, normalise):
    captum = pytest.importorskip("captum.metrics")
    scene = scene_of(n=1)
    x, attribution = scene.inputs, gradients(scene.model, scene.inputs, 1)
    g = ImageGenerators.of(0, x)
    drawn = [(slow.squares if kind == "square" else slow.noisy)(x, g) for _ in range(7)]
    changes = torch.stack([torch.as_tensor(c).expand(3, 9, 10) for c, _ in drawn])
    perturbed = torch.cat([y for _, y in drawn])
    with torch.no_grad():
        theirs = captum.infidelity(
            lambda y: scene.model(y)[:, 1],
            lambda _: (changes, perturbed),
            x,
            attribution,
            n_perturb_samples=7,
            normalize=normalise,
        )
        ours = infidelity(
            lambda y, _: scene.model(y)[:, 1],
            x,
            attribution,
            ImageGenerators.of(0, x),
            perturbation=kind,
            samples=7,
        )
    torch.testing.assert_close(ours.scaled if normalise else ours.plain, theirs.double())


class Linear(nn.Module):
    """f(x) is the sum of weights times pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 9, 10, dtype=torch.float64))

    def forward(self, x):
        total = (x * self.weight).flatten(1).sum(1)
        return torch.stack([total, -total], dim=1)


def test_the_gradient_of_a_linear_model_is_perfect():
    model, x = Linear(), torch.rand(2, 3, 9, 10, dtype=torch.float64)

    def score(y, _):
        return model(y)[:, 0].detach()

    weights = model.weight.detach().expand(2, 3, 9, 10)
    kinds = {"noisy_baseline": weights, "square": weights * x}
    for kind, perfect in kinds.items():
        found, doubled = (
            infidelity(score, x, m, ImageGenerators.of(0, x), perturbation=kind, samples=9)
            for m in (perfect, 2 * perfect)
        )
        assert found.plain.tolist() == pytest.approx([0, 0], abs=1e-9)
        assert found.beta.tolist() == pytest.approx([1, 1])
        assert doubled.scaled.tolist() == pytest.approx([0, 0], abs=1e-9)
        torch.testing.assert_close(doubled.plain, doubled.actual)  # twice the drop is as far off
        assert found.unexplained.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_a_blank_map_explains_nothing():
    scene = scene_of()
    found = replace(explained(scene), maps=torch.zeros(3, 9, 10, dtype=torch.float64))
    values = Infidelity(samples=5).measure(scene, found).values
    assert (values["infidelity"] > 0).all()
    assert values["infidelity_relative"].tolist() == [1, 1, 1]


def test_a_target_that_never_changes_has_no_relative_infidelity():
    x = torch.rand(2, 3, 9, 10, dtype=torch.float64)
    found = infidelity(lambda y, _: y.new_ones(len(y)), x, x[:, 0], ImageGenerators.of(0, x))
    assert found.scaled.tolist() == [0, 0]
    assert (found.plain > 0).all()
    assert found.unexplained.isnan().all()


# ------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize("metric", [SensitivityMax(samples=2), Infidelity(samples=5)])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
def test_batch_is_its_images_one_by_one(metric, batch_size):
    scene = scene_of(batch_size=batch_size)
    together = metric.measure(scene, explained(scene)).values
    for i in range(3):
        single = part(scene, i)
        alone = metric.measure(single, explained(single)).values
        for name in metric.names:
            assert alone[name].item() == pytest.approx(together[name][i].item(), rel=1e-9)


@pytest.mark.parametrize("metric", [SensitivityMax(samples=2), Infidelity(samples=5)])
def test_the_model_is_left_as_it_was(metric):
    scene = scene_of()
    scene.model.train()
    found = explained(scene)
    before = snapshot(scene.model)
    first = metric.measure(scene, found)
    assert differences(before, snapshot(scene.model)) == []
    torch.rand(7)  # draws of others do not matter
    second = metric.measure(scene, found)
    assert set(first.values) == set(metric.names)
    for name, values in first.values.items():
        assert values.equal(second.values[name])
        assert values.dtype == torch.float64


def test_other_numbers_are_drawn_than_by_methods_and_seeds():
    scene = scene_of()
    shape, like = (4,), scene.inputs
    drawn = [
        g.rand(shape, like)
        for g in (streams(scene), ImageGenerators.of(0, like), streams(replace(scene, seed=1)))
    ]
    assert not any(drawn[a].equal(drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert streams(scene).rand(shape, like).equal(drawn[0])


def test_errors_say_what_was_given():
    scene = scene_of()
    found = explained(scene)
    with pytest.raises(CamlucidaError, match="preprocess="):
        SensitivityMax(space="pixel").measure(scene, found)
    with pytest.raises(CamlucidaError, match="preprocess="):
        Infidelity(space="pixel").measure(scene, found)
    with pytest.raises(CamlucidaError, match="perturbation must be"):
        Infidelity(perturbation="circle")
    with pytest.raises(CamlucidaError, match="samples"):
        SensitivityMax(samples=0)
    x = torch.rand(2, 3, 9, 10)
    with pytest.raises(CamlucidaError, match=r"\(2, 4, 4\)"):
        infidelity(lambda y, _: y.sum((1, 2, 3)), x, torch.zeros(2, 4, 4), ImageGenerators.of(0, x))
