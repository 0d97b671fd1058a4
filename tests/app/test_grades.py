"""The grades of an audit beside the methods, and the looks into a photo and a data set."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import camlucida
from camlucida.app.grades import read_grades
from camlucida.app.question import Question, Written, by_name
from camlucida.app.studio import Studio
from camlucida.common.errors import CamlucidaError
from reference.pages import NAMES, serving, small_model


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    photos = [Image.effect_noise((48, 40), 60).convert("RGB") for _ in range(2)]
    report = camlucida.audits.audit_all(
        small_model(), photos, methods=["gradcam", "diffgradcam"], audits=["faithfulness", "logit-shift"]
    )  # fmt: skip
    report.save(folder)
    return folder, report


def test_grades_are_those_of_the_audit(audited):
    folder, report = audited
    grades = read_grades(folder, small_model())
    assert grades.warning == ""
    found = grades.of(camlucida.methods.method_row("gradcam"))
    (own, margin) = report.methods
    for question, answer in own.answers.items():
        shown = found["own"]["answers"][question]
        assert (shown["grade"], tuple(shown["reasons"])) == (answer.grade, answer.reasons)
    assert found["margin"]["label"] == margin.label
    assert grades.of(camlucida.methods.method_row("saliency")) is None


def test_grades_of_other_weights_come_with_a_warning(audited):
    other = small_model()
    other.module[0].weight.data.add_(1)
    assert "other weights" in read_grades(audited[0], other).warning


@pytest.mark.parametrize("text", ["", "[]", "{", '{"methods": [{}]}', '{"methods": 3}'])
def test_a_damaged_report_is_refused_in_words(tmp_path, text):
    (tmp_path / "trust.json").write_text(text)
    with pytest.raises(CamlucidaError, match=r"trust\.json"):
        read_grades(tmp_path, small_model())


def test_classes_are_written_by_name_where_that_is_the_same():
    question = by_name(Question("sample:lion", class_="1", against=("2", "9")), NAMES)
    assert (question.class_, question.against) == ("tabby", ("tiger cat", "9"))
    assert by_name(Question("sample:lion", class_="1"), ("cat", "cat")).class_ == "1"


def test_the_layers_of_icam_and_its_weights(served):
    events = served.work("layers", photo="sample:lion", copies=2)
    picture = served.studio.album["sample:lion"].picture
    found = camlucida.explain(small_model(), picture, method="icam:n_perturb=2")
    layers = [e for e in events if e["event"] == "layer"]
    assert [e["layer"] for e in layers] == list(found.layers)
    np.testing.assert_allclose([e["weight"] for e in layers], found.details["layer_weight"][0])


def test_fame_grows_in_one_descent(served):
    events = served.work("grow", photo="sample:lion", steps=12)
    frames = [e for e in events if e["event"] == "frame"]
    assert [e["steps"] for e in frames] == sorted({e["steps"] for e in frames})
    _, _, body = served.ask("GET", f"/api/values/{frames[-1]['map']['key']}")
    picture = served.studio.album["sample:lion"].picture
    found = camlucida.explain(small_model(), picture, method="fame:iterations=12")
    np.testing.assert_array_equal(np.frombuffer(body, "<f4"), found.numpy().ravel())


def test_what_grows_against_a_rival_is_one_side(served):
    asked = {"photo": "sample:lion", "steps": 12, "class": "1", "against": ["2"]}
    *_, last = (e["map"] for e in served.work("grow", **asked) if e["event"] == "frame")
    assert not last["signed"]
    picture = served.studio.album["sample:lion"].picture
    margin = camlucida.LogitMargin(1, rivals=["tiger cat"])
    found = camlucida.explain(small_model(), picture, method="fame:iterations=12", target=margin)
    _, _, body = served.ask("GET", f"/api/values/{last['key']}")
    np.testing.assert_array_equal(np.frombuffer(body, "<f4"), found.numpy().ravel())


def test_a_cell_is_explained(served):
    (one,) = [
        e
        for e in served.work("cell", photo="sample:lion", cell_layer="4", row=3, column=2, steps=3)
        if e["event"] == "cell"
    ]
    assert one["map"]["size"] == [32, 32]
    assert 0 <= one["inside"] <= 1
    events = served.work("cell", photo="sample:lion", cell_layer="4", row=99, column=0, steps=3)
    assert events[-2]["event"] == "error"


def test_a_data_set_is_looked_through(tmp_path):
    for number, name in enumerate(("tabby", "tiger cat")):
        folder = tmp_path / name
        folder.mkdir()
        for i in range(3):
            picture = Image.effect_noise((40, 40), 40 + 30 * number + i).convert("RGB")
            picture.save(folder / f"{i}.png")
    data = camlucida.data.open_data(tmp_path, class_names=NAMES)
    page, end = serving(Studio([small_model()], [Written("small")], data, tmp_path))
    try:
        rows = [e for e in page.work("rank", count=10) if e["event"] == "row"]
        assert [r["key"] for r in rows] == [f"data:{i}" for i in range(6)]
        for row in rows:
            photo = page.studio.album[row["key"]]
            (best, *_), *_ = camlucida.explain(small_model(), photo.picture).predictions
            assert row["predicted"] == best.name.partition(",")[0]
            assert row["probability"] == pytest.approx(best.probability)
            assert row["right"] == (best.index == photo.label)
        found = page.work("neighbours", photo="data:0")
        (drawn,) = [e for e in found if e["event"] == "picture"]
        assert page.ask("GET", f"/api/pictures/{drawn['key']}")[2].startswith(b"\x89PNG")
    finally:
        end()


def test_two_faces_are_compared_as_verify_does(served):
    pytest.importorskip("dlib")
    first, second = "eileen-collins-1.jpg", "grace-hopper-1.jpg"
    asked = {"probe": f"face:{first}", "gallery": f"face:{second}", "methods": ["gradcam"]}
    events = served.work("verify", **asked)
    (verdict,) = [e for e in events if e["event"] == "verdict"]
    photos = {p.path.name: p for p in camlucida.faces.demo_photos()}
    found = camlucida.faces.explain_pair(
        camlucida.faces.load_embedder("dlib"),
        photos[first],
        photos[second],
        method="gradcam",
        face="largest",
    )
    assert verdict["words"] == found.verdict
    assert "does not show" in verdict["care"]
    (pair,) = [e for e in events if e["event"] == "pair"]
    assert len(pair["pictures"]) == 4
