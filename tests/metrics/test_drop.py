"""Average Drop, Increase, Gain and ADCC: slow loops, closed forms, both spaces, edge cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from camlucida import CamlucidaError, Preprocess
from camlucida.metrics.drop import (
    ADCC,
    AverageDrop,
    adcc,
    average_drop,
    average_gain,
    average_increase,
    coherency,
    map_complexity,
    masked,
)
from camlucida.metrics.registry import describe_number
from reference import curves as slow
from reference import networks, scenes
from reference.state import differences, snapshot

SIZE = (9, 10)
PIXELS = Preprocess(size=SIZE, resize=None, mean=(0.4, 0.5, 0.3), std=(0.2, 0.25, 0.3))


def scene_of(n=4, **options):
    return scenes.scene_of(n, inputs=0.1 * networks.images(n, 3, SIZE), **options)


def explained(scene, inputs=None):
    return scenes.explained(scene, inputs=inputs, target=scene.classes.tolist())


@pytest.mark.parametrize("space", ["pixel", "input"])
def test_drops_are_the_loop(space):
    scene = scene_of(preprocess=PIXELS, batch_size=3)
    explanation = explained(scene)
    found = AverageDrop(space=space).measure(scene, explanation).values
    for i in range(len(scene)):
        x, m, c = scene.inputs[i], explanation.maps[i], scene.classes[i]
        shown = PIXELS.normalise(PIXELS.denormalise(x) * m)
        kept = shown if space == "pixel" else x * m
        with torch.no_grad():
            p, o = scene.model(torch.stack([x, kept])).softmax(1)[:, c].tolist()
        for name, wanted in zip(AverageDrop().names, slow.drops(p, o), strict=True):
            assert math.isclose(found[name][i], wanted, abs_tol=1e-9), name


def test_auto_is_pixels_where_the_preprocessing_is_known():
    scene, maps = scene_of(preprocess=PIXELS), torch.rand(4, *SIZE)
    assert torch.equal(masked(scene, maps, "auto"), masked(scene, maps, "pixel"))
    bare = replace(scene, preprocess=None)
    assert torch.equal(masked(bare, maps, "auto"), masked(scene, maps, "input"))
    with pytest.raises(CamlucidaError, match="preprocess="):
        masked(bare, maps, "pixel")


def test_closed_forms():
    p = torch.tensor([0.8, 0.2, 0.0, 1.0, 0.5, math.nan]).double()
    o = torch.tensor([0.2, 0.6, 0.5, 1.0, 0.5, 0.5]).double()
    nan = math.nan
    for function, wanted in (
        (average_drop, [75, 0, 0, 0, 0, nan]),
        (average_increase, [0, 100, 100, 0, 0, nan]),
        (average_gain, [0, 50, 50, 0, 0, nan]),
    ):
        assert torch.allclose(function(p, o), torch.tensor(wanted).double(), equal_nan=True)
        assert function(p.float(), o.float()).dtype == torch.float64


def test_a_map_of_ones_keeps_everything():
    scene = scene_of()
    explanation = replace(explained(scene), maps=torch.ones(4, *SIZE, dtype=torch.float64))
    found = AverageDrop().measure(scene, explanation).values
    assert found["average_drop"].abs().max() < 1e-9
    assert found["average_gain"].abs().max() < 1e-9


def test_adcc_is_the_loop():
    scene = scene_of()
    explanation = explained(scene)
    found = ADCC().measure(scene, explanation).values
    drop = AverageDrop().measure(scene, explanation).values["average_drop"] / 100
    again = explained(scene, scene.inputs * explanation.maps[:, None]).maps
    for i in range(len(scene)):
        wanted = slow.adcc(explanation.maps[i], again[i], float(drop[i]))
        for name, value in zip(("adcc", "coherency", "map_complexity"), wanted, strict=True):
            assert math.isclose(found[name][i], value, rel_tol=1e-9), name


def test_terms_of_adcc():
    maps = torch.rand(3, 5, 6).double()
    assert torch.allclose(coherency(maps, 3 * maps + 1), torch.ones(3).double())
    assert torch.allclose(coherency(maps, -maps), torch.zeros(3).double())
    other = torch.rand(3, 5, 6).double()
    wanted = [
        (np.corrcoef(a.ravel(), b.ravel())[0, 1] + 1) / 2 for a, b in zip(maps, other, strict=True)
    ]
    assert np.allclose(coherency(maps, other), wanted)
    assert coherency(maps[:1], torch.zeros(1, 5, 6)).item() == 0
    half = torch.zeros(1, 4, 4)
    half[0, :2] = 7
    assert map_complexity(half).item() == 0.5
    one, zero = torch.tensor([1.0]), torch.tensor([0.0])
    assert adcc(one, zero, zero).item() == 1
    assert adcc(one, one, zero).item() == 0
    assert adcc(one, zero, one).item() == 0
    assert torch.allclose(adcc(one / 2, zero, zero), torch.tensor([0.75]).double())


def test_blank_and_nan_maps():
    scene = scene_of()
    explanation = explained(scene)
    maps = torch.zeros_like(explanation.maps)
    maps[1] = torch.nan
    found = ADCC().measure(scene, replace(explanation, maps=maps)).values
    assert found["adcc"][0] == 0
    assert found["adcc"].isnan().tolist() == [False, True, False, False]


def test_the_model_is_left_alone():
    scene = scene_of()
    explanation = explained(scene)
    scene.model.train()
    before = snapshot(scene.model)
    AverageDrop().measure(scene, explanation)
    ADCC().measure(scene, explanation)
    assert not differences(before, snapshot(scene.model))


def test_names_are_described():
    for metric in (AverageDrop(), ADCC()):
        for name in metric.names:
            assert describe_number(name).title
    assert describe_number("average_gain").direction == "higher"
    assert describe_number("map_complexity").direction == "lower"
