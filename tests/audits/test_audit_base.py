"""The report that all audits share: JSON, page and files."""

import json
import math
from dataclasses import replace

import pytest

from camlucida import CamlucidaError
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.verdicts import Verdict, between, decided, sentences
from camlucida.common.statistics import mean_std
from camlucida.report import Table
from camlucida.report.tables import number


@pytest.fixture
def report():
    return AuditReport(
        "trial",
        "A <trial>",
        "Two methods.\nOn nothing.",
        "One failed.",
        (
            Verdict("good", "pass", "0 % of it", 0.0, 0.01, "share"),
            Verdict("bad", "fail", "<b>50 %</b> of it", 0.5, 0.01, "share", {"nan": float("nan")}),
        ),
        (
            Table.of_rows(
                "numbers", "Numbers", ("method", "μ"), (("good", 0.0), ("bad", None)), "A note."
            ),
        ),
        (Illustration("maps", "What is seen.", b"\x89PNG", "A map."),),
        {"seed": 0},
    )


def test_the_page_is_escaped_and_stands_alone(report):
    page = report.html()
    assert "A &lt;trial&gt;" in page
    assert "<b>50" not in page
    assert "data:image/png;base64,iVBORw" in page
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page
    failed = page.index("&lt;b&gt;50\N{NO-BREAK SPACE}%")
    assert failed < page.index(">0\N{NO-BREAK SPACE}% of it</td>")  # the failed come first


def test_files_are_written_whole(report, tmp_path):
    files = report.save(tmp_path / "deep" / "out")
    assert [f.name for f in files] == ["trial.html", "trial.json", "trial-maps.png"]
    document = json.loads(files[1].read_text())
    assert document["verdicts"][1]["details"] == {"nan": None}
    assert document["pictures"][0]["file"] == files[2].name
    assert not [p for p in files[0].parent.iterdir() if p.name.startswith(".")]
    (tmp_path / "file").write_text("")
    with pytest.raises(CamlucidaError, match="cannot write"):
        report.save(tmp_path / "file")


def test_verdicts_are_found_and_checked(report):
    assert report["bad"].value == 0.5
    assert report.count("pass") == 1
    with pytest.raises(KeyError):
        report["other"]
    with pytest.raises(CamlucidaError, match="outcome"):
        Verdict("x", "maybe", "")
    with pytest.raises(CamlucidaError, match="2 columns"):
        Table.of_rows("t", "t", ("a", "b", "c"), (("x", 1),))


def test_verdicts_are_data_that_is_put_into_words_once():
    said = sentences(
        """
lit: {mean:.1 %} of {count:n map} lies there ({most:g %} passes),
    which is {note}.
note: a {kind}
"""
    )
    assert list(said) == ["lit", "note"]
    note = said["note"](kind="pity")
    verdict = Verdict("m", "fail", (said["lit"](mean=0.123, count=1, most=0.01, note=note),), 0.123)
    assert verdict.text == "12.3 % of 1 map lies there (1 % passes), which is a pity."
    numbers = {"mean": 0.123, "count": 1, "most": 0.01, "kind": "pity"}
    assert verdict.to_dict()["said"] == [{"kind": "lit", "numbers": numbers}]
    assert said["lit"].of({"mean": 1.0, "other": 2}).numbers == {"mean": 1.0}
    assert Verdict("m", "pass", "Plain {words}.").text == "Plain {words}."


@pytest.mark.parametrize("value", [math.nan, None])
def test_what_is_no_number_decides_nothing(value):
    found = decided([0.1] * 6 + [value], most=0.5)
    assert (found.outcome, found.within) == ("unclear", False)
    assert "no number" in str(found.before[0])
    for bounds in ((0.9, 0.1), (0.0, math.nan)):
        with pytest.raises(CamlucidaError, match="bounds"):
            decided([0.5] * 6, *bounds)


def test_a_verdict_says_what_decided_it_and_what_would():
    each = decided([0.02, 0.03, 0.5, 0.02, 0.02, 0.03], most=0.01)
    assert (each.outcome, each.low < 0.01) == ("fail", True)
    assert "on each of 6 images" in str(each.after[0])
    clear = decided([0.2, 0.3, 0.25, 0.2, 0.3, 0.25], most=0.01)
    assert not clear.alike
    assert "each of" not in str(clear.after[0])
    values = [0.9, 0.1, 0.9, 0.1, 0.9, 0.8]
    some = decided(values, most=0.5)
    # The half of the interval shrinks with the root of the images, until it is as long as the way to the bound.
    wanted = 6 * ((some.high - some.low) / 2 / (some.value - 0.5)) ** 2
    assert some.needed == pytest.approx(wanted)
    assert f"about {math.ceil(wanted)} images" in str(some.before[0])
    assert between(values, 0.3, 0.7).needed > some.needed  # the nearer of two bounds is harder
    hopeless = decided([0.4, 0.6, 0.4, 0.6, 0.4, 0.6], most=0.5)
    assert "even 1000 images" in str(hopeless.before[0])


def test_small_numbers():
    assert mean_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_std([4.0]) == (4.0, 0.0)
    assert number(float("nan")) == number(None) == "–"
    assert number(1.25, 2) == "1.25"


def test_columns_of_words_start_at_the_left_and_figures_end_at_the_right(report):
    table = Table.of_rows(
        "t",
        "Words and figures",
        ("name", "n", "gap", "change"),
        (
            ("a", 1.5, "in part", "0.91 → 0.90"),
            ("b", None, "no", "1e-5"),
            ("c", "-3", None, "12 %"),
        ),
    )
    page = replace(report, tables=(table,)).html()
    assert '<th scope="col">n</th>\n<th scope="col" class="word">gap</th>' in page
    assert '<td class="word">in part</td>\n<td data-sort="0.91 → 0.90">0.91 → 0.90</td>' in page
    assert '<td data-sort="-3">-3</td>\n<td class="word">–</td>\n<td data-sort="12 %">' in page
