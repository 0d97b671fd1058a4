"""``camlucida reproduce fame-table1`` with a small embedder, on a list and on varied photos."""

import json

import numpy as np
import pytest

from camlucida import CamlucidaError
from camlucida.cli.reproduce.group import reproduce
from camlucida.faces import bench_pairs, load
from camlucida.faces.detect import Face
from camlucida.studies.published import fame_figure3, fame_table1
from reference.commands import invoke
from reference.embedders import picture, small

FAST = ["--method", "fame:iterations=1,sigma=1.0,kernel=5", "--method", "gradcam"]
POINTS = np.array([[40.0, 50], [74, 50], [57, 70], [43, 90], [71, 90]])


@pytest.fixture(autouse=True)
def _small_embedder(monkeypatch):
    face = Face((20.0, 20.0, 95.0, 110.0), POINTS, 1.0, "5")
    monkeypatch.setattr(load, "load_embedder", lambda *_, **__: small())
    monkeypatch.setattr(bench_pairs, "find_faces", lambda _: (face,))
    monkeypatch.setattr(fame_figure3, "find_faces", lambda _: (face,))


@pytest.fixture
def people(tmp_path):
    for i in range(3):
        file = tmp_path / "people" / f"person{i}" / "photo.png"
        file.parent.mkdir(parents=True)
        picture(i, 120).save(file)
    return tmp_path / "people"


def test_stand_in_table_grid_and_page(people, tmp_path):
    out = tmp_path / "out"
    arguments = ["--standin", "--photos", people, "--per-person", 1, *FAST, "--out", out]
    text = invoke(reproduce, "fame-table1", *arguments).stdout
    assert "by percentile" in text
    assert "by rank" in text
    assert "random patches" in text
    page = (out / "fame-table1.html").read_text()
    for words in ("biometric", "As published", "Error rates", "ROC", "stand-in", "npm pack"):
        assert words in page
    assert (out / "fame-figure3.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "fame-table1.json").read_text())
    assert record["pairs_from"]["people"] == 3
    assert set(record["figure3"]["share_on_cover"]["gradcam"]) == {"glasses", "scarf"}
    assert "biometric" in record["care"]
    kept = {p: p.stat().st_mtime_ns for p in (out / "run").rglob("*") if p.is_file()}
    assert json.loads(invoke(reproduce, "fame-table1", *arguments, "--json").stdout)["pairs"] == 6
    assert kept == {p: p.stat().st_mtime_ns for p in (out / "run").rglob("*") if p.is_file()}


def test_four_people_are_said_to_be_few(tmp_path):
    found = invoke(
        reproduce,
        "fame-table1",
        "--standin",
        "--per-person",
        1,
        "--no-grid",
        "--method",
        "gradcam",
        "--out",
        tmp_path / "out",
    )
    assert "npm pack tabler-ui" in found.stdout
    assert json.loads((tmp_path / "out/fame-table1.json").read_text())["figure3"] is None


def test_a_data_set_has_published_numbers_beside(tmp_path):
    for person in range(2):
        for number in (1, 8, 11):
            picture(10 * person + number).save(tmp_path / f"m-{person:03d}-{number:02d}.png")
    common = ["--data", tmp_path, "--aligned", *FAST]
    record = json.loads(
        invoke(reproduce, "fame-table1", *common, "--json", "--out", tmp_path / "a").stdout
    )
    assert record["data"] == "ar-glass"
    assert record["published"]["fame"] == [56.1, 92.1]
    assert "56.1" in (tmp_path / "a/fame-table1-percentile.csv").read_text()
    scarf = json.loads(
        invoke(
            reproduce,
            "fame-table1",
            *common,
            "--layout",
            "ar:wear=scarf",
            "--json",
            "--out",
            tmp_path / "b",
        ).stdout
    )
    assert scarf["data"] == "ar-scarf"
    assert scarf["published"] == {}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [([], "--data"), (["--standin", "--data", "x"], "--data"), (["--data", "x", "--photos", "y"], "--photos"),
     (["--standin", *FAST, "--iterations", 3], "fame:iterations=N"),
     (["--standin", *FAST, "--legacy"], "reference_code_faces"), (["--data", "x"], "no list of pairs"),
     (["--data", "x", "--layout", "ar:distance=far"], "no option 'distance'")],
)  # fmt: skip
def test_wrong_arguments(arguments, match, tmp_path):
    with pytest.raises(CamlucidaError, match=match):
        raise invoke(reproduce, "fame-table1", *arguments, "--out", tmp_path / "out").exception


def test_legacy_is_the_authors_stopping_scaling_and_rounding(people, tmp_path, monkeypatch):
    given = {}

    def bench(_embedder, _pairs, methods, *, round_theta, **_):
        given.update(methods=methods, round_theta=round_theta)
        raise CamlucidaError("seen")

    monkeypatch.setattr(fame_table1, "VerificationBenchmark", bench)
    arguments = ["--standin", "--photos", people, "--legacy", "--out", tmp_path / "out"]
    assert str(invoke(reproduce, "fame-table1", *arguments).exception) == "seen"
    assert given["round_theta"] is True
    assert given["methods"][-1] == ("fame", {"iterations": 20, "preset": "reference_code_faces"})
