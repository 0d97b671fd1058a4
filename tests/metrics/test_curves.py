"""Insertion and deletion: slow loops, closed forms, batches, the model left alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from camlucida import CamlucidaError
from camlucida.metrics.curves import (
    Deletion,
    Insertion,
    area,
    blank,
    path,
    resample,
    sample_curves,
    wandering,
)
from reference import curves as slow
from reference import networks
from reference.scenes import explained, scene_of
from reference.state import differences, snapshot

SIZE = (9, 10)


@pytest.mark.parametrize("step", [1, 7, 30, 90, 224])
@pytest.mark.parametrize("score", ["predicted", "explained"])
def test_both_are_the_loop(step, score):
    scene = scene_of(2, classes=torch.argmin, batch_size=5)
    explanation = explained(scene)
    options = {"step": step, "score": score, "points": 11, "exact": True}
    deletion = Deletion(**options).measure(scene, explanation)
    insertion = Insertion(**options).measure(scene, explanation)
    classes = scene.predicted if score == "predicted" else scene.classes
    for i in range(2):
        x, empty = scene.inputs[i], torch.zeros(3, *SIZE, dtype=torch.float64)
        blurred = torch.from_numpy(slow.blur(x))
        for name, found, ends in (
            ("deletion", deletion, (x, empty)),
            ("insertion", insertion, (blurred, x)),
        ):
            wanted = slow.path(scene.model, *ends, explanation.maps[i], classes[i], step)
            assert np.isclose(found.values[name][i], slow.area(wanted))
            at = np.minimum(np.arange(len(wanted)) * step / 90, 1)
            kept = np.interp(np.linspace(0, 1, 11), at, wanted)
            assert np.allclose(found.curves[name][i], kept)
            assert np.allclose(found.at[name], np.linspace(0, 1, 11))


class Wavy(nn.Module):
    """Its probability follows the mean of the image along a rough curve; the passes are counted."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(400, generator=torch.Generator().manual_seed(seed))
        self.heights = (drawn.cumsum(0) / 20).sigmoid().double()
        self.passes = 0

    def forward(self, x):
        self.passes += len(x)
        at = x.mean((1, 2, 3)) * 399
        low = at.long().clamp(0, 398)
        p = torch.lerp(self.heights[low], self.heights[low + 1], at - low)
        return torch.stack([p.logit(), torch.zeros_like(p)], 1)


def test_few_heights_give_the_area():
    """Twice the standard error is what is left, and the bound ends the work."""
    apart, passes = [], []
    for seed in range(60):
        model = Wavy(seed)
        x = torch.ones(1, 3, 40, 40, dtype=torch.float64)
        scene = replace(
            scene_of(1), model=model, inputs=x, logits=model(x), classes=torch.tensor([0])
        )
        order = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(seed))
        explanation = replace(explained(scene_of(1)), maps=order)
        model.passes = 0
        found = Deletion(step=8, score="explained").measure(scene, explanation).values["deletion"]
        passes.append(model.passes)
        whole = (
            Deletion(step=8, score="explained", exact=True)
            .measure(scene, explanation)
            .values["deletion"]
        )
        apart.append(abs(float(found - whole)))
    assert max(passes) <= 20 + 1 + 4  # the image without content, and a look at the model
    assert np.mean(apart) < 0.006
    loose = Deletion(step=8, score="explained", error=0.5)
    model.passes = 0
    loose.measure(scene, explanation)
    assert model.passes <= 8


def test_a_height_that_is_no_number_ends_the_search():
    known = torch.full((1, 101), torch.nan, dtype=torch.float64)
    asked = []

    def heights(places):
        asked.extend(places)
        return torch.full((len(places),), torch.nan, dtype=torch.float64)

    assert sample_curves(known, heights, 0.001).isnan().all()
    assert len(asked) == 8


def asked_for(error, at):
    """The heights of a parabola that are asked for, and what comes out."""
    known = torch.full((1, len(at)), torch.nan, dtype=torch.float64)
    known[0, 0] = 0.0
    asked = []

    def heights(places):
        asked.extend(k for _, k in places)
        return torch.stack([at[k] ** 2 for _, k in places])

    return asked, sample_curves(known, heights, error, most=12)


def test_heights_that_are_known_are_not_asked_for():
    at = torch.linspace(0, 1, 41, dtype=torch.float64)
    asked, found = asked_for(1e-9, at)
    assert 0 not in asked
    assert len(asked) == len(set(asked)) == 1 + 2 * 12  # its end is no inner height
    assert torch.allclose(found[0], at**2, atol=0.01)


