"""The report of a run: right numbers, words that claim no more than the tests do, and a page that stands alone."""

import csv
import html
import json
import math
import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from camlucida.benchmark.findings import Estimate, Finding
from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.report.gallery import KINDS, cases_of, chosen
from camlucida.benchmark.report.results import read
from camlucida.benchmark.report.run_report import compose, write_report
from camlucida.benchmark.report.wording import headline, sentence
from camlucida.benchmark.table import describe
from camlucida.cli.report import report as command
from camlucida.common.errors import CamlucidaError
from camlucida.data.preprocess import Preprocess
from camlucida.metrics import Number
from camlucida.models import LoadedModel

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
AXE = Path(os.environ.get("CAMLUCIDA_AXE", "node_modules/axe-core/axe.min.js"))


@pytest.fixture(scope="module")
def run(make_run):
    return make_run()


@pytest.fixture(scope="module")
def composed(run):
    return compose(run, gallery=False)


@pytest.fixture(scope="module")
def page(composed):
    return composed.document.html()


def finding(means, p, direction="higher", ranks=None):
    estimates = {
        m: Estimate(v, v - 0.1, v + 0.1, (ranks or {}).get(m, math.nan), 50)
        for m, v in means.items()
    }
    return Finding(Number("x", "X", direction), estimates, p)


# ---- words --------------------------------------------------------------------------------------------


def test_a_leader_is_named_best_only_where_the_tests_say_so():
    means = {"a": 3.0, "b": 2.0, "c": 1.0}
    clear = finding(means, {("a", "b"): 0.01, ("a", "c"): 0.001, ("b", "c"): 0.5})
    assert "better than all 2 others beyond chance (p at most 0.010)" in sentence(clear)
    half = finding(means, {("a", "b"): 0.2, ("a", "c"): 0.001, ("b", "c"): 0.5})
    assert half.tied == ["b"]
    assert [clear.mark(m) for m in "abc"] == ["best", "", ""]
    assert [half.mark(m) for m in "abc"] == ["tied", "tied", ""]
    assert finding(means, {}).mark("a") == ""  # without a test nothing is claimed
    assert "not told apart from b." in sentence(half)
    none = finding(means, {("a", "b"): 0.2, ("a", "c"): 0.2, ("b", "c"): 0.5})
    assert "do not tell it apart from any of the 2 others" in sentence(none)
    assert "beyond chance" not in sentence(none)


def test_a_test_that_points_the_other_way_separates_nothing():
    """The mean says a, the ranks say b: that is no win for a, however small p is."""
    odd = finding({"a": 3.0, "b": 2.0}, {("a", "b"): 1e-6}, ranks={"a": 1.8, "b": 1.2})
    assert odd.tied == ["b"]
    assert not odd.beats("a", "b")
    assert not odd.beats("b", "a")


def test_lower_is_better_where_it_is_and_equal_means_are_no_winner():
    low = finding(
        {"a": 3.0, "b": 2.0, "c": 2.0},
        {("a", "b"): 0.01, ("a", "c"): 0.01, ("b", "c"): 1.0},
        "lower",
    )
    assert [low.mark(m) for m in "abc"] == ["", "tied", "tied"]
    assert low.beats("b", "a")
    assert not low.beats("a", "b")


def test_the_headline_of_a_clear_run_names_its_leader(make_run):
    found = compose(make_run(images=120, gap=0.12), gallery=False)
    assert found.document.lead[0].startswith("gradcam is the best choice")
    assert "clearly so on all of them" in found.document.lead[0]


def test_the_headline_of_equal_methods_names_no_winner(make_run):
    found = compose(make_run(images=40, gap=0.0, methods=("a", "b")), gallery=False)
    text = " ".join(found.document.lead)
    assert "clearly" not in text.replace("never clearly", "")
    assert "do not tell them apart" in text or "comes closest" in text or "never clearly" in text


def test_few_images_and_unfinished_runs_are_said(make_run):
    lead = " ".join(compose(make_run(images=6, planned=100), gallery=False).document.lead)
    assert "4 images are few" in lead
    assert "6 of 100 images are done" in lead


# ---- numbers ------------------------------------------------------------------------------------------


def test_the_page_shows_the_means_of_the_rows(composed):
    results = composed.results
    values = results.values(["insertion"])["insertion"]
    table = next(t for t in composed.tables if t.name == "means-faithfulness")
    column = [c.title for c in table.columns].index("Insertion")
    for i, (method, cells) in enumerate(table.rows):
        assert method == results.methods[i]
        assert cells[column].value == pytest.approx(np.mean(values[i]))
        assert cells[column].low < cells[column].value < cells[column].high


