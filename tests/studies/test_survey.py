"""The blind survey: nothing gives the methods away, and the tally counts right."""

import json
import re
import stat
from math import comb

import numpy as np
import pytest
import torch
from torch import nn

from camlucida import explain
from camlucida.common.errors import CamlucidaError
from camlucida.methods import GradCAM, LayerCAM, Saliency
from camlucida.studies.survey import (
    TIE,
    _independent,
    _orders,
    key_file,
    make_survey,
    save_key,
    tally,
)


@pytest.fixture(scope="module")
def comparison():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()  # fmt: skip
    names = ("cat, tabby", "<dog>", "fox")
    x = torch.randn(6, 3, 8, 8)
    return explain(net, x, method=[GradCAM(), LayerCAM(), Saliency()], class_names=names)


@pytest.fixture(scope="module")
def survey(comparison):
    return make_survey(comparison, seed=3)


def sheet(survey, rater, best):
    """The answers of someone who always prefers a method, or by a function of the question's position."""
    answers = {}
    for i, q in enumerate(survey.key["questions"]):
        method = best(i) if callable(best) else best
        by_method = {m: letter for letter, m in q["letters"].items()}
        answers[q["question"]] = by_method.get(method, method)
    return {"survey": survey.id, "rater": rater, "answers": answers}


# ---- the page -----------------------------------------------------------------------------------


def test_the_page_names_no_method_and_fetches_nothing(survey):
    text = re.sub(r"data:image/[^\"]*", "", survey.html).lower()
    for word in ("gradcam", "layercam", "saliency", "seed"):
        assert word not in text
    assert not re.search(r"(src|href)=\"(?!data:)", survey.html)
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_the_page_is_accessible_and_escaped(survey):
    assert '<html lang="en">' in survey.html
    assert survey.html.count("<fieldset>") == survey.html.count("<legend>") == 6
    images = re.findall(r"<img[^>]*>", survey.html)
    assert len(images) == 6 * 4
    assert all(re.search(r"alt=\"[^\"]+\"", image) for image in images)
    inputs = re.findall(r"<label[^>]*>(?:<img[^>]*>)?<input type=\"radio\"", survey.html)
    assert len(inputs) == 6 * 4  # every button has a label; three maps and the tie
    assert "<dog>" not in survey.html


def test_maps_go_under_the_letters_of_the_key(comparison):
    from camlucida.report.template import data_uri, jpeg
    from camlucida.studies.survey import _item

    made = make_survey(comparison, seed=5)
    cards = re.findall(
        r'<img src="([^"]+)" alt="Map ([A-C]) of picture (\d)"', made.html
    )  # fmt: skip
    assert len(cards) == 18
    for uri, letter, number in cards:
        method = made.key["questions"][int(number) - 1]["letters"][letter]
        expected = _item("", int(number) - 1, [comparison[method]])["maps"][0]["picture"]
        assert uri == expected
    assert data_uri(b"x", "image/jpeg") == "data:image/jpeg;base64,eA=="
    assert jpeg(comparison["gradcam"].overlay(0))[:2] == b"\xff\xd8"


def test_all_maps_have_the_same_scale(comparison):
    from dataclasses import replace

    doubled = replace(comparison["gradcam"], maps=comparison["gradcam"].maps * 0.3 + 0.2)
    one = make_survey({"first": comparison["gradcam"], "second": comparison["layercam"]})
    two = make_survey({"first": doubled, "second": comparison["layercam"]})
    assert one.html.count("data:image") == two.html.count("data:image")
    small = len(
        set(re.findall(r"data:[^\"]+", one.html)) ^ set(re.findall(r"data:[^\"]+", two.html))
    )
    assert small <= 2  # rounding may move a grey level


def test_places_are_balanced_and_seeded():
    orders = np.array(_orders(12, 3, seed=0))
    for place in range(3):
        assert np.bincount(orders[:, place]).tolist() == [4, 4, 4]
    assert _orders(12, 3, 0) == orders.tolist()
    assert _orders(12, 3, 1) != orders.tolist()
    assert len({tuple(o) for o in orders.tolist()}) > 3
    assert len(_orders(4, 3, 0)) == 4


def test_the_same_seed_gives_the_same_survey(comparison, survey):
    again = make_survey(comparison, seed=3)
    assert (again.html, again.key) == (survey.html, survey.key)
    assert make_survey(comparison, seed=4).id != survey.id


def test_what_makes_no_survey(comparison):
    only = {"gradcam": comparison["gradcam"]}
    with pytest.raises(CamlucidaError, match="2 to 10 methods"):
        make_survey(only)
    with pytest.raises(CamlucidaError, match="same images"):
        make_survey({**only, "b": comparison["layercam"][0]})
    with pytest.raises(CamlucidaError, match="away"):
        make_survey(comparison, question="Is GradCAM best?")


