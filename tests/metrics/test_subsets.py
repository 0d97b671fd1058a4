"""Metrics of parts: each against its definition, step by step."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import camlucida
from camlucida.audits.metrics_trial import audit_metrics, judges, truth_scene
from camlucida.metrics import (
    IROF,
    FaithfulnessCorrelation,
    FFidelity,
    Monotonicity,
    SaCo,
    SensitivityN,
    list_metrics,
)
from camlucida.metrics.curves import blank
from camlucida.metrics.subsets import losses


@pytest.fixture(scope="module")
def trial():
    return truth_scene("texture", 3, 0)


def logit(scene, image, i):
    with torch.no_grad():
        return float(scene.model(image[None])[0, scene.classes[i]])


def test_losses_are_those_of_the_changed_images(trial):
    scene, maps = trial
    gone = torch.zeros(3, 2, 64, 64, dtype=torch.bool)
    gone[:, 0, :32] = True
    gone[:, 1, 10:50, 20:] = True
    found = losses(scene, maps["truth"], gone, "zero")
    for i in range(3):
        for k in range(2):
            image = torch.where(gone[i, k], 0, scene.inputs[i])
            expected = logit(scene, scene.inputs[i], i) - logit(scene, image, i)
            assert float(found[i, k]) == pytest.approx(expected, abs=1e-4)


def test_saco_is_the_papers_sum_over_pairs(trial):
    scene, maps = trial
    found = SaCo(groups=4).value(scene, maps["spoiled"])
    mean = blank(scene.inputs, "mean")
    for i in range(3):
        values = maps["spoiled"].maps[i].flatten().numpy()
        order = np.argsort(-values, kind="stable")
        groups = np.array_split(order, 4)
        s = [values[g].astype(float).sum() for g in groups]
        drop = []
        for g in groups:
            image = scene.inputs[i].clone().flatten(1)
            image[:, g] = mean[i].flatten(1)[:, g]
            drop.append(logit(scene, scene.inputs[i], i) - logit(scene, image.view(3, 64, 64), i))
        score = total = 0.0
        for a in range(4):
            for b in range(a + 1, 4):
                weight = s[a] - s[b]
                score += weight if drop[a] >= drop[b] else -weight
                total += abs(weight)
        assert float(found[i]) == pytest.approx(score / total, abs=1e-6)


def test_monotonicity_counts_the_steps_that_rise(trial):
    scene, maps = trial
    found = Monotonicity(groups=4).value(scene, maps["truth"])
    soft = blank(scene.inputs, "blur")
    for i in range(3):
        order = np.argsort(-maps["truth"].maps[i].flatten().numpy(), kind="stable")
        heights = []
        for k in range(5):
            shown = np.concatenate(np.array_split(order, 4)[4 - k :]) if k else np.array([], int)
            image = soft[i].clone().flatten(1)
            image[:, shown] = scene.inputs[i].flatten(1)[:, shown]
            heights.append(logit(scene, image.view(3, 64, 64), i))
        rises = sum(b > a + 1e-4 for a, b in pairwise(heights))
        assert float(found[i]) == pytest.approx(rises / 4)


@pytest.mark.parametrize("metric", [FaithfulnessCorrelation(samples=30), SensitivityN(samples=12)])
def test_the_truth_foretells_and_noise_does_not(trial, metric):
    scene, maps = trial
    (name,) = metric.names
    truth, noise = (metric.measure(scene, maps[k]).values[name].mean() for k in ("truth", "noise"))
    assert truth > 0.5 > noise
    again = metric.measure(scene, maps["truth"]).values[name]
    assert torch.equal(again, metric.measure(scene, maps["truth"]).values[name])
    upside = metric.measure(scene, maps["squared"]).curves
    assert set(upside) <= {"sensitivity_n"}


def test_metrics_are_tried_on_planted_truth():
    names = ["energy_pointing", "saco", "monotonicity"]
    report = audit_metrics(names, worlds=["texture"], count=6)
    assert report["energy_pointing"].outcome == "pass"
    assert report["monotonicity"].outcome != "pass"
    assert {v.subject for v in report.verdicts} == set(names)
    assert "put truth above noise" in report.summary
    tried = {row.name for row in list_metrics() if judges(row)}
    assert {"deletion", "insertion", "road", "iou", "saco"} <= tried
    assert not {"similarity", "sparseness", "cam_entropy", "sensitivity_max"} & tried
    with pytest.raises(camlucida.CamlucidaError, match="unknown metric"):
        audit_metrics("nothing", worlds=["wall"])


def probability_of(scene, image, i):
    with torch.no_grad():
        return float(scene.model(image[None]).softmax(1)[0, scene.classes[i]])


def test_irof_is_the_area_over_the_curve_of_removed_segments(trial):
    from skimage.segmentation import slic

    scene, maps = trial
    found = IROF(segments=12).value(scene, maps["truth"])
    mean = blank(scene.inputs, "mean")
    for i in range(3):
        pixels = scene.pixels[i].double()
        scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        labels = slic(scaled.movedim(0, -1).numpy(), n_segments=12, start_label=0, channel_axis=-1)
        values = maps["truth"].maps[i].double().numpy()
        order = sorted(np.unique(labels), key=lambda s: -values[labels == s].mean())
        image = scene.inputs[i].clone()
        heights = [probability_of(scene, image, i)]
        for s in order:
            gone = torch.from_numpy(labels == s)
            image = torch.where(gone, mean[i], image)
            heights.append(probability_of(scene, image, i))
        curve = np.array(heights) / heights[0]
        area = sum((a + b) / 2 for a, b in pairwise(curve)) / len(order)
        assert float(found[i]) == pytest.approx(1 - area, abs=1e-4)


def test_f_fidelity_removes_random_pixels_of_each_part_and_never_more_than_beta(trial):
    scene, maps = trial
    few = FFidelity(samples=6, share=0.2, alpha=1.0, beta=0.2)
    found = few.measure(scene, maps["truth"]).values
    flat = maps["truth"].maps.flatten(1)
    for i in range(3):
        count = round(0.2 * flat.shape[1])
        first = np.argsort(-flat[i].numpy(), kind="stable")[:count]
        image = scene.inputs[i].clone().flatten(1)
        image[:, first] = 0  # beta allows all of it to go, and alpha asks for all of it
        expected = probability_of(scene, scene.inputs[i], i) - probability_of(
            scene, image.view(3, 64, 64), i
        )
        assert float(found["f_fidelity"][i]) == pytest.approx(expected, abs=1e-4)
    # Of the rest a quarter goes: 0.2 of the image over the 0.8 that it covers.
    rest = FFidelity(samples=1, share=0.2, alpha=1.0, beta=0.2)
    assert rest.measure(scene, maps["truth"]).values["f_fidelity_minus"].isfinite().all()


def test_f_fidelity_asks_the_tuned_network(trial, tmp_path):
    scene, maps = trial
    state = {k: torch.zeros_like(v) for k, v in scene.model.state_dict().items()}
    torch.save(state, tmp_path / "tuned.pt")
    found = FFidelity(samples=2, tuned=str(tmp_path / "tuned.pt")).measure(scene, maps["truth"])
    assert found.values["f_fidelity"].abs().max() == 0  # zeros foretell nothing
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(camlucida.CamlucidaError, match="does not fit the network"):
        FFidelity(tuned=str(tmp_path / "other.pt")).measure(scene, maps["truth"])


def test_f_fidelity_is_another_measurement_where_the_tuned_file_holds_other_weights(tmp_path):
    file = tmp_path / "tuned.pt"
    said = []
    for value in (1.0, 2.0, 1.0):
        weight = torch.zeros(100, 100)
        weight[50, 50] = value
        torch.save({"weight": weight}, file)
        said.append(FFidelity(tuned=str(file)).describe()["options"])
    assert said[0] == said[2] != said[1]
    assert "tuned_weights" not in FFidelity().describe()["options"]
