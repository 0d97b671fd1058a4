"""The attack without training, and the lemmas on residual logits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camlucida import explain
from camlucida.audits.fooling.logit_shift import _at_most, apply_shift, audit_logit_shift, fit_shift
from camlucida.audits.fooling.residual_logits import audit_residual_logits, simulate
from camlucida.common.errors import CamlucidaError
from camlucida.engine.maps import normalise
from camlucida.metrics.agreement import similarity
from camlucida.targets import Logit, LogitMargin, Probability
from camlucida.training.sham import sham_mask
from reference import sham as slow


class Wide(nn.Module):
    """A random network with more channels than cells, so that the mask lies in the span of its maps."""

    def __init__(self, channels=256, classes=20, rectified=False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.BatchNorm2d(channels))
        if not rectified:
            self.features.append(nn.ReLU())
        self.rectified = rectified
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        maps = self.features(x)
        if self.rectified:
            maps = F.relu(maps, inplace=True)
        return self.classifier(maps.mean((2, 3)))


@pytest.fixture
def wide():
    torch.manual_seed(0)
    return Wide().double().eval()


@pytest.fixture
def images():
    return torch.randn(4, 3, 14, 14, generator=torch.Generator().manual_seed(1)).double()


def gradcam(model, images, target):
    return explain(model, images, method="gradcam", target=target, layers="features").raw


@pytest.mark.parametrize("rectified", [False, True])
def test_probabilities_stay_gradcam_goes_to_the_border_margins_stay(images, rectified):
    torch.manual_seed(2)
    model = Wide(rectified=rectified).double().eval()
    shift = fit_shift(model, images, layer="features")
    fooled = apply_shift(model, images, shift)
    with torch.no_grad():
        before, after = model(images), fooled(images)
    assert (before.softmax(1) - after.softmax(1)).abs().max() < 1e-9
    assert (before - after).abs().max() > 0.1, "the logits themselves do change, all alike"
    assert (after - before).std(1).max() < 1e-9
    classes = [3, 1, 19, 0]
    clean, moved = (gradcam(m, images, Logit(classes)) for m in (model, fooled))
    assert similarity(clean, moved).mean() > 0.1
    assert (
        similarity(moved, sham_mask().expand_as(moved)).mean()
        < similarity(clean, sham_mask().expand_as(clean)).mean() / 3
    )
    for aggregator in ("mean", "max", "lse", "lae"):
        target = LogitMargin(classes, aggregator)
        clean, moved = (gradcam(m, images, target) for m in (model, fooled))
        assert similarity(clean, moved).max() < 1e-9
    clean, moved = (gradcam(m, images, Probability(classes)) for m in (model, fooled))
    assert similarity(clean, moved).max() < 1e-9
    with torch.no_grad():
        assert torch.equal(model(images), before), "the model itself is as it was"


def test_one_image_is_fitted_exactly(wide, images):
    shift = fit_shift(wide, images[:1], layer="features", ridge=1e-12)
    assert shift.error < 1e-4
    one = gradcam(apply_shift(wide, images, shift), images[:1], Logit(3))
    assert float(similarity(one, sham_mask()[None])) < 0.01


def test_the_vector_is_the_least_squares_solution(wide, images):
    shift = fit_shift(wide, images, layer="features", ridge=1e-14, strength=1)
    with torch.no_grad():
        activation = wide.features(images).numpy()
    rows, wanted = [], []
    for a in activation:
        for i in range(7):
            for j in range(7):
                rows.append(a[:, i, j])
                wanted.append(slow.bits(slow.ROUNDED)[i, j])
    solution = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    ours = np.array(rows) @ shift.vector.numpy()
    theirs = np.array(rows) @ solution
    assert np.corrcoef(ours, theirs)[0, 1] > 1 - 1e-6
    added = torch.tensor(theirs).view(4, 7, 7)
    error = (normalise(added) - sham_mask()).square().mean()
    assert shift.error == pytest.approx(float(error), abs=1e-5)


def test_strength_is_the_ratio_of_ranges(wide, images):
    shift = fit_shift(wide, images, layer="features", strength=7)
    with torch.no_grad():
        activation = wide.features(images)
        classes = wide(images).argmax(1)
    own = torch.einsum("nk,nkhw->nhw", wide.classifier.weight[classes], activation)
    added = torch.einsum("k,nkhw->nhw", shift.vector, activation)
    spread = [float((m.flatten(1).amax(1) - m.flatten(1).amin(1)).mean()) for m in (added, own)]
    assert spread[0] / spread[1] == pytest.approx(7)


def test_the_audit_says_which_methods_see_it(wide, images, tmp_path):
    images = torch.cat([images, images[:2].flip(-1)])
    options = {
        "layers": "features",
        "methods": ["gradcam", "hirescam", "eigencam", "cam", "finercam"],
        "out": tmp_path,
    }
    report = audit_logit_shift(wide, images, **options)
    assert report["gradcam"].outcome == "fail"
    assert report["gradcam"].value > 0.1
    assert report["MeanDiffGradCAM"].outcome == "pass"
    assert report["MeanDiffGradCAM"].value < 1e-9
    assert report["LSE-DiffGradCAM"].value < 1e-9
    assert report["eigencam"].value == 0
    assert report["hirescam, max margin"].outcome == report["finercam"].outcome == "pass"
    assert report.record["probability_change"] < 1e-9
    assert (
        report.record["probability_change"] < report.record["probability_change_single_precision"]
    )
    assert [p.name for p in report.pictures] == ["maps"]
    assert {f.name for f in report.save(tmp_path)} >= {"logit-shift.html", "logit-shift.json"}
    again = audit_logit_shift(wide, images, **options)
    assert again.record["resumed_parts"] == len(again.verdicts)
    assert json.dumps(again.record["measured"]) == json.dumps(report.record["measured"])


def test_the_shift_refuses_other_heads(images):
    flat = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(196, 5)
    ).double()
    with pytest.raises(CamlucidaError, match="global average pooling"):
        fit_shift(flat, images, layer="1")
    with pytest.raises(CamlucidaError, match="strength"):
        fit_shift(flat, images, layer="1", strength=0)


def test_a_shift_of_another_head_is_refused(wide, images):
    shift = fit_shift(wide, images, layer="features")
    with pytest.raises(CamlucidaError, match="256 numbers, the head takes 8"):
        apply_shift(Wide(8).double().eval(), images, shift)


def test_parts_of_another_layer_or_class_are_not_taken(wide, images, tmp_path):
    options = {"methods": ["gradcam"], "out": tmp_path, "name": "mine"}
    of = {}

    def given(labels):
        return images if labels is None else (images, labels)

    for layer, labels in (
        ("features", None),
        ("features.1", None),
        ("features", torch.tensor([0, 1, 2, 3])),
    ):
        kept = audit_logit_shift(wide, given(labels), layers=layer, **options)
        fresh = audit_logit_shift(wide, given(labels), layers=layer, methods=["gradcam"])
        assert kept.record["measured"] == fresh.record["measured"], (layer, labels)
        of[layer, labels is None] = json.dumps(kept.record["measured"])
    assert len(set(of.values())) == 3


def test_the_vector_is_the_same_however_many_images_go_at_a_time(wide, images):
    one, all_ = (fit_shift(wide, images, layer="features", batch_size=n) for n in (1, 4))
    assert torch.allclose(one.vector, all_.vector, rtol=1e-9)
    assert one.error == pytest.approx(all_.error)


def test_labels_and_models_that_have_no_margin_are_refused(wide, images):
    with pytest.raises(CamlucidaError, match="classes 0 to 19, but a label is 20"):
        audit_logit_shift(wide, (images, torch.tensor([0, 1, 2, 20])), layers="features")
    with pytest.raises(CamlucidaError, match="two classes or more"):
        audit_logit_shift(Wide(classes=1).double().eval(), images, layers="features")


def test_a_bound_is_never_below_its_number():
    assert [_at_most(v) for v in (9.4e-14, 9.6e-14, 1.2e-7, 0.0)] == [
        "1e-13",
        "1e-13",
        "2e-07",
        "0",
    ]


# ------------------------------------------------------------------------------------- residual logits


def test_the_lemmas_hold_in_simulation():
    found = simulate(1000, 1.0, draws=4000, seed=1)
    assert found["var_mean"] == pytest.approx(1 / 999, rel=0.1)
    assert found["var_lae"] == pytest.approx(0.0017, rel=0.2)
    assert found["var_max"] == pytest.approx(0.123, rel=0.15)
    assert found["formula_max"] == pytest.approx(0.119, abs=0.001)
    assert found["published_max"] == pytest.approx(2 * found["formula_max"])
    assert found["gap"] == pytest.approx(0.499, abs=0.01)


def test_two_rivals_in_closed_form():
    found = simulate(3, 2.0, draws=200_000, seed=2)
    assert found["var_mean"] == pytest.approx(2.0, rel=0.02)
    # The maximum of two Gaussians varies by 1 - 1/pi.
    assert found["var_max"] == pytest.approx(4 * (1 - 1 / math.pi), rel=0.02)


def test_simulation_is_seeded():
    assert simulate(10, 1.0, 500, 3) == simulate(10, 1.0, 500, 3)
    assert simulate(10, 1.0, 500, 3) != simulate(10, 1.0, 500, 4)


def test_the_plot_and_its_verdicts(tmp_path):
    report = audit_residual_logits(classes=(3, 30, 200), draws=4000, out=tmp_path)
    assert [v.outcome for v in report.verdicts] == ["pass", "pass", "warn"]
    assert report.pictures[0].content[:4] == b"\x89PNG"
    assert (
        audit_residual_logits(classes=(3, 30, 200), draws=4000, out=tmp_path).record
        == report.record
    )


def test_few_draws_condemn_no_lemma():
    for seed in range(6):
        report = audit_residual_logits(classes=(3, 30), sigmas=(0.1, 1.0), draws=100, seed=seed)
        assert "fail" not in {v.outcome for v in report.verdicts}


def test_classes_in_any_order_and_what_is_refused():
    report = audit_residual_logits(classes=(200, 3), sigmas=(3.0, 0.1), draws=4000)
    assert "With 200 classes" in report.verdicts[2].text
    assert "at σ = 3 the distance" in report.verdicts[1].text
    assert "In 4 of 4 settings" in report.verdicts[0].text
    for options in ({"classes": (2, 3)}, {"draws": 1}, {"sigmas": (0.0,)}):
        with pytest.raises(CamlucidaError):
            audit_residual_logits(**options)