def test_the_key_is_for_its_owner_only(survey, tmp_path):
    file = key_file(tmp_path / "survey.html")
    assert file.name == "survey.key.json"
    save_key(survey, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == survey.key


# ---- the tally ----------------------------------------------------------------------------------


def test_wins_ties_share_and_spread(survey):
    half = sheet(survey, "b", lambda i: "layercam" if i < 3 else TIE)
    found = tally(survey.key, [sheet(survey, "a", "layercam"), half], permutations=99)
    by_method = {m.method: m for m in found.methods}
    assert by_method["layercam"].wins == pytest.approx((6 + 4) / 2)
    assert by_method["gradcam"].wins == pytest.approx(0.5)
    assert by_method["layercam"].spread == pytest.approx(np.std([6, 4], ddof=1))
    assert by_method["layercam"].share == pytest.approx(10 / 12)
    assert by_method["layercam"].clear == 9
    assert (found.raters, found.questions, found.answers, found.ties) == (2, 6, 12, 3)
    assert sum(m.share for m in found.methods) == pytest.approx(1)
    assert found.__rich__().row_count == 3
    assert json.loads(json.dumps(found.to_dict()))["raters"] == 2


def test_files_and_missing_answers(survey, tmp_path):
    save_key(survey, tmp_path / "survey.key.json")
    given = sheet(survey, "a", "gradcam")
    del given["answers"]["q1"]
    (tmp_path / "a.json").write_text(json.dumps(given))
    found = tally(tmp_path / "survey.key.json", [tmp_path / "a.json"], permutations=9)
    assert found.answers == 5
    assert found.methods[0].wins == 5
    assert found.methods[0].spread is None


def test_equal_preference(survey):
    methods = survey.key["methods"]
    fair = tally(survey.key, [sheet(survey, "a", lambda i: methods[i % 3])], permutations=999)
    assert fair.p == 1
    assert fair.p_independent == pytest.approx(1)
    # Ten people who agree on six pictures are six pictures' worth of evidence.
    crowd = tally(survey.key, [sheet(survey, f"r{i}", "saliency") for i in range(10)])
    assert crowd.p == pytest.approx(3 / 3**6, abs=0.003)
    assert crowd.p_independent < 1e-12
    ties = tally(survey.key, [sheet(survey, "a", TIE)], permutations=9)
    assert (ties.p, ties.p_independent) == (1, None)


def test_independent_test_against_slow_formulas():
    assert _independent([8, 2]) == pytest.approx(2 * sum(comb(10, k) for k in (8, 9, 10)) / 2**10)
    assert _independent([5, 5]) == 1
    # Three methods: two degrees of freedom, where the tail is exp(-x / 2).
    statistic = ((9 - 5) ** 2 + (3 - 5) ** 2 + (3 - 5) ** 2) / 5
    assert _independent([9, 3, 3]) == pytest.approx(np.exp(-statistic / 2))


def test_wrong_sheets(survey, tmp_path):
    good = sheet(survey, "a", "gradcam")
    wrong = [
        ([good, good], "same rater"),
        ([{**good, "survey": "x"}], "belongs to the survey"),
        ([{**good, "answers": {"q1": "Z"}}], "was not asked"),
        ([{**good, "answers": {"q99": "A"}}], "was not asked"),
        ([{**good, "answers": ["A"]}], "no answers"),
        ([{**good, "answers": {}}], "no answers to count"),
        ([{**good, "rater": None}], "whose"),
        ([], "no answers to count"),
        ([tmp_path / "none.json"], "no such file"),
    ]
    for sheets, words in wrong:
        with pytest.raises(CamlucidaError, match=words):
            tally(survey.key, sheets)
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(CamlucidaError, match="no JSON object"):
        tally(tmp_path / "bad.json", [good])
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CamlucidaError, match="not JSON"):
        tally(tmp_path / "bad.json", [good])


def test_a_changed_key_is_noticed(survey):
    changed = json.loads(json.dumps(survey.key))
    letters = changed["questions"][0]["letters"]
    letters["A"], letters["B"] = letters["B"], letters["A"]
    with pytest.raises(CamlucidaError, match="was changed"):
        tally(changed, [sheet(survey, "a", "gradcam")])
    with pytest.raises(CamlucidaError, match="not the key"):
        tally({"survey": "x"}, [])


def test_a_model_and_photos_make_a_survey():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    made = make_survey(net, torch.rand(3, 3, 16, 16), ["gradcam", "saliency"], seed=3)
    assert made.key["methods"] == ["gradcam", "saliency"]
    with pytest.raises(CamlucidaError, match="needs photos"):
        make_survey(net)