def test_twice_the_error_is_enough_after_some_heights():
    at = torch.linspace(0, 1, 41, dtype=torch.float64)
    first = torch.tensor(sorted({0, *asked_for(1e-9, at)[0][:11]}))
    off = 2 * wandering(at[first].numpy(), at[first].numpy() ** 2).sum() ** 0.5
    assert len(asked_for(off / 1.9, at)[0]) == 13
    assert len(asked_for(off / 4, at)[0]) > 13


def test_blurring_zeros_and_means():
    x = networks.images(2, 3, (13, 12))
    for start in ("blur", "rise"):
        for i in range(len(x)):
            assert np.allclose(blank(x, start)[i], slow.blur(x[i], start))
    blurred = blank(x, "blur")
    for i in range(2):
        assert np.allclose(blurred[i], slow.blur(x[i]))
    assert not blank(x, "zero").any()
    assert torch.allclose(blank(x, "mean")[1, 2], x[1, 2].mean())
    with pytest.raises(CamlucidaError, match="'zero', 'blur', 'rise' or 'mean'"):
        blank(x, "grey")


class Count(nn.Module):
    """Two classes; the first's logit is proportional to the image's mean."""

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], 1)


def test_a_linear_score_falls_along_the_map():
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[0, 0, :4] = 10.0
    one, zero = torch.tensor([0]), torch.zeros_like(x)
    good, bad = x[:, 0], -x[:, 0]
    down = path(Count(), x, zero, good, one, step=8)
    assert down.shape == (1, 9)
    assert torch.allclose(down[0, 4:], torch.tensor(0.5).double())
    assert (down[0, 1:5] < down[0, :4]).all()
    late = path(Count(), x, zero, bad, one, step=8)
    assert torch.allclose(late[0, :5], down[0, 0])
    assert area(down) < area(late)


def test_area_and_resampling():
    flat = torch.full((2, 7), 0.3)
    assert torch.allclose(area(flat), torch.tensor(0.3))
    line = torch.tensor([[0.0, 0.4, 0.8, 1.0]])
    found = resample(line, torch.tensor([0.0, 0.4, 0.8, 1.0]), 11)
    assert torch.allclose(found, torch.linspace(0, 1, 11))


def test_a_batch_equals_its_images_and_chunks_do_not_matter():
    scene = scene_of(3, classes=torch.argmin, batch_size=4)
    explanation = explained(scene)
    for metric in (Deletion(step=9), Insertion(step=9, start="mean")):
        together = metric.measure(scene, explanation)
        (name,) = metric.names
        for i in range(3):
            keys = ("inputs", "logits", "classes", "labels", "boxes", "masks", "exact")
            alone = replace(scene, **{k: getattr(scene, k)[i : i + 1] for k in keys}, batch_size=1)
            found = metric.measure(alone, explanation[i])
            assert torch.allclose(found.curves[name][0], together.curves[name][i])


def test_the_clean_logits_are_not_computed_again():
    scene = scene_of(2, classes=torch.argmin)
    explanation = explained(scene)
    passes = []
    scene.model.register_forward_hook(lambda _, args, __: passes.append(len(args[0])))
    Deletion(step=30).measure(scene, explanation)
    assert sum(passes) == 2 * 3
    passes.clear()
    Insertion(step=30).measure(scene, explanation)
    assert sum(passes) == 2 * 3


def test_the_model_is_left_alone_and_nan_maps_do_not_count():
    scene = scene_of(2, classes=torch.argmin)
    explanation = explained(scene)
    maps = explanation.maps.clone()
    maps[0, 0, 0] = torch.nan
    scene.model.train()
    before = snapshot(scene.model)
    found = Deletion(step=30).measure(scene, replace(explanation, maps=maps))
    assert not differences(before, snapshot(scene.model))
    assert found.values["deletion"].isnan().tolist() == [True, False]


def test_errors():
    for call, text in (
        (lambda: Deletion(step=0), "step"),
        (lambda: Insertion(points=1), "points"),
        (lambda: Insertion(start="grey"), "start must be one of"),
        (
            lambda: path(
                Count(), *[torch.zeros(1, 1, 4, 4)] * 2, torch.zeros(1, 3, 3), torch.zeros(1)
            ),
            "maps of the images",
        ),
    ):
        with pytest.raises(CamlucidaError, match=text):
            call()
