"""One page on many photos: rows, table, order, labels, and a bounded size."""

import csv
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camlucida
from camlucida.explanation import photo_report
from camlucida.explanation.photo_report import _PICTURES, PhotoRow, write_photo_report
from camlucida.report.template import jpeg

NAMES = ["red", "green", "blue"]


def model():
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net[0].weight.data = 5 * torch.eye(3)[:, :, None, None]
    return net.eval()


def photos():
    made = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 4
    for i in range(3):
        made[i, i, :8, :8] += 0.7
    return made


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def rows_of(page):
    with page.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("lazily", [False, True])
def test_mistakes_come_first_and_the_table_has_every_method(tmp_path, lazily):
    methods = ["gradcam", "hirescam", "legrad"]
    ask = camlucida.explain_each if lazily else camlucida.explain
    found = ask(model(), photos(), method=methods, class_names=NAMES)
    page = photo_report(found, tmp_path / "p.html", labels=["red", 0, None])
    data = data_of(page)
    assert [row[5] for row in data["rows"]] == [True, False, None]
    assert data["rows"][0][1:3] == ["red", "green"]
    assert all(row[8].startswith("data:image/jpeg") for row in data["rows"])
    rows = rows_of(page)
    assert len(rows) == 3 * 2
    assert {row["method"] for row in rows} == {"gradcam", "hirescam"}
    assert [row["mistake"] for row in rows[::2]] == ["false", "true", ""]
    text = page.read_text(encoding="utf-8")
    assert "1 is mistaken" in text
    assert "Left out: legrad" in text
    assert "http:" not in re.sub(r"data:image[^\"]*", "", text)


def test_one_method_and_no_labels(tmp_path):
    page = photo_report(camlucida.explain(model(), photos()), tmp_path / "p.html")
    assert data_of(page)["true"] is False
    assert data_of(page)["agree"] is False


def test_what_is_wrong_is_said(tmp_path):
    found = camlucida.explain(model(), photos(), class_names=NAMES)
    with pytest.raises(camlucida.CamlucidaError, match="3 images"):
        photo_report(found, tmp_path / "p.html", labels=[1])
    with pytest.raises(camlucida.CamlucidaError, match=r"\.html"):
        photo_report(found, tmp_path / "p.txt")
    with pytest.raises(camlucida.TargetError, match="violet"):
        photo_report(found, tmp_path / "p.html", labels=["violet", 0, 0])
    for label in (-1, 1.0, float("nan"), "-1"):
        with pytest.raises(camlucida.CamlucidaError, match="label"):
            photo_report(found, tmp_path / "p.html", labels=[label, 0, 0])


@pytest.mark.parametrize("labels", [np.array([0, 1, 1]), torch.tensor([0, 1, 1])])
def test_labels_of_any_library_and_names_that_are_no_text(tmp_path, labels):
    found = camlucida.explain(model(), photos(), class_names=NAMES)
    odd = os.fsdecode(b"\xff.png")
    page = photo_report(replace(found, sources=(odd, "b", "c")), tmp_path / "p.html", labels=labels)
    assert [row["mistake"] for row in rows_of(page)] == ["false", "false", "true"]
    assert any(row[0] == odd for row in data_of(page)["rows"])


def test_thousands_of_photos_make_a_page_of_bounded_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (112, 230, 3), dtype=np.uint8)
    strip = jpeg(Image.fromarray(noise), 70)
    found = camlucida.explain(model(), photos(), class_names=NAMES)
    method = {"label": "gradcam", **found.record()["images"][0]}
    rows = [
        PhotoRow(f"<{i}>.jpg", method["predictions"], [method], strip=lambda: strip)
        for i in range(3000)
    ]
    page = write_photo_report(rows, tmp_path / "p.html")
    assert len(strip) * 3000 * 4 / 3 > 2 * _PICTURES
    assert page.stat().st_size < 1.2 * _PICTURES
    assert len(data_of(page)["rows"]) == 3000
    assert sum(bool(row[8]) for row in data_of(page)["rows"]) > 1000
