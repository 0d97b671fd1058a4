"""The tests of Hedström et al. and of Agarwal et al., each against its definition, step by step."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import entropy, spearmanr

import camlucida
from camlucida.audits.metrics_trial import truth_scene
from camlucida.common.seeds import ImageGenerators
from camlucida.engine.redraw import holds_weights, randomise
from camlucida.metrics import EMPRT, SMPRT, RelativeStability
from camlucida.metrics.robustness import _OWN
from camlucida.models.planted import planted_network


@pytest.fixture(scope="module")
def scene():
    return truth_scene("wall", 3, 0)[0]


@pytest.fixture(scope="module")
def loaded():
    return planted_network("wall@0")


def explained(model, images, scene, method="gradcam"):
    return camlucida.explain(
        model, images, method=method, target=scene.classes.tolist(), preprocess=scene.preprocess
    )


def test_emprt_is_the_relative_rise_of_the_histograms_entropy(scene):
    twin = copy.deepcopy(scene.model)
    randomise(twin, [n for n, m in twin.named_modules() if holds_weights(m)], scene.seed)
    before, after = (explained(m, scene.inputs, scene) for m in (scene.model, twin))
    state = {k: v.clone() for k, v in scene.model.state_dict().items()}
    found = EMPRT(bins=50).value(scene, before)
    for i in range(3):
        a, b = (entropy(np.histogram(e.signed[i].double().numpy(), 50)[0]) for e in (before, after))
        assert float(found[i]) == pytest.approx((b - a) / a, rel=1e-6)
    assert all(torch.equal(v, state[k]) for k, v in scene.model.state_dict().items())


def test_a_map_that_knows_nothing_does_not_pass(scene):
    edges = explained(scene.model, scene.inputs, scene, "edges")
    assert EMPRT().value(scene, edges).abs().max() == 0
    assert SMPRT(samples=1, noise=0.0, stages=2).value(scene, edges).min() > 0.999


def test_smprt_compares_averages_over_noisy_images(scene):
    options = {"samples": 2, "noise": 0.2, "stages": 1}
    before = explained(scene.model, scene.inputs, scene)
    found = SMPRT(**options).value(scene, before)
    twin = copy.deepcopy(scene.model)
    randomise(twin, [n for n, m in twin.named_modules() if holds_weights(m)], scene.seed)
    spread = 0.2 * torch.stack([x.max() - x.min() for x in scene.inputs])
    sums = []
    for model in (scene.model, twin):
        draw = ImageGenerators(scene.seed + _OWN, scene.inputs)
        total = 0
        for _ in range(2):
            noise = draw.randn(scene.inputs.shape[1:], scene.inputs)
            near = scene.inputs + spread[:, None, None, None] * noise
            total = total + explained(model, near, scene).signed
        sums.append(total)
    for i in range(3):
        expected = spearmanr(*(s[i].double().flatten().numpy() for s in sums)).statistic
        assert float(found[i]) == pytest.approx(expected, abs=1e-6)


def test_relative_stability_is_the_papers_ratio(scene):
    before = explained(scene.model, scene.inputs, scene)
    found = RelativeStability(samples=1, noise=0.05).measure(scene, before).values
    noise = ImageGenerators(scene.seed + _OWN, scene.inputs).randn((3, 64, 64), scene.inputs)
    near = scene.inputs + 0.05 * noise
    after = explained(scene.model, near, scene)
    with torch.no_grad():
        logits = [scene.model(x).double() for x in (scene.inputs, near)]

    def ratio(a, b):
        a, b = a.double().numpy().ravel(), b.double().numpy().ravel()
        return np.linalg.norm(
            [(y - x) / (x if abs(x) >= 1e-6 else 1e-6) for x, y in zip(a, b, strict=True)]
        )

    for i in range(3):
        top = ratio(before.signed[i], after.signed[i])
        image = top / ratio(scene.inputs[i], near[i])
        output = top / np.linalg.norm(logits[1][i] - logits[0][i])
        assert float(found["relative_stability"][i]) == pytest.approx(image, rel=1e-5)
        assert float(found["relative_output_stability"][i]) == pytest.approx(output, rel=1e-4)


def test_an_image_that_becomes_another_class_does_not_count(scene):
    before = explained(scene.model, scene.inputs, scene)
    loud = RelativeStability(samples=1, noise=1000.0).measure(scene, before).values
    with torch.no_grad():
        draw = ImageGenerators(scene.seed + _OWN, scene.inputs)
        near = scene.inputs + 1000 * draw.randn((3, 64, 64), scene.inputs)
        same = scene.model(near).argmax(1) == scene.model(scene.inputs).argmax(1)
    assert torch.equal(loud["relative_stability"].isfinite(), same)
    assert not same.all()
