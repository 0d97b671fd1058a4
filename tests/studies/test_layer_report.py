"""The report of one explanation, and layer importance over labelled images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from camlucida import explain
from camlucida.common.errors import CamlucidaError, ImageError, MethodError
from camlucida.data.preprocess import Preprocess
from camlucida.methods.icam import ICAM
from camlucida.studies.icam import LayerReport, layer_importance
from camlucida.studies.icam.importance import compare_classes, kruskal_wallis, pseudo_f


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.Conv2d(5, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def found(net):
    return explain(net, torch.randn(2, 3, 16, 12), method=ICAM(n_perturb=2, coverage=0.5))


def test_report_holds_what_the_explanation_says(found):
    report = LayerReport.of(found, 1)
    assert [row.layer for row in report] == ["1", "3", "5"]
    for i, row in enumerate(report):
        assert row.score == pytest.approx(float(found.details["layer_score"][1, i]))
        assert row.weight == pytest.approx(float(found.details["layer_weight"][1, i]))
        assert row.kept == float(found.details["layer_kept"][1, i])
        assert (row.map.min(), row.map.max()) == (0, 1)
    assert any(not row.kept for row in report)
    assert report.ranked[0].weight == max(row.weight for row in report)
    assert sorted(row["rank"] for row in report.table()) == [1, 2, 3]
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["layer"] == "1"
    assert report.__rich__().row_count == 3


def test_figures_mark_the_filtered_layers(found):
    report = LayerReport.of(found)
    titles = [axis.get_title() for axis in report.figure().axes]
    assert sum("filtered" in t for t in titles) == sum(not row.kept for row in report)
    bars = report.bars().axes[0].patches
    assert [bool(bar.get_hatch()) for bar in bars] == [not row.kept for row in report]
    assert report._repr_png_()[:4] == b"\x89PNG"


def test_other_methods_have_no_report(net):
    with pytest.raises(CamlucidaError, match="does not weigh layers"):
        LayerReport.of(explain(net, torch.randn(1, 3, 16, 12)))


def test_kruskal_wallis_and_its_permutation_p_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(24, 3)), 1)  # with ties
    labels = np.repeat([0, 1, 2], 8)
    values[labels == 2, 0] += 2
    expected = [stats.kruskal(*(values[labels == g, c] for g in range(3))) for c in range(3)]
    np.testing.assert_allclose(kruskal_wallis(values, labels), [e.statistic for e in expected])
    overall, tests = compare_classes(values, labels, ["a", "b", "c"], permutations=499)
    np.testing.assert_allclose([t.p for t in tests], [e.pvalue for e in expected], atol=0.07)
    assert tests[0].adjusted == pytest.approx(3 * tests[0].p)
    assert overall.p < 0.05


def test_pseudo_f_of_one_column_is_the_f_of_an_analysis_of_variance():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(15, 1)), np.repeat([0, 1, 2], 5)
    expected = stats.f_oneway(*(values[labels == g, 0] for g in range(3))).statistic
    assert pseudo_f(values, labels) == pytest.approx(expected)


def test_one_class_or_one_image_each_cannot_be_compared():
    values = np.random.default_rng(0).normal(size=(4, 2))
    assert compare_classes(values, np.zeros(4, int), ["a", "b"]) == (None, ())
    assert compare_classes(values, np.arange(4), ["a", "b"]) == (None, ())


def test_importance_of_a_folder(net, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels // (1 if name == "cat" else 4)).save(
                tmp_path / name / f"{i}.png"
            )
    preprocess = Preprocess(size=(16, 16), resize=16)
    found = layer_importance(
        net,
        tmp_path,
        method=ICAM(n_perturb=2),
        permutations=49,
        preprocess=preprocess,
        batch_size=4,
    )
    assert found.classes == ("cat", "dog")
    assert found.labels == (0, 0, 0, 1, 1, 1)
    np.testing.assert_allclose(found.shares.sum(1), 1)
    np.testing.assert_allclose(found.mean[1], found.shares[3:].mean(0))
    np.testing.assert_allclose(found.spread[1], found.shares[3:].std(0, ddof=1))
    assert len(found.table()) == 6
    assert len(found.tests) == 3
    assert found.overall is not None
    assert 0 < found.overall.p <= 1
    assert json.dumps(found.to_dict())
    assert found.__rich__().row_count == 3
    assert found.figure().axes
    pairs = [(path, path.parent.name) for path in sorted(tmp_path.rglob("*.png"))]
    again = layer_importance(
        net, pairs, method=ICAM(n_perturb=2), permutations=49, preprocess=preprocess, explain_label=True,
        class_names=["cat", "dog", "owl"],
    )  # fmt: skip
    assert again.classes == found.classes


def test_importance_refuses_what_has_no_labels(net, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="class folders"):
        layer_importance(net, tmp_path)
    with pytest.raises(ImageError, match="no labelled"):
        layer_importance(net, [])
    with pytest.raises(MethodError, match="permutations"):
        layer_importance(net, tmp_path, permutations=0)