def test_mean_curves_are_those_of_all_curves(run, composed):
    """Shard-wise sums against every curve at once."""
    import pyarrow.parquet as pq
    from scipy import stats

    table = pq.ParquetDataset(run / "rows").read().to_pandas()
    mine = table[(table["metric"] == "deletion") & (table["method"] == "rise")]
    curves = np.stack(mine["curve"].to_list()).astype(np.float64)
    curve = composed.results.curves["deletion"]
    np.testing.assert_allclose(curve.mean["rise"], curves.mean(0), atol=1e-9)
    half = stats.sem(curves) * stats.t.ppf(0.975, len(curves) - 1)
    np.testing.assert_allclose(curve.high["rise"] - curve.mean["rise"], half, atol=1e-9)
    assert curve.images["rise"] == len(curves) == 58
    assert set(composed.results.curves) == {"iou_area", "insertion", "deletion", "road"}


def test_the_four_cases_count_every_labelled_image_once(composed):
    cases = cases_of(composed.results)
    images = composed.results.images
    assert sorted(i for found in cases.values() for i in found) == list(range(58))
    for i in cases["confident-wrong"]:
        assert images["probability"][i] >= 0.5
        assert images["predicted"][i] != images["label"][i]
    sure = [images["probability"][i] for i in cases["confident-right"]]
    assert sure == sorted(sure, reverse=True)


def test_images_are_chosen_by_value_and_disagreement():
    values = np.array([[0.9, 0.1, 0.5, 0.4, math.nan], [0.9, 0.1, 0.5, 0.8, 0.2]])
    found = chosen(values, "higher", 1)
    assert found == {"best": [0], "median": [2], "worst": [1], "disagreeing": [3]}
    assert chosen(values, "lower", 1)["best"] == [1]
    assert chosen(values[:, :1], "higher", 3) == {"best": [0]}
    assert chosen(np.full((2, 3), math.nan), "higher") == {}
    assert set(found) == set(KINDS)


@pytest.mark.parametrize(
    ("number", "facts", "question"),
    [("iou@0.3 (2)", None, "localisation"), ("cam_entropy_bits", None, "concentration"),
     ("dead_zone", {"title": "an old plan, without questions"}, "dead zones"),
     ("infidelity", None, "faithfulness"), ("mine", {"question": "stability"}, "stability"),
     ("theirs", None, "other"), (SECONDS, None, "cost"), (SECONDS, {"unit": "s"}, "cost")],
)  # fmt: skip
def test_numbers_go_to_the_question_they_ask(number, facts, question):
    assert describe(number, facts).question == question


# ---- the page -----------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_its_ids_are_unique(page):
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    named = {n for group in re.findall(r'aria-labelledby="([^"]+)"', page) for n in group.split()}
    assert named <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_headings_are_in_order_and_everything_has_a_name(page):
    levels = [int(n) for n in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert page.count("<svg class=") == page.count("<desc id=")
    assert "<th>" not in page


def test_names_from_the_data_are_escaped(page):
    assert "<cut off>" not in page
    assert "&lt;cut off&gt;" in page


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ("only",)}, "nothing to compare it with"),
        ({"images": 1, "broken": 0}, "1 image is few"),
        ({"labels": False}, "All numbers"),
        ({"methods": tuple(f"m{i}" for i in range(30)), "images": 12}, "drawn in grey"),
        ({"numbers": {"entropy": ("CAM entropy", "none", "nats", "entropy", 3.3, None)}}, "No number of this run says"),
        ({"images": 3, "broken": 3, "planned": 9}, "Images left out"),
    ],
)  # fmt: skip
def test_runs_of_every_size_make_a_page(make_run, changes, says):
    html = compose(make_run(**{"images": 10, **changes}), gallery=False).document.html()
    assert says in html
    assert not re.search(r"[\d >(]nan\b", html)
    assert "None" not in html


def test_numbers_that_are_missing_are_dashes(make_run):
    def edit(columns):
        for column in columns:
            if column.number == "insertion" or (
                column.number == "deletion" and column.method == "fame"
            ):
                column.values[:] = np.nan
            if column.number == "road":
                column.values[::2] = np.nan

    found = compose(make_run(edit=edit), gallery=False)
    table = next(t for t in found.tables if t.name == "means-faithfulness")
    titles = [c.title for c in table.columns]
    assert "Insertion" not in titles  # nobody has it
    assert table.rows[4][0] == "fame"
    assert table.rows[4][1][titles.index("Deletion")].value is None
    assert "images count" in found.document.html()


def test_files_lie_beside_the_page(run, tmp_path):
    out = write_report(run, tmp_path / "a" / "page.html", gallery=False)
    assert out.read_text(encoding="utf-8").endswith("</html>")
    folder = tmp_path / "a" / "page-tables"
    assert {p.suffix for p in folder.iterdir()} == {".csv", ".tex"}
    rows = list(csv.DictReader((folder / "all-means.csv").open(encoding="utf-8")))
    assert len(rows) == 11 * 6
    assert not list(folder.glob(".writing*"))


