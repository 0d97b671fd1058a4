"""Metrics on explanations: which maps they look at, what counts, and their names."""

import math
from dataclasses import replace

import pytest
import torch

import camlucida
from camlucida import CamlucidaError
from camlucida.engine.maps import normalise, resize
from camlucida.metrics import (
    SSIM,
    BoxIoU,
    CAMEntropy,
    Complexity,
    DeadZoneActivity,
    IoU,
    PointingGame,
    RankCorrelation,
    SaliencyScore,
    Scene,
    Similarity,
    TopKMass,
    box_iou,
    build_metric,
    cam_entropy,
    dead_zone_activity,
    describe_number,
    fill_boxes,
    iou,
    list_metrics,
    rank_correlation,
    similarity,
    ssim,
)
from reference import networks

SIZE = (12, 14)
BOXES = (
    torch.tensor([[2.0, 1.0, 9.0, 8.0], [0.0, 0.0, 3.0, 3.0]]),
    torch.empty(0, 4),
    torch.tensor([[5.0, 5.0, 5.0, 9.0]]),  # the crop left nothing of it
)
OURS = [row for row in list_metrics() if row.make.__module__.startswith("camlucida")]


class Coarse(torch.nn.Module):
    """Feature maps of half the size."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 2, stride=2)
        self.head = torch.nn.Sequential(networks.Gap(), torch.nn.Linear(4, 3))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture(scope="module")
def scene():
    model = networks.randomise(Coarse().double().eval(), 0)
    x = networks.images(3, 3, SIZE)
    with torch.no_grad():
        logits = model(x)
    references = {"gradcam": camlucida.explain(model, x, method="gradcam", layers="features")}
    masks = fill_boxes(BOXES, SIZE)
    predicted = logits.argmax(1)
    return Scene(
        model, x, logits, predicted, predicted.clone(), BOXES, masks,
        torch.zeros(3, dtype=torch.bool), camlucida.Preprocess(size=SIZE, resize=None),
        references=references,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(scene):
    return camlucida.explain(scene.model, scene.inputs, method="layercam", layers="features")


@pytest.mark.parametrize("row", OURS, ids=lambda r: r.name)
def test_every_metric_measures_what_it_names(row, scene, found):
    if row.name == "dead_zone":
        metric = build_metric(row.name, dead_rows=3)
    elif "samples" in row.options:
        metric = build_metric(row.name, samples=2)
    else:
        metric = build_metric(row.name)
    measured = metric.measure(scene, found)
    assert tuple(measured.values) == metric.names
    assert set(measured.curves) == set(measured.at) <= set(measured.values)
    for name, values in measured.values.items():
        number = describe_number(name)
        assert number.metric == row.name
        assert values.shape == (3,)
        assert values.is_floating_point()
        there = values[values.isfinite()]
        low, high = number.range
        assert ((there >= low) & (there <= high)).all()
    for name, heights in measured.curves.items():
        assert heights.shape == (3, len(measured.at[name]))


def test_iou_is_fames_protocol(scene, found):
    measured = IoU(points=5).measure(scene, found)
    first = fill_boxes(BOXES, SIZE, "first")
    for t in (0.3, 0.5, 0.7):
        values = measured.values[f"iou@{t:g}"]
        torch.testing.assert_close(values[[0, 2]], iou(found.maps, first, t)[[0, 2]])
        assert values[1].isnan()  # no box: does not count
        assert values[2] == 0  # a box outside the crop: counts, as published
    at, curve = measured.at["iou_area"], measured.curves["iou_area"]
    assert at.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve[0, 0].item() == pytest.approx(49 / 168)
    area = (curve[0, 0] / 2 + curve[0, 1:4].sum() + curve[0, 4] / 2) / 4
    assert measured.values["iou_area"][0].item() == pytest.approx(area.item())


def test_iou_of_the_mask(scene, found):
    exact = torch.zeros(3, *SIZE, dtype=torch.bool)
    exact[1, 3:6, 3:6] = True
    values = IoU(truth="mask").measure(replace(scene, masks=exact), found).values["iou@0.5"]
    assert values.isnan().tolist() == [True, False, True]
    assert values[1] == iou(found.maps, exact, 0.5)[1]


def test_correct_predictions_only(scene, found):
    wrong = replace(scene, labels=torch.tensor([-1, 0, 0]))
    for metric, name in ((BoxIoU, "box_iou"), (SaliencyScore, "saliency_score")):
        assert metric().measure(wrong, found).values[name][0].isnan()
        everyone = metric(correct_only=False).measure(wrong, found).values[name]
        torch.testing.assert_close(
            everyone, metric().measure(scene, found).values[name], equal_nan=True
        )
        assert everyone.isnan().tolist() == [False, True, False]
    assert BoxIoU(gt="first").measure(scene, found).values["box_iou"][0] == box_iou(
        found.maps, BOXES, gt="first"
    )[0]  # fmt: skip


def test_saliency_score_takes_all_boxes_and_pointing_the_mask(scene, found):
    exact = torch.zeros(3, *SIZE, dtype=torch.bool)
    exact[:, :, 7:] = True
    other = replace(scene, masks=exact)
    score = "saliency_score"
    assert (
        SaliencyScore().measure(other, found).values[score][0]
        == (SaliencyScore().measure(scene, found).values[score][0])
    )
    for metric in (build_metric("energy_pointing"), TopKMass(), PointingGame(tolerance=1)):
        before, after = (metric.measure(s, found).values[metric.names[0]] for s in (scene, other))
        assert before.isnan().tolist() == [False, True, True]
        assert not after.isnan().any()


def test_entropy_is_of_the_signed_map_at_the_layer(scene):
    cam = camlucida.explain(scene.model, scene.inputs, method="cam", layers="features")
    assert cam.signed.shape == (3, 6, 7)
    assert (cam.signed < 0).any()
    values = CAMEntropy().measure(scene, cam).values
    assert values["cam_entropy"].equal(cam_entropy(cam.signed))
    torch.testing.assert_close(values["cam_entropy_bits"] * math.log(2), values["cam_entropy"])


def test_dead_zone_is_of_the_rectified_map_before_scaling(scene, found):
    values = DeadZoneActivity(dead_rows=3).measure(scene, found).values
    enlarged = resize(found.raw, SIZE)
    assert values["dead_zone"].equal(dead_zone_activity(enlarged, 3))
    assert values["dead_zone_finished"].equal(dead_zone_activity(found.maps, 3))
    native = DeadZoneActivity(dead_rows=2, resolution="native").measure(scene, found).values
    assert native["dead_zone"].equal(dead_zone_activity(found.raw, 2))
    # A method that keeps signs: its zeros are not lifted.
    signed = replace(found, raw=found.raw - 100)
    blank = DeadZoneActivity(dead_rows=3).measure(scene, signed).values
    assert blank["dead_zone"].tolist() == [0, 0, 0]
    assert blank["blank_map"].tolist() == [1, 1, 1]
    assert blank["seen_area_lost"].tolist() == [1, 1, 1]
    assert values["blank_map"].tolist() == [0, 0, 0]


def test_agreement_is_with_the_reference(scene, found):
    other = scene.references["gradcam"]
    native = Similarity().measure(scene, found).values["similarity@gradcam"]
    assert native.equal(similarity(found.raw, other.raw))
    at_input = Similarity(resolution="input").measure(scene, found).values["similarity@gradcam"]
    assert at_input.equal(similarity(found.maps, other.maps))
    values = RankCorrelation().measure(scene, found).values
    assert values["rank_correlation@gradcam"].equal(rank_correlation(found.raw, other.raw))
    assert (
        SSIM()
        .measure(scene, found)
        .values["ssim@gradcam"]
        .equal(ssim(normalise(found.maps), normalise(other.maps)))
    )
    same = Similarity().measure(scene, other).values["similarity@gradcam"]
    assert same.tolist() == [0, 0, 0]


def test_maps_of_two_sizes_are_compared_at_the_larger(scene):
    pixels = camlucida.explain(scene.model, scene.inputs, method="saliency")
    values = Similarity().measure(scene, pixels).values["similarity@gradcam"]
    assert pixels.raw.shape[1:] == SIZE
    assert values.equal(similarity(pixels.raw, resize(scene.references["gradcam"].raw, SIZE)))


def test_a_missing_reference_says_which_there_are(scene, found):
    with pytest.raises(CamlucidaError, match=r"'eigencam'.*\(gradcam\)"):
        Similarity(reference="eigencam").measure(scene, found)
    with pytest.raises(CamlucidaError, match="explains 3 images, but 1"):
        Similarity().measure(scene, found[0])


@pytest.mark.parametrize(
    ("metric", "options", "text"),
    [
        (IoU, {"thresholds": (0.3, 2)}, "thresholds"),
        (IoU, {"points": 1}, "points"),
        (IoU, {"truth": "last"}, "truth must be"),
        (BoxIoU, {"threshold": 0}, "threshold"),
        (PointingGame, {"tolerance": -1}, "tolerance"),
        (TopKMass, {"k": 0}, "k must"),
        (DeadZoneActivity, {"dead_rows": 0}, "dead_rows"),
        (Similarity, {"resolution": "low"}, "resolution must be"),
    ],
)
def test_options_are_checked(metric, options, text):
    with pytest.raises(CamlucidaError, match=text):
        metric(**options)


def test_blank_maps(scene, found):
    blank = replace(found, maps=torch.zeros(3, *SIZE), raw=torch.zeros(3, 6, 7))
    assert Complexity().measure(scene, blank).values["complexity"].isnan().all()
    assert BoxIoU().measure(scene, blank).values["box_iou"][0] == 0
    assert build_metric("energy_pointing").measure(scene, blank).values["energy_pointing"][0] == 0
    share = PointingGame().measure(scene, blank).values["pointing_game"][0]
    assert share.item() == pytest.approx(scene.masks[0].double().mean().item())


def test_correct_needs_a_known_label(scene):
    assert scene.correct.all()
    assert replace(scene, labels=torch.full((3,), -1)).correct.tolist() == [False] * 3
