"""ROAD and ROAD-Delete: slow loops, pytorch-grad-cam, identities, batches, labels that are not known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from camlucida import CamlucidaError, Preprocess
from camlucida.common.seeds import ImageGenerators
from camlucida.metrics.registry import build_metric, describe_number
from camlucida.metrics.road import Road, RoadDelete, area, road
from reference import road as slow
from reference import scenes
from reference.scenes import explained, part
from reference.state import differences, snapshot

PIXELS = Preprocess(size=(9, 10), resize=None, mean=(0.4, 0.5, 0.3), std=(0.2, 0.25, 0.3))
P = (10, 30, 50, 90)


def scene_of(n=3, size=(9, 10), **options):
    x = PIXELS.normalise(torch.rand(n, 3, *size, dtype=torch.float64))
    options = {"labels": torch.arange(n) % 3, "preprocess": PIXELS, **options}
    return scenes.scene_of(n, size=size, inputs=x, **options)


def heights(scene, maps, **options):
    return road(
        scene.model, scene.pixels, maps, scene.classes, scene.logits, PIXELS,
        percentages=P,
        **{"scores": ("prob", "accuracy", "logit_drop"), "noise": 0.0, "tolerance": 1e-9, **options},
    )  # fmt: skip


@pytest.mark.parametrize("imputer", ["linear", "mean", "zero"])
@pytest.mark.parametrize("rule", ["rank", "percentile"])
@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_it_is_the_loop(imputer, rule, order):
    scene, maps = scene_of(), torch.rand(3, 9, 10)
    found = heights(scene, maps, imputer=imputer, mask=rule, order=order, batch_size=5)
    for i in range(3):
        wanted = slow.road(
            scene.model, scene.pixels[i], maps[i], scene.classes[i], PIXELS.normalise, P, order, rule, imputer
        )  # fmt: skip
        for score, row in zip(("prob", "accuracy", "logit_drop"), wanted, strict=True):
            assert np.allclose(found[score][i], row, atol=1e-7), score


def test_the_numbers_of_road():
    scene = scene_of()
    explanation = explained(scene)
    options = {"percentages": P, "noise": 0.0, "tie_break": "index", "tolerance": 1e-9}
    found = Road(**options).measure(scene, explanation)
    assert tuple(found.values) == Road().names
    for stem, score in (("road", "prob"), ("road_accuracy", "accuracy")):
        morf = heights(scene, explanation.maps)[score]
        lerf = heights(scene, explanation.maps, order="lerf")[score]
        for name, curve in (
            (f"{stem}_morf", morf),
            (f"{stem}_lerf", lerf),
            (stem, (lerf - morf) / 2),
        ):
            assert torch.allclose(found.curves[name], curve)
            assert torch.allclose(found.values[name], area(curve, P))
            assert found.at[name].tolist() == list(P)
    mean = Road(**options, summary="mean").measure(scene, explanation)
    assert torch.allclose(mean.values["road"], found.curves["road"].mean(1))


def test_pytorch_grad_cam():
    module = pytest.importorskip("pytorch_grad_cam.metrics.road")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    # They keep the percentile that we remove, so the percentages are symmetric; no value meets one.
    size = (14, 15)
    plain = Preprocess(size=size, resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    scene = scene_of(n=2, size=size, preprocess=plain)
    scene = replace(scene, model=scene.model.float(), inputs=scene.inputs.float())
    with torch.no_grad():
        scene = replace(scene, logits=scene.model(scene.inputs))
    explanation = replace(explained(scene), maps=torch.rand(2, *size))
    peer = module.ROADCombined(percentiles=[20, 50, 80])
    before = module.NoisyLinearImputer.__init__.__defaults__
    module.NoisyLinearImputer.__init__.__defaults__ = (0.0, *before[1:])
    try:
        wanted = peer(
            scene.inputs,
            explanation.maps.numpy(),
            [targets.ClassifierOutputSoftmaxTarget(c) for c in scene.classes.tolist()],
            scene.model,
        )
    finally:
        module.NoisyLinearImputer.__init__.__defaults__ = before
    own = Road(percentages=(20, 50, 80), noise=0.0, mask="percentile", tie_break="index", summary="mean",
               score="prob")  # fmt: skip
    found = own.measure(scene, explanation).values["road"]
    assert np.abs(found.numpy() - wanted).max() < 1e-3


def test_noise_is_seeded_per_image_and_batches_equal_their_images():
    scene = scene_of(batch_size=4)
    explanation = explained(scene)
    together = Road().measure(scene, explanation)
    for i in range(3):
        alone = Road().measure(part(scene, i), explanation[i])
        for name in Road().names:
            assert torch.allclose(alone.values[name], together.values[name][i : i + 1], atol=1e-4)
    other = Road().measure(replace(scene, seed=1), explanation)
    assert not torch.equal(other.values["road"], together.values["road"])


def test_noise_does_not_depend_on_the_size_of_groups(monkeypatch):
    scene, maps = scene_of(), torch.rand(3, 9, 10)
    options = {"noise": 0.01}
    first = heights(scene, maps, **options, generators=ImageGenerators.of(0, scene.inputs))
    monkeypatch.setattr("camlucida.metrics.road._IMPUTED", 1)
    second = heights(scene, maps, **options, generators=ImageGenerators.of(0, scene.inputs))
    assert torch.allclose(first["prob"], second["prob"])


def test_road_delete_is_fames():
    scene = scene_of()
    explanation = explained(scene)
    found = RoadDelete().measure(scene, explanation)
    assert tuple(found.values) == RoadDelete().names
    every = range(0, 101, 10)
    for stem, rule in (("road_delete", "percentile"), ("road_delete_rank", "rank")):
        for i in range(3):
            _, _, drop = slow.road(
                scene.model, scene.pixels[i], explanation.maps[i], scene.labels[i], PIXELS.normalise, every,
                "morf", rule, "zero",
            )  # fmt: skip
            assert np.allclose(found.curves[stem][i], drop)
            assert found.curves[stem][i, 0] == 0
            for p in (10, 30, 50):
                assert math.isclose(found.values[f"{stem}@{p}"][i], drop[p // 10])
            assert math.isclose(found.values[stem][i], np.trapezoid(drop, every) / 100)


def test_a_constant_map_deletes_nothing_except_by_rank():
    scene = scene_of()
    explanation = replace(explained(scene), maps=torch.zeros(3, 9, 10))
    found = RoadDelete().measure(scene, explanation).values
    assert (found["road_delete@50"] == 0).all()
    assert (found["road_delete_rank@50"] != 0).any()


def test_what_is_untouched_costs_no_pass_and_logits_are_not_computed_again():
    scene = scene_of()
    passes = []
    scene.model.register_forward_hook(lambda _, args, __: passes.append(len(args[0])))
    maps = torch.zeros(3, 9, 10)
    road(scene.model, scene.pixels, maps, scene.labels, scene.logits, PIXELS, mask="percentile")
    assert not passes
    maps[0, 0, 0] = 1
    road(
        scene.model,
        scene.pixels,
        maps,
        scene.labels,
        scene.logits,
        PIXELS,
        mask="percentile",
        batch_size=4,
    )
    assert sum(passes) == 9
    assert max(passes) == 4


def test_unknown_labels_and_nan_maps_do_not_count():
    scene = scene_of(labels=torch.tensor([0, -1, 2]))
    explanation = explained(scene)
    maps = explanation.maps.clone()
    maps[2, 0, 0] = torch.nan
    explanation = replace(explanation, maps=maps)
    for metric in (RoadDelete(), Road(of="label", score="accuracy"), Road(of="label")):
        for value in metric.measure(scene, explanation).values.values():
            assert value.isnan().tolist() == [False, True, True]
    assert Road().measure(scene, explanation).values["road"].isnan().tolist() == [
        False,
        False,
        True,
    ]


def test_the_model_is_left_alone():
    scene = scene_of()
    explanation = explained(scene)
    scene.model.train()
    before = snapshot(scene.model)
    Road().measure(scene, explanation)
    RoadDelete().measure(scene, explanation)
    assert not differences(before, snapshot(scene.model))


def test_options_and_names():
    assert Road(order="morf", score="logit_drop").names == ("road_drop_morf",)
    assert Road(score="prob").names == ("road", "road_morf", "road_lerf")
    assert RoadDelete(shown=(5,)).names == (
        "road_delete", "road_delete@5", "road_delete_rank", "road_delete_rank@5",
    )  # fmt: skip
    for metric in (Road(), RoadDelete(), Road(score="logit_drop")):
        for name in metric.names:
            assert describe_number(name).title
    assert describe_number("road_morf").direction == "lower"
    assert build_metric("road", percentages=(20, 40)).percentages == (20, 40)


def test_errors():
    scene, maps = scene_of(), torch.rand(3, 9, 10)
    for call, text in (
        (lambda: Road(percentages=(50, 20)), "rise within 0 to 100"),
        (lambda: Road(percentages=(0, 120)), "rise within 0 to 100"),
        (lambda: Road(noise=-1.0), "noise"),
        (lambda: Road(order="up"), "order must be one of"),
        (lambda: RoadDelete(shown=()), "rise within"),
        (lambda: heights(scene, maps, scores=("loss",)), "scores must be of"),
        (lambda: Road().measure(replace(scene, preprocess=None), explained(scene)), "preprocess"),
    ):
        with pytest.raises((CamlucidaError, TypeError), match=text):
            call()
