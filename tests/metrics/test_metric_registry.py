"""The registry of metrics: names, options, numbers, and metrics from outside."""

import math
from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch

from camlucida import CamlucidaError
from camlucida.metrics import (
    Facts,
    IoU,
    Measured,
    Metric,
    build_metric,
    describe_number,
    list_metrics,
    metric_row,
    register,
)
from camlucida.metrics.registry import METRICS, range_in_words

EXPECTED = {
    "iou", "box_iou", "saliency_score", "energy_pointing", "pointing_game", "top_k_mass",
    "sparseness", "cam_entropy", "complexity", "dead_zone", "similarity", "rank_correlation", "ssim",
    "sensitivity_max", "infidelity",
}  # fmt: skip
FACTS = {"direction": "higher", "range": (0.0, 1.0), "source": "nobody"}


def test_every_metric_is_there():
    assert {row.name for row in list_metrics()} >= EXPECTED


@pytest.mark.parametrize("row", list_metrics(), ids=lambda r: r.name)
def test_rows_are_complete(row):
    assert row.summary.endswith(".")
    assert row.source
    assert row.cost
    assert row.title
    assert is_dataclass(row.make)
    assert row.make.__dataclass_params__.frozen
    assert set(row.options) == {f.name for f in fields(row.make)}
    for option in row.options:
        assert any(f"{option}:" in (base.__doc__ or "") for base in row.make.__mro__), option
    built = row.make()
    assert len(set(built.names)) == len(built.names)
    for name in built.names:
        number = describe_number(name)
        assert number.metric == row.name
        assert number.title
        assert "{}" not in number.title
        assert number.range[0] < number.range[1]
    assert built.describe()["metric"] == row.make.__name__


def test_no_number_belongs_to_two_metrics():
    names = [n for row in list_metrics() for n in row.make().names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["box_iou", "Box IoU", "box-iou", "BOX_IOU"])
def test_spelling_does_not_matter(name):
    assert metric_row(name).name == "box_iou"


def test_unknown_names_suggest():
    with pytest.raises(CamlucidaError, match=r"nearest: .*\bsparseness"):
        build_metric("sparsness")
    assert build_metric("iou:points=3") == IoU(points=3)
    with pytest.raises(CamlucidaError, match="did you mean 'thresholds'"):
        build_metric("iou", threshold=0.3)
    with pytest.raises(CamlucidaError, match="options: none"):
        build_metric("sparseness", k=1)
    with pytest.raises(CamlucidaError, match="iou: points"):
        build_metric("iou", points=0)
    with pytest.raises(CamlucidaError, match=r"nearest: .*\biou"):
        describe_number("iuo@0.3")


def test_options_arrive():
    assert build_metric("iou", thresholds=[0.25], points=3) == IoU((0.25,), points=3)
    assert build_metric("iou", thresholds=[0.25]).names == ("iou@0.25", "iou_area")


def test_numbers_describe_themselves():
    number = describe_number("iou@0.3")
    assert (number.title, number.header) == ("IoU at 0.3", "IoU at 0.3 ↑")
    assert describe_number("similarity@eigencam").header == "MSE to eigencam"
    bits = describe_number("cam_entropy_bits")
    assert (bits.unit, bits.metric, bits.direction) == ("bits", "cam_entropy", "none")
    assert bits.header == "CAM entropy [bits]"
    relative = describe_number("infidelity_relative")
    assert (relative.unit, relative.range, relative.arrow) == ("", (0.0, 1.0), "↓")


def test_what_is_lacking():
    row = metric_row("box_iou")
    assert row.lacking({"logits", "model"}) == ("boxes", "labels")
    assert row.lacking(["boxes", "labels", "logits"]) == ()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((0.0, 1.0), "0 to 1"),
        ((0.0, math.inf), "at least 0"),
        ((-math.inf, 3.0), "at most 3"),
        ((-math.inf, math.inf), "any"),
    ],
)
def test_ranges_in_words(limits, words):
    assert range_in_words(limits) == words


def test_a_metric_from_outside():
    @register("test_outside", **FACTS, numbers={"test_lower": Facts("Low {}", "lower", unit="px")})
    @dataclass(frozen=True)
    class Outside(Metric):
        """A constant.

        Attributes:
            value: what it returns.
        """

        value: float = 2.0

        @property
        def names(self):
            return ("test_outside", "test_lower@x")

        def measure(self, scene, explanation):  # noqa: ARG002
            return Measured.of(test_outside=torch.full((1,), self.value))

    try:
        metric = build_metric("test outside", value=3.0)
        assert metric.measure(None, None).values["test_outside"].item() == 3
        number = describe_number("test_lower@x")
        assert (number.title, number.direction, number.unit) == ("Low x", "lower", "px")
        with pytest.raises(CamlucidaError, match="taken"):
            register("iou", **FACTS)(Outside)
        with pytest.raises(CamlucidaError, match="number name 'iou_area' is taken by metric 'iou'"):
            register("test_other", **FACTS, numbers={"iou_area": Facts("x")})(Outside)
        with pytest.raises(CamlucidaError, match="sideways"):
            register("test_other", **{**FACTS, "direction": "sideways"})
        with pytest.raises(CamlucidaError, match="why; known words: localisation"):
            register("test_other", **FACTS, question="why")
        with pytest.raises(CamlucidaError, match="range"):
            register("test_other", **{**FACTS, "range": (1.0, 0.0)})
        with pytest.raises(CamlucidaError, match="coffee; known words: boxes"):
            register("test_other", **FACTS, needs=("coffee",))
    finally:
        METRICS.remove("test_outside")
    assert metric_row("iou").make is IoU