def test_what_is_no_run_is_refused_in_words(tmp_path, run):
    with pytest.raises(CamlucidaError, match="not a run"):
        write_report(tmp_path)
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(CamlucidaError, match="cannot write"):
        write_report(run, file / "page.html", gallery=False)


# ---- pictures -----------------------------------------------------------------------------------------


def tiny():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    preprocess = Preprocess(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    return LoadedModel(net.eval(), "tiny", preprocess, ("a", "b", "c"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    files = [folder / f"{i}.png" for i in range(12)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(file)
    return files


def test_galleries_show_every_method_on_the_chosen_images(make_run, photos):
    run = make_run(methods=("gradcam", "gradcam++"), images=12, sources=photos, broken=1)
    found = compose(run, model=tiny())
    page = found.document.html()
    assert page.count("data:image/jpeg") == 3 * page.count('class="strip"')
    assert page.count('class="strip"') >= 8
    assert 'alt="gradcam++ map of' in page
    assert "weights of the model are not those of the run" in found.notes[0]


def test_what_cannot_be_reached_is_said_and_the_numbers_stay(make_run, photos):
    found = compose(make_run(images=6), model=tiny())
    assert found.notes[0].startswith("No pictures: ")
    assert "No pictures" in found.document.html()
    missing = compose(make_run(images=6, model="nowhere.pth"))
    assert missing.notes[0].startswith("No pictures: ")
    assert "All numbers" in missing.document.html()
    odd = compose(make_run(methods=("gradcam", "mine"), images=12, sources=photos), model=tiny())
    assert any(note.startswith("mine has no pictures") for note in odd.notes)


# ---- the command --------------------------------------------------------------------------------------


def test_the_command_writes_and_says_the_answer(run, tmp_path):
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(run), "--out", str(tmp_path / "r.html"), "--no-gallery"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.html").exists()
    assert "gradcam" in done.output
    as_json = CliRunner().invoke(
        app, [str(run), "--out", str(tmp_path / "r.html"), "--no-gallery", "--json"]
    )
    document = json.loads(as_json.stdout)
    assert document["said"] == headline(read(run).summary)


# ---- a real browser -----------------------------------------------------------------------------------


def audit(page, folder, *, dark=False):
    """The violations and passes that axe-core finds in a page, in chromium."""
    script = (
        "axe.run(document,{runOnly:['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa','best-practice']})"
        ".then(r=>{const p=document.createElement('pre');p.id='axe-result';p.textContent=JSON.stringify("
        "{violations:r.violations.map(v=>[v.id,v.nodes.length,v.nodes[0].html]),passes:r.passes.length});"
        "document.body.append(p)})"
    )
    code = f"<script>{AXE.read_text(encoding='utf-8')}</script><script>{script}</script></body>"
    file = folder / "audited.html"
    file.write_text(page.replace("</body>", code), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=60000",
        "--dump-dom",
    ]
    flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
    out = subprocess.run(  # noqa: S603
        [CHROMIUM, *flags, file.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    found = re.search(r'<pre id="axe-result">(.*?)</pre>', out.stdout, re.DOTALL)
    assert found, out.stdout[-300:] + out.stderr[-300:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.skipif(
    not AXE.is_file(), reason="no axe-core: npm i axe-core, or say where in CAMLUCIDA_AXE"
)
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_to_complain_about(make_run, photos, tmp_path, dark):
    run = make_run(methods=("gradcam", "gradcam++"), images=12, sources=photos, broken=1)
    found = audit(compose(run, model=tiny()).document.html(), tmp_path, dark=dark)
    assert found["violations"] == []
    assert found["passes"] > 20
    broken = audit(
        '<html><body><img src="data:,"><p style="color:#ccc">pale</p></body></html>', tmp_path
    )
    assert {"image-alt", "html-has-lang", "color-contrast"} <= {v[0] for v in broken["violations"]}


def test_bands_stay_in_the_range_of_their_number(make_run):
    at = np.linspace(0, 1, 29)
    numbers = {"insertion": ("Insertion", "higher", "", "insertion", 0.98, at)}
    found = read(make_run(images=4, numbers=numbers))
    (curve,) = found.curves.values()
    lowest, highest = found.numbers["insertion"].range
    for method in curve.mean:
        assert (curve.low[method] >= lowest).all()
        assert (curve.high[method] <= highest).all()
        assert (curve.low[method] <= curve.mean[method]).all()
    # With so few images a band of Student's t would leave it.
    assert any(
        (curve.low[m] == lowest).any() or (curve.high[m] == highest).any() for m in curve.mean
    )
