"""``camlucida verify`` with a small embedder in place of the real one."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from camlucida import CamlucidaError
from camlucida.cli.verify import verify
from camlucida.faces import load, read_landmarks
from reference.embedders import picture, small

FAST = ["--method", "fame:iterations=2,sigma=1.0,kernel=5"]


@pytest.fixture(autouse=True)
def _small_embedder(monkeypatch):
    monkeypatch.setattr(load, "load_embedder", lambda *_, **__: small())


@pytest.fixture
def photos(tmp_path):
    for i in range(4):
        picture(i).save(tmp_path / f"{i}.png")
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    app.command()(verify)
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.stdout


def test_two_photos(photos):
    text = run(photos / "0.png", photos / "1.png", "--aligned", *FAST, "--out", photos / "out")
    assert "cosine" in text
    assert " 0.200: " in text
    assert "of the strength of e" in text
    assert {p.name for p in (photos / "out/0-1").iterdir()} == {"pair.png", "pair.npz", "pair.json"}
    record = json.loads((photos / "out/0-1/pair.json").read_text())
    assert record["methods"][0]["label"].startswith("fame")


def test_pairs_of_one_name_do_not_overwrite_each_other(photos):
    out = photos / "out"
    (photos / "other").mkdir()
    picture(3).save(photos / "other/0.png")
    first = (photos / "0.png", photos / "1.png")
    second = (photos / "other/0.png", photos / "1.png")
    for pair in (first, second, first):
        run(*pair, "--aligned", *FAST, "--out", out)
    names = ["0-1", f"other-0-{photos.name}-1"]
    assert sorted(p.parent.name for p in out.glob("*/*.json")) == sorted(names)
    sources = [json.loads((out / n / "pair.json").read_text())["probe"]["source"] for n in names]
    assert sources == [str(first[0]), str(second[0])]


def test_identical_photos_are_told(photos):
    text = run(
        photos / "0.png", photos / "0.png", "--aligned", *FAST, "--json", "--out", photos / "out"
    )
    assert "the same embedding" in json.loads(text)["messages"][0]


def test_json_of_a_list_is_one_document(photos):
    table = photos / "pairs.csv"
    table.write_text("probe,gallery,same\n0.png,0.png,1\n1.png,2.png,0\n")
    text = run(
        "--pairs", table, "--aligned", *FAST, "--draw", "0", "--json", "--out", photos / "out"
    )
    assert json.loads(text)["pairs"] == 2
    assert "biometric" in json.loads(text)["care"]


def test_json(photos):
    text = run(
        photos / "0.png", photos / "1.png", "--aligned", *FAST, "--json", "--threshold", "0.9",
        "--out", photos / "out",
    )  # fmt: skip
    record = json.loads(text)
    assert record["threshold"] == 0.9
    assert record["match"] == (record["similarity"] >= 0.9)
    assert "grid" in record["files"]


def test_a_list_with_a_report_that_goes_on(photos):
    table = photos / "pairs.csv"
    table.write_text(
        "probe,gallery,same\n0.png,0.png,1\n1.png,2.png,0\n2.png,2.png,1\n3.png,1.png,0\n"
    )
    arguments = ["--pairs", table, "--aligned", *FAST, "--draw", "1", "--out", photos / "out"]
    text = run(*arguments)
    assert "4 pairs (2 genuine)" in text
    page = (photos / "out/index.html").read_text()
    assert "biometric" in page
    assert "Delete" in page
    record = json.loads((photos / "out/verify.json").read_text())
    assert record["genuine"] == 2
    assert record["drawn"][0]["grid"] == "pairs/pair-0000/pair.png"
    stamps = {p: p.stat().st_mtime_ns for p in (photos / "out").rglob("*.npz")}
    assert len(stamps) >= 3
    run(*arguments)
    assert stamps == {p: p.stat().st_mtime_ns for p in (photos / "out").rglob("*.npz")}


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"")])
def test_a_drawn_pair_whose_files_are_gone_or_damaged_is_drawn_again(photos, damage):
    table = photos / "pairs.csv"
    table.write_text("probe,gallery,same\n0.png,0.png,1\n1.png,2.png,0\n")
    arguments = ["--pairs", table, "--aligned", *FAST, "--draw", "1", "--out", photos / "out"]
    run(*arguments)
    grid, maps = (photos / f"out/pairs/pair-0000/pair.{kind}" for kind in ("png", "npz"))
    kept = [path.read_bytes() for path in (grid, maps)]
    damage(grid)
    damage(maps)
    for place in ("out", "out/pairs", "out/pairs/parts", "out/run/scores"):
        (photos / place / ".writing-1-half.png").write_bytes(b"half")
    run(*arguments)
    assert grid.read_bytes() == kept[0]
    assert np.load(maps).files
    assert not list((photos / "out").rglob(".writing*"))
    Image.new("RGB", (60, 60), "red").save(photos / "0.png")
    run(*arguments)
    assert grid.read_bytes() != kept[0]


def test_a_list_that_does_not_say_who_is_who_is_explained_pair_by_pair(photos):
    table = photos / "pairs.csv"
    table.write_text("probe,gallery\n0.png,1.png\n1.png,none.png\n")
    text = run("--pairs", table, "--aligned", *FAST, "--out", photos / "out")
    assert "0.png - 1.png: cosine" in text
    assert "left out" in text
    assert (photos / "out/pairs/pair-0000/pair.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(["a.png"], "got 1 photos"), (["a", "b", "--pairs", "c"], "not both"),
     (["a", "b", "--landmarks", "c"], "twice"), (["a", "b", "--face", "first"], "largest"),
     (["a", "b", "--face", "0", "--face", "1", "--face", "0"], "once for all"),
     (["--pairs", "c", "--face", "0", "--face", "1"], "once for all"),
     (["--pairs", "c", "--layout", "scface:wear=scarf"], "no option 'wear'"),
     (["a", "b", "--method", "fam"], "unknown method"),
     (["a", "b", "--layer", "x", "--method", "fame"], "--layer goes with methods that explain layers"),
     (["no.png", "no.png", "--aligned"], r"probe: .*'no.png'")],
)  # fmt: skip
def test_wrong_arguments(arguments, match):
    with pytest.raises(CamlucidaError, match=match):
        run(*arguments)


def test_landmarks_are_read(tmp_path):
    file = tmp_path / "points.json"
    file.write_text("[[1, 2.5], [3, 4]]")
    assert read_landmarks(file) == [[1, 2.5], [3, 4]]
    file.write_text("1 2\n3,4\n")
    assert read_landmarks(file) == [[1, 2], [3, 4]]
    for text in ("1 2 3", "", "a b"):
        file.write_text(text)
        with pytest.raises(CamlucidaError, match="landmarks"):
            read_landmarks(file)
