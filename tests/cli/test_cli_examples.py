"""The commands layers-report, examples, cases and survey, end to end on a tiny network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camlucida.models
from camlucida.data.preprocess import Preprocess
from camlucida.models import LoadedModel
from reference.commands import run

FAST = "icam:n_perturb=1"


@pytest.fixture
def model(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    ).eval()  # fmt: skip
    loaded = LoadedModel(net, "tiny", Preprocess(size=(12, 12), resize=None), ("ham", "egg"))
    monkeypatch.setattr(camlucida.models, "load_model", lambda *_a, **_o: loaded)
    return loaded


@pytest.fixture
def photos(tmp_path):
    for label in ("ham", "egg"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(3):
            seed = i + (10 if label == "ham" else 0)
            pixels = np.random.default_rng(seed).integers(0, 256, (12, 14, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / label / f"{label}{i}.png")
    return tmp_path / "train"


@pytest.mark.usefixtures("model")
def test_layers_report(capsys, photos, tmp_path):
    out = tmp_path / "out"
    photo = photos / "ham" / "ham0.png"
    arguments = ("layers-report", photo, "--runs", "2", "--method", FAST, "--out", out)
    code, text, err = run(capsys, *arguments)
    assert (code, err) == (0, [])
    names = {p.name for p in out.iterdir()}
    assert names == {
        "ham0.layers.png", "ham0.layers-bars.png", "ham0.layers.npz", "ham0.layers.json",
    }  # fmt: skip
    document = json.loads((out / "ham0.layers.json").read_text())
    assert [row["layer"] for row in document["layers"]] == ["1", "3"]
    assert all(row["layer"] in text for row in document["layers"])
    assert document["provenance"]["options"]["runs"] == 2
    with np.load(out / "ham0.layers.npz") as stored:
        assert stored["layer:1"].shape == (1, 12, 12)
    code, text, _ = run(capsys, *arguments, "--layer", "3", "--json", "--class", "egg")
    assert code == 0
    assert [row["weight"] for row in json.loads(text)["layers"]] == [1]


@pytest.mark.usefixtures("model")
def test_examples(capsys, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # paths are long here
    (photos / "egg" / "broken.png").write_bytes(b"no")
    out = tmp_path / "out"
    photo = tmp_path / "new.png"
    Image.open(photos / "egg" / "egg1.png").save(photo)
    arguments = ("examples", photo, "--train", photos, "--true", "egg", "-k", 2)
    code, text, err = run(capsys, *arguments, "--method", FAST, "--out", out)
    assert code == 0
    assert all("broken.png" in line for line in err)
    assert "egg1.png" in text
    document = json.loads((out / "new.examples.json").read_text())
    side = next(s for s in document["sides"] if "true" in s["role"])
    assert side["neighbours"][0]["file"].endswith("egg1.png")
    assert side["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert (out / "new.examples.png").stat().st_size > 1000
    code, text, _ = run(capsys, *arguments, "--method", FAST, "--out", out, "--json")
    assert json.loads(text)["computed"] <= 1  # the broken one is tried again


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("layers-report", "--method", FAST), "layers"),
        (("examples", "--train", "{train}", "-k", 1, "--method", FAST), "examples"),
        (("cells", "--layer", "2", "--method", "fame:iterations=1"), "cells"),
        (("cells", "--depth", "--most", 1, "--method", "fame:iterations=1"), "depth"),
    ],
)
def test_photos_of_one_name_do_not_overwrite_each_other(capsys, photos, tmp_path, command, kind):
    out = tmp_path / "out"
    arguments = [str(a).format(train=photos) for a in command]
    for label in ("ham", "egg", "ham"):  # the third run replaces the first
        file = tmp_path / label / "new.png"
        file.parent.mkdir(exist_ok=True)
        Image.open(photos / label / f"{label}0.png").save(file)
        code, _, err = run(capsys, *arguments, file, "--out", out)
        assert (code, err) == (0, [])
    first, second = (json.loads((out / f"{n}.{kind}.json").read_text()) for n in ("new", "egg-new"))
    assert (first["path"], second["path"]) == (
        str(tmp_path / "ham" / "new.png"),
        str(tmp_path / "egg" / "new.png"),
    )
    assert len(list(out.glob(f"*.{kind}.png"))) == 2


@pytest.mark.usefixtures("model")
def test_examples_after_ctrl_c_keep_the_cache(capsys, photos, tmp_path, monkeypatch):
    from camlucida.studies.icam.neighbours import nearest as module

    real, calls = module.describe, []

    def describe(*arguments, **options):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, "describe", describe)
    out = tmp_path / "out"
    arguments = ("examples", photos / "ham" / "ham0.png", "--train", photos, "--true", "egg")
    code, _, err = run(capsys, *arguments, "--method", FAST, "--out", out, "--batch-size", 1)
    assert code == 130
    assert err == ["camlucida: stopped"]
    assert [p.suffix for p in out.iterdir()] == [".npz"]


@pytest.mark.usefixtures("model")
def test_cases(capsys, photos, tmp_path):
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\negg0.png,2,2,8,8\n")
    out = tmp_path / "out"
    arguments = ("cases", photos, "--boxes", tmp_path / "boxes.csv", "--method", FAST)
    code, text, err = run(capsys, *arguments, "--out", out, "--dial", 1)
    assert (code, err) == (0, [])
    assert "confident and wrong" in text
    assert {p.name for p in out.iterdir()} == {
        "cases.html", "cases.json", "cases.patchiness.png", "parts",
    }  # fmt: skip
    document = json.loads((out / "cases.json").read_text())
    assert sum(row["photos"] for row in document["cases"]) == 6
    near = ("--train", photos, "--nearest", 1, "--selection", "paper")
    code, _, err = run(capsys, *arguments, *near, "--out", tmp_path / "near")
    assert (code, err) == (0, [])
    chosen = json.loads((tmp_path / "near" / "cases.json").read_text())
    assert set(chosen["selection"]) == {"ham", "egg"}
    sides = [side for photo in chosen["photos"] for side in photo["sides"]]
    assert sides
    assert all(len(side["nearest"]) == 1 for side in sides)
    assert document["confidence_dialled"]["images"] == 1
    code, text, _ = run(capsys, *arguments, "--out", out, "--dial", 0, "--json")
    assert json.loads(text)["confidence_dialled"] is None


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    "method", ["gradcam", "saliency", "diffgradcam:aggregator=max", "eigencam"]
)
def test_cases_and_examples_of_any_method_and_class(capsys, photos, tmp_path, method):
    out = tmp_path / "out"
    arguments = ("cases", photos, "--method", method, "--out", out)
    code, text, err = run(capsys, *arguments, "--explain", "egg")
    assert (code, err) == (0, [])
    assert "patch" not in text
    assert {p.name for p in out.iterdir()} == {"cases.html", "cases.json", "parts"}
    page = (out / "cases.html").read_text()
    assert "explains egg" in page
    assert not any(word in page for word in ("atchiness", "float32", "alpha"))
    assert page.index("Confident and wrong") < page.index("Confident and right")
    photo = photos / "ham" / "ham0.png"
    arguments = ("examples", photo, "--train", photos, "--class", "ham", "--class", "egg", "-k", 2)
    code, text, err = run(capsys, *arguments, "--method", method, "--out", out)
    assert (code, err) == (0, [])
    document = json.loads((out / "ham0.examples.json").read_text())
    assert {side["class_name"] for side in document["sides"]} == {"ham", "egg"}
    assert all(n["distance"] < 2 for side in document["sides"] for n in side["neighbours"])
    assert [len(side["neighbours"]) for side in document["sides"]] == [2, 2]


@pytest.mark.usefixtures("model")
def test_the_study_of_numerics_is_of_icam(capsys, photos, tmp_path):
    arguments = ("cases", photos, "--method", "gradcam", "--dial", 1, "--out", tmp_path / "out")
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "ICAM only" in err[0]


@pytest.mark.usefixtures("model")
def test_cases_go_on_after_ctrl_c(capsys, photos, tmp_path, monkeypatch):
    from camlucida.studies.icam.four_cases.run import Examination

    real, calls = Examination.__call__, []

    def examine(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Examination, "__call__", examine)
    arguments = ("cases", photos, "--method", FAST, "--dial", 1, "--batch-size", 2)
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "out")
    assert (code, err) == (130, ["camlucida: stopped"])
    assert len(list((tmp_path / "out/parts").iterdir())) == 2
    code, again, _ = run(capsys, *arguments, "--out", tmp_path / "out", "--json")
    assert (code, len(calls)) == (0, 4)  # two photos at a time; two of three parts were there
    code, whole, _ = run(capsys, *arguments, "--out", tmp_path / "whole", "--json")
    assert code == 0
    assert json.loads(again) == json.loads(whole)


@pytest.mark.usefixtures("model")
def test_survey(capsys, photos, tmp_path):
    (photos / "ham" / "broken.png").write_bytes(b"no")
    page = tmp_path / "out" / "survey.html"
    methods = ("--method", "gradcam", "--method", "layercam")
    code, text, err = run(capsys, "survey", "make", photos, *methods, "--out", page)
    assert (code, len(err)) == (0, 1), err
    assert "broken.png" in err[0]
    key = json.loads((tmp_path / "out" / "survey.key.json").read_text())
    assert key["survey"] in text
    assert key["survey"] in page.read_text()
    assert key["methods"] == ["gradcam", "layercam"]
    given = {"survey": key["survey"], "rater": "a", "answers": {"q1": "A", "q2": "tie"}}
    (tmp_path / "a.json").write_text(json.dumps(given))
    tally = ("survey", "tally", tmp_path / "out" / "survey.key.json", tmp_path / "a.json")
    code, text, err = run(capsys, *tally)
    assert (code, err) == (0, [])
    assert "gradcam" in text
    code, text, _ = run(capsys, *tally, "--json")
    assert json.loads(text)["answers"] == 2


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("layers-report", "{photo}", "--method", "gradcam"), "ICAM only"),
        (("layers-report", "{photo}", "--method", "icam:nope=1"), "nope"),
        (("layers-report", "{photo}", "--layer", "nope"), "nope"),
        (("layers-report", "none.png"), "no such file"),
        (("examples", "{photo}", "--train", "none"), "no such file or folder"),
        (("examples", "{photo}", "--train", "{train}", "--true", "cheese"), "cheese"),
        (("examples", "{photo}", "--train", "{photo}"), "is a file"),
        (("cases", "none"), "no such file or folder"),
        (("cases", "{train}", "--threshold", "2"), "threshold"),
        (("cases", "{train}", "--boxes", "none.csv"), "no such table"),
        (("survey", "make", "{train}", "--method", "gradcam"), "2 to 10 methods"),
        (("survey", "make", "{train}", "--method", "gradcam", "--out", "x.pdf"), ".html"),
        (("survey", "tally", "{photo}", "{photo}"), "no text file"),
        (("survey", "tally", "none.json", "{photo}"), "no such file"),
    ],
)
def test_what_goes_wrong_is_one_line(
    capsys, photos, tmp_path, monkeypatch, arguments, words
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    places = {"photo": photos / "ham" / "ham0.png", "train": photos}
    code, out, err = run(capsys, *(a.format(**places) for a in arguments))
    assert (code, out, len(err)) == (2, "", 1)
    assert words in err[0]


@pytest.mark.parametrize(
    "command", [("layers-report",), ("examples",), ("cases",), ("survey", "make"), ("survey", "tally")]
)  # fmt: skip
def test_help(capsys, command):
    code, out, err = run(capsys, *command, "--help")
    assert (code, err) == (0, [])
    assert "--help" in out


@pytest.mark.usefixtures("model")
def test_figures_and_analyses_of_the_papers(capsys, photos, tmp_path):
    photo, fast = photos / "ham" / "ham0.png", ("--method", FAST)
    for name, arguments, shown in (
        ("fame-figure1", (photo, "--iterations", 2, "--sigma", 0, "--sigma", 2), "sigma 2 px"),
        ("fame-starts", (photos, "--setting", "1x2", "--setting", "2x1", "--paths", 2, "--length", 2), "2 x 1"),
        ("icam-figure1", (photo, "--method", "icam:n_perturb=3"), "agreement"),
        ("icam-layers", (photos, *fast, "--label"), "pseudo-F"),
        ("icam-ablation", (photo, *fast, "--part", "bias"), "bias=spatial"),
    ):  # fmt: skip
        out = tmp_path / name
        code, text, err = run(capsys, "reproduce", name, *arguments, "--out", out)
        assert (code, err) == (0, []), name
        assert shown in text
        written = {file.name for file in out.iterdir()}
        assert {f"{name}.html", f"{name}.json"} < written
        assert (f"{name}-1.png" in written) == (name not in {"fame-starts", "icam-ablation"})
    code, _, err = run(capsys, "reproduce", "fame-starts", photo, "--setting", "8by62")
    assert (code, len(err)) == (2, 1)
    assert "8x62" in err[0]


@pytest.mark.usefixtures("model")
def test_cells_of_networks_side_by_side(capsys, photos, tmp_path):
    arguments = (
        "cells",
        photos / "ham" / "ham0.png",
        "--method",
        "fame:iterations=1",
        "--out",
        tmp_path,
    )
    code, text, err = run(capsys, *arguments, "--layer", 2, "--beside", "other")
    assert (code, err) == (0, [])
    assert "tiny-2: 3" in text
    document = json.loads((tmp_path / "ham0.cells.json").read_text())
    assert [one["layer"] for one in document["layers"]] == ["2", "3"]


@pytest.mark.usefixtures("model")
def test_audit_of_layer_scores(capsys, photos, tmp_path):
    arguments = ("audit", "layer-scores", "--data", photos, "--method", FAST, "--out", tmp_path)
    code, text, err = run(capsys, *arguments)
    assert code == 0, err
    assert "layer-scores.html" in text
    document = json.loads((tmp_path / "layer-scores.json").read_text())
    assert [v["outcome"] for v in document["verdicts"]] == [
        "not tested"
    ] * 2  # two layers are no order
