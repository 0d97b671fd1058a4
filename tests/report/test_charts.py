"""Charts: numbers land where they belong, labels do not collide, and everything is said in words too."""

import math
import re
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from camlucida.report import charts
from camlucida.report.drawing import linear, logarithmic, spread
from camlucida.report.page import Document, Section, figures

SVG = "{http://www.w3.org/2000/svg}"


def lines(count=3, points=11, **changes):
    xs = [i / (points - 1) for i in range(points)]
    series = [
        charts.Line(
            f"method {k} <&>",
            xs,
            [x * (k + 1) for x in xs],
            [x * k for x in xs],
            [x * (k + 2) for x in xs],
            k,
        )
        for k in range(count)
    ]
    return charts.lines(
        "c", "A <title>", series, x_label="x", y_label="y", describe="what & why", **changes
    )  # fmt: skip


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear_ = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear_[0] + 0.7152 * linear_[1] + 0.0722 * linear_[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", charts.COLOURS)
def test_every_colour_stands_out_on_white(colour):
    assert contrast(colour, "#ffffff") >= 3


def test_thirty_series_all_look_different_without_colour():
    """Dashes and marker tell them apart in a grey print."""
    looks = [charts.style(i) for i in range(30)]
    assert len({(dash, marker) for _, dash, marker in looks}) == 30
    for a, b in combinations(looks, 2):
        assert sum(x != y for x, y in zip(a, b, strict=True)) >= 2


def test_a_chart_is_xml_with_its_title_and_description():
    svg = lines()
    root = ET.fromstring(svg)  # noqa: S314
    assert root.attrib["role"] == "img"
    named = root.attrib["aria-labelledby"].split()
    ids = {e.attrib["id"]: e.text for e in root.iter() if "id" in e.attrib}
    assert [ids[n] for n in named] == ["A <title>", "what & why"]
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_points_lie_at_their_numbers():
    svg = charts.scatter(
        "s", "t", [charts.Point("a", 0, 0), charts.Point("b", 10, 1), charts.Point("m", 5, 0.5, style=0)],
        x_label="x", y_label="y", describe="d",
    )  # fmt: skip
    spots = [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    ]
    (ax, ay), (bx, by), (mx, my) = spots
    assert ax < bx
    assert ay > by  # up is more
    assert mx == pytest.approx((ax + bx) / 2, abs=0.11)
    assert my == pytest.approx((ay + by) / 2, abs=0.11)


def test_labels_at_the_ends_of_lines_do_not_lie_on_each_other():
    wanted = [50.0, 50.0, 51.0, 200.0, 258.0, 259.0, 260.0]
    placed = spread(wanted, 26, 260)
    gaps = [abs(a - b) for a, b in combinations(placed, 2)]
    assert min(gaps) >= 13.9
    assert [wanted[i] for i in sorted(range(7), key=lambda i: placed[i])] == sorted(wanted)
    assert spread([], 0, 10) == []


def test_every_series_is_named_and_quiet_ones_are_not():
    svg = lines(3)
    root = ET.fromstring(svg)  # noqa: S314
    texts = [e.text for e in root.iter(f"{SVG}text")]
    assert [t for t in texts if t.startswith("method")] == [f"method {k} <&>" for k in range(3)]
    xs = [0.0, 1.0]
    quiet = charts.lines(
        "q", "t", [charts.Line("loud", xs, xs), charts.Line("hush", xs, xs, quiet=True)],
        x_label="x", y_label="y", describe="d",
    )  # fmt: skip
    assert [e.text for e in ET.fromstring(quiet).iter(f"{SVG}text") if e.text == "hush"] == []  # noqa: S314


@pytest.mark.parametrize(
    "series",
    [
        [],
        [charts.Line("a", [0.0], [0.5], [math.nan], [math.nan])],
        [charts.Line("a", [0.0, 1.0], [math.nan, math.nan])],
        [charts.Line("a", [0.0, 0.5, 1.0], [1.0, math.nan, 1.0], [0, 0, 0], [math.nan, 2, 2])],
        [charts.Line(f"m{i}", [0, 1], [1e-9, 1e-9], style=i) for i in range(30)],
    ],
)
def test_odd_series_are_drawn(series):
    svg = charts.lines("o", "t", series, x_label="x", y_label="y", describe="d")
    ET.fromstring(svg)  # noqa: S314
    assert "nan" not in svg
    assert "inf" not in svg


def test_bars_and_matrix_are_drawn():
    bars = charts.bars(
        "b", "t", [charts.Point("a", 2.0, low=1.5, high=2.5), charts.Point("none", math.nan)], x_label="x", describe="d"
    )  # fmt: skip
    assert "none" not in [e.text for e in ET.fromstring(bars).iter(f"{SVG}text")]  # noqa: S314
    grid = charts.matrix(
        "m", "t", ["a", "b"], ["a", "b"], [[math.nan, 1.0], [0.0, math.nan]], texts=[["", "9"], ["0", ""]],
        describe="d",
    )  # fmt: skip
    root = ET.fromstring(grid)  # noqa: S314
    assert len(list(root.iter(f"{SVG}rect"))) == 2
    dark, light = (e.attrib["style"] for e in root.iter(f"{SVG}text") if e.text in {"9", "0"})
    assert "#fff" in dark
    assert "#111" in light


@pytest.mark.parametrize("values", [[0, 1], [0.1234, 0.1235], [-3, 7000], [5, 5], [0, 0], []])
def test_linear_axes_hold_their_values_between_round_ticks(values):
    axis = linear(values)
    assert axis.low <= min(values, default=0) + 1e-12
    assert axis.high >= max(values, default=1) - 1e-12
    assert 3 <= len(axis.ticks) <= 12
    assert len({text for _, text in axis.ticks}) == len(axis.ticks)
    assert all(-1e-9 <= axis.place(v) <= 1 + 1e-9 for v, _ in axis.ticks)


@pytest.mark.parametrize("values", [[0.001, 100], [0.04, 0.054], [2.0], [], [0, -1, 3]])
def test_logarithmic_axes_have_ticks_within(values):
    axis = logarithmic(values)
    assert len(axis.ticks) >= 2
    assert all(axis.low <= v <= axis.high for v, _ in axis.ticks)
    low, high = axis.low, axis.high
    assert axis.place(math.sqrt(low * high)) == pytest.approx(0.5)


def test_a_page_holds_its_sections_and_escapes_its_texts():
    page = Document(
        "T <i>", ["lead & <b>"], [Section("one", "One <u>", [figures([(lines(), "cap <s>")])], lead="x < y")]
    ).html()  # fmt: skip
    for raw in ("<i>", "<b>", "<u>", "<s>"):
        assert raw not in page
    assert '<html lang="en">' in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)


def test_a_bar_can_be_compared_with_a_mark():
    points = [charts.Point("a", 0.5, mark=0.8), charts.Point("b", 0.4)]
    marked = charts.bars("b", "Bars", points, x_label="x", describe="two bars")
    plain = charts.bars("b", "Bars", points[1:], x_label="x", describe="one bar")
    assert "v16" in marked
    assert "v16" not in plain
