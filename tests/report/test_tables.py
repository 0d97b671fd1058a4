"""Tables: what is written, marked and escaped, in four forms."""

import csv
import io
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from rich.console import Console

from camlucida.common.errors import CamlucidaError
from camlucida.report.tables import Cell, Column, Table, latex_escape, number, probability

NASTY = r"a_b & 50 % of <b>#1</b> ~^{x} \cmd $y$"


def table(**changes):
    values = {
        "name": "means",
        "caption": "What it shows",
        "columns": (Column("IoU", "higher"), Column("Drop", "lower", "%"), Column("word")),
        "rows": (
            ("one", (Cell(0.25, 0.2, 0.3), Cell(31.25), Cell("yes"))),
            (
                NASTY,
                (Cell(0.5, 0.4, 0.6, published=0.55, mark="best"), Cell(math.nan), Cell("=1+1")),
            ),
            ("three", (Cell(0.49, 0.4, 0.6, mark="tied"), Cell(None), Cell("no"))),
        ),
    }
    return Table(**{**values, **changes})


class Reader(HTMLParser):
    """Texts of header and data cells, and the attributes of headers."""

    def __init__(self):
        super().__init__()
        self.cells, self.scopes, self.open = [], [], 0

    def handle_starttag(self, tag, attrs):
        if tag in {"td", "th"}:
            self.cells.append("")
            self.open += 1
            if tag == "th":
                self.scopes.append(dict(attrs).get("scope"))

    def handle_endtag(self, tag):
        self.open -= tag in {"td", "th"}

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


def test_every_header_has_a_scope_and_every_text_survives_escaping():
    reader = Reader()
    reader.feed(table().html())
    assert reader.scopes == ["col"] * 4 + ["row"] * 3
    assert NASTY in reader.cells
    assert any("higher is better" in cell for cell in reader.cells)


def test_the_best_is_told_by_more_than_weight_and_colour():
    html = table().html()
    assert re.search(r"<b>0\.500</b><span class=\"mark\" aria-hidden=\"true\">★</span>", html)
    assert "not told apart from the best" in html
    assert "0.400 to 0.600" in html
    assert "published 0.550" in html


def test_csv_reads_back_in_full_and_no_spreadsheet_runs_it():
    rows = list(csv.reader(io.StringIO(table().csv())))
    assert rows[0] == [
        "method", "IoU", "IoU low", "IoU high", "IoU published", "IoU mark", "Drop [%]", "word"
    ]  # fmt: skip
    assert rows[1] == ["one", "0.25", "0.2", "0.3", "", "", "31.25", "yes"]
    assert rows[2] == [NASTY, "0.5", "0.4", "0.6", "0.55", "best", "", "'=1+1"]
    third = Table("t", "c", (Column("x"),), (("a", (Cell(1 / 3),)),))
    assert float(third.csv().splitlines()[1].split(",")[1]) == 1 / 3


def test_latex_escapes_as_pandas_does():
    """pandas' Styler is the oracle, in what it escapes and in the frame of rules."""
    text = r"a_b & 50 % #1 ~ ^ {x} \cmd $y$"
    styled = (
        pd.DataFrame({"x": [text]}).style.hide(axis=0).format(escape="latex").to_latex(hrules=True)
    )
    expected = styled.split(r"\midrule")[1].split(r" \\")[0].strip()
    ours = latex_escape(text)
    # Where pandas ends a command with a space, ours does with braces.
    assert ours.replace("{}", " ").split() == expected.replace(r"\space", " ").split()
    drawn = table().latex()
    assert [drawn.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    body = drawn.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in body)
    assert r"\textbf{0.500}" in drawn
    assert r"\underline{0.490}" in drawn
    assert r"IoU $\uparrow$" in drawn


def test_rich_draws_every_row():
    console = Console(width=160, file=io.StringIO())
    console.print(table())
    text = console.file.getvalue()
    assert "0.500 ★ (0.550)" in text
    assert "<b>#1</b>" in text
    assert "IoU ↑" in text


def test_marked_claims_what_the_intervals_say():
    values = {"a": (1.0, 1.0, 1.0), "b": (3.0, 3.0, 3.0), "c": (3.2, math.nan, 2.0)}
    columns = (Column("up", "higher"), Column("down", "lower"), Column("neither"))

    def marks(half, but=()):
        rows = tuple(
            (k, tuple(Cell(v, v - half, v + half) for v in vs)) for k, vs in values.items()
        )
        found = Table("t", "", columns, rows).marked(but).rows
        return [[c.mark for c in cells] for _, cells in found]

    assert marks(0.05) == [["", "best", ""], ["", "", ""], ["best", "", ""]]
    assert marks(0.2) == [["", "best", ""], ["tied", "", ""], ["tied", "", ""]]
    assert marks(0.2, but=["c"]) == [["", "best", ""], ["best", "", ""], ["", "", ""]]
    assert marks(math.nan) == [["", "", ""]] * 3


def test_a_row_of_another_length_is_refused_by_name():
    with pytest.raises(CamlucidaError, match=r"row 'one' has 1 cells"):
        Table("t", "", (Column("x"), Column("y")), (("one", (Cell(1),)),))


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0.12345, 0.05], ["0.123", "0.050"]),
        ([72.6, 5.04], ["72.6", "5.0"]),
        ([1234.5, 2.0], ["1,234", "2"]),
        ([3, 12], ["3", "12"]),
        ([0.0], ["0.000"]),
        ([-0.5, 0.25], ["−0.500", "0.250"]),
        ([1e-9], ["1.0e−09"]),
        ([math.inf, 0.5], ["–", "0.500"]),
        ([], []),
    ],
)
def test_numbers_of_a_column_share_their_places(values, written):
    drawn = Table("t", "", (Column("x"),), tuple(("r", (Cell(v),)) for v in values))
    assert [drawn.text(r, 0) for r in range(len(values))] == written


def test_significant_digits_suit_numbers_of_very_different_size():
    drawn = Table(
        "t", "", (Column("s", digits=3),), tuple(("r", (Cell(v),)) for v in (0.00123, 16.04))
    )
    assert [drawn.text(r, 0) for r in range(2)] == ["0.00123", "16.0"]


def test_p_values_and_small_numbers():
    assert [probability(p) for p in (1e-9, 0.0312, 0.6)] == ["p < 0.001", "p = 0.031", "p = 0.60"]
    assert number(-0.0001, 3) == "−1.0e−04"
    assert number(None) == number(math.nan) == "–"
    assert number(-0.0, 2) == "0.00"


def test_an_empty_table_is_drawn():
    empty = Table("t", "nothing", (Column("x"),), ())
    assert "nothing" in empty.html()
    assert empty.csv() == "method,x\n"
    assert r"\bottomrule" in empty.latex()


def test_plain_values_become_a_table_and_come_back():
    rows = [("a", 1.5, "yes"), ("b", None, "12 % more")]
    table = Table.of_rows("t", "Plain", ("name", Column("n", unit="s"), "said"), rows, "A note.")
    assert (table.stub, table.legend) == ("name", "A note.")
    assert table.values() == {
        "title": "Plain",
        "columns": ["name", "n [s]", "said"],
        "rows": [["a", 1.5, "yes"], ["b", None, "12 % more"]],
        "note": "A note.",
    }
