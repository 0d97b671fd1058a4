"""``camlucida data``: STACK-MIX as pictures, and the prompts of STACK-GEN."""

import csv
import json

import pytest
from PIL import Image

from camlucida.cli import main


@pytest.fixture
def photos(tmp_path):
    """Three animals and, with label 398, none."""
    for label in (3, 7, 21, 398):
        for number in range(3):
            path = tmp_path / "photos" / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (250, 230), (label % 256, 60 * number, 0)).save(path)
    return str(tmp_path / "photos")


def run(capsys, *arguments):
    code = main(["data", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def test_pictures_are_looked_over_and_left_out(photos, tmp_path, capsys):
    out = tmp_path / "mix"
    assert run(capsys, "stack-mix", photos, "--out", out)[0] == 0
    rows = list(csv.DictReader((out / "keys.csv").open()))
    assert [row["class"] for row in rows] == ["3", "7", "21"]
    picture = Image.open(out / rows[0]["file"])
    assert picture.size == (224, 224)
    assert picture.getpixel((0, 169)) != picture.getpixel((0, 170))
    (tmp_path / "ruled-out.txt").write_text(rows[0]["key"] + "\n")
    code, _, err = run(
        capsys, "stack-mix", photos, "--leave-out", tmp_path / "ruled-out.txt", "--out", out
    )  # fmt: skip
    assert (code, err) == (0, "")
    again = list(csv.DictReader((out / "keys.csv").open()))
    assert again[0]["key"] != rows[0]["key"]
    assert again[1:] == rows[1:]
    code, _, err = run(capsys, "stack-mix", photos, "--count", 2, "--out", out)
    assert (code, "1 other pictures" in err) == (0, True)
    code, _, err = run(capsys, "stack-mix", photos, "--leave-out", "none.jpg", "--out", out)
    assert (code, "not among the images: none.jpg" in err) == (2, True)
    code, _, err = run(capsys, "stack-mix", photos, "--leave-out", "none.txt", "--out", out)
    assert (code, "'none.txt' cannot be read" in err) == (2, True)


def test_prompts(photos, tmp_path, capsys):
    pytest.importorskip("torchvision")
    code, out, _ = run(capsys, "stack-gen-prompts")
    assert (code, len(out.splitlines())) == (0, 100)
    code, out, _ = run(capsys, "stack-gen-prompts", "--photos", photos, "--json")
    assert [row["label"] for row in json.loads(out)] == [3, 7, 21]
    assert json.loads(out)[0]["prompt"] == "photo of tiger shark stacked on top of tiger shark"
    run(capsys, "stack-gen-prompts", "--count", 5, "--out", tmp_path / "prompts.csv")
    assert len(list(csv.DictReader((tmp_path / "prompts.csv").open()))) == 5
