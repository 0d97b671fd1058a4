"""Charts as inline SVG: read in colour, in grey, by the colour-blind, and aloud.

Series differ by colour (Okabe and Ito's palette, without its yellow, which vanishes on white), line
style *and* marker, and are labelled where they end. Text is text. Colours follow the page's variables
(``--ink``, ``--s0`` ...), so that charts turn dark with it, and have defaults where there is no page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from camlucida.report.drawing import (
    COLOURS,
    SMALL,
    Frame,
    band,
    draw,
    free_place,
    linear,
    logarithmic,
    marker_at,
    path,
    spread,
    style,
    width_of,
    words,
)
from camlucida.report.tables import number

__all__ = ["COLOURS", "Line", "Point", "bars", "key", "lines", "matrix", "scatter", "style"]


@dataclass(frozen=True)
class Line:
    """A curve with a band.

    Attributes:
        label: its name.
        x: positions, rising.
        y: heights; NaN leaves a gap.
        low: lower edge of the band; empty for none.
        high: its upper edge.
        style: the number of its colour, line style and marker, see :func:`style`; a name keeps its own in all charts.
        quiet: draw it thin and grey, without label or band, as a backdrop for the others.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    style: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class Point:
    """A labelled point, or a bar.

    Attributes:
        label: its name.
        x: position; of a bar its length.
        y: height; not used by bars.
        low: lower end of the interval of ``y``, of a bar of ``x``.
        high: its upper end.
        style: as for lines.
        mark: of a bar, another number to be compared with it, such as that of a control.
    """

    label: str
    x: float
    y: float = 0.0
    low: float | None = None
    high: float | None = None
    style: int = 0
    mark: float | None = None


def lines(
    name: str,
    title: str,
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    describe: str,
    y_range: tuple[float, float] | None = None,
    height: int = 300,
) -> str:
    """Curves with bands, each labelled at its end.

    Args:
        name: the name of the chart in its page, unique there: small letters, digits and hyphens.
        title: what it is called.
        series: the curves.
        x_label: what x is.
        y_label: what y is.
        describe: what it shows, in words, for who cannot see it.
        y_range: smallest and largest height; by default those of the curves and bands.
        height: the height in pixels, of 460 in width.

    Returns:
        An ``<svg>``.
    """
    shown = [s for s in series if any(map(math.isfinite, s.y))]
    labelled = [s for s in shown if not s.quiet]
    right = 34 + max((width_of(s.label) for s in labelled), default=0.0)
    frame = Frame(
        name,
        title,
        describe,
        linear([v for s in shown for v in s.x]),
        linear([v for s in shown for v in (*s.y, *s.low, *s.high)], y_range),
        x_label,
        y_label,
        height,
        right,
    )
    drawn = [
        path(frame, s.x, s.y, "stroke:var(--faint,#8a8a8a);stroke-width:.8;fill:none", s.label)
        for s in shown
        if s.quiet
    ]
    drawn += [band(frame, s.x, s.low, s.high, style(s.style)[0]) for s in labelled if s.low]
    ends = []
    for s in labelled:
        colour, dash, marker = style(s.style)
        pen = f"stroke:{colour};stroke-width:1.8;fill:none;stroke-linejoin:round"
        pen += f";stroke-dasharray:{dash.replace(' ', ',')}" if dash else ""
        drawn.append(path(frame, s.x, s.y, pen, s.label))
        known = [(x, y) for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
        step = max(1, len(known) // 5)
        start = (s.style * 2 + 1) % step if step > 1 else 0
        drawn += [marker_at(marker, *frame.at(x, y), colour) for x, y in known[start::step]]
        ends.append((s, *frame.at(*known[-1])))
    for (s, x, y), placed in zip(
        ends, spread([e[2] for e in ends], frame.top, frame.bottom), strict=True
    ):
        colour, dash, marker = style(s.style)
        edge = frame.right + 6
        pen = f"stroke:{colour};stroke-width:1.8"
        pen += f";stroke-dasharray:{dash.replace(' ', ',')}" if dash else ""
        drawn.append(
            f'<path d="M{x + 2:.1f} {y:.1f}L{edge:.1f} {placed:.1f}" '
            f'style="stroke:{colour};stroke-width:.5;fill:none"/>'
        )
        drawn.append(f'<path d="M{edge:.1f} {placed:.1f}h20" style="{pen}"/>')
        drawn.append(marker_at(marker, edge + 10, placed, colour))
        drawn.append(words(edge + 24, placed + 4, s.label, SMALL))
    return frame.svg(drawn)


def scatter(
    name: str,
    title: str,
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    describe: str,
    log_x: bool = False,
    x_text: Callable[[float], str] | None = None,
    height: int = 300,
) -> str:
    """Labelled points with vertical intervals.

    Arguments are those of :func:`lines`, but for the points, ``log_x``, powers of ten along x for positive values,
    and ``x_text``, which writes the ticks of x. A label that finds no room shows under the mouse only.
    """
    shown = [
        p for p in points if math.isfinite(p.x) and math.isfinite(p.y) and (p.x > 0 or not log_x)
    ]
    along = (logarithmic if log_x else linear)([p.x for p in shown])
    if x_text is not None:
        along = along.written(x_text)
    ys = [v for p in shown for v in (p.y, p.low, p.high) if v is not None and math.isfinite(v)]
    frame = Frame(name, title, describe, along, linear(ys), x_label, y_label, height, 18)
    spots = [frame.at(p.x, p.y) for p in shown]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    drawn = []
    for p, (x, y) in zip(shown, spots, strict=True):
        colour, _, marker = style(p.style)
        parts = [f"<title>{escape(p.label)}: {number(p.x)}, {number(p.y)}</title>"]
        if p.low is not None and p.high is not None and math.isfinite(p.low + p.high):
            top, bottom = frame.at(p.x, p.high)[1], frame.at(p.x, p.low)[1]
            parts.append(
                f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" style="stroke:{colour};stroke-width:1.2"/>'
            )
        parts.append(marker_at(marker, x, y, colour, 4.5))
        place = free_place(x, y, width_of(p.label), frame, taken)
        if place is not None:
            taken.append(place)
            parts.append(words(place[0], place[3] - 3, p.label, SMALL))
        drawn.append(f"<g>{''.join(parts)}</g>")
    return frame.svg(drawn)


def bars(
    name: str,
    title: str,
    values: Sequence[Point],
    *,
    x_label: str,
    describe: str,
    x_range: tuple[float, float] | None = None,
) -> str:
    """Horizontal bars from 0 with intervals, each with its name and number.

    Arguments are those of :func:`lines`, but for the bars from above, ``x`` their length; ``x_range`` reaches from 0
    to the longest by default.
    """
    shown = [p for p in values if math.isfinite(p.x)]
    ends = [
        v for p in shown for v in (p.x, p.low, p.high, p.mark) if v is not None and math.isfinite(v)
    ]
    left = 12 + max((width_of(p.label) for p in shown), default=0.0)
    height = 60 + 22 * len(shown)
    frame = Frame(
        name, title, describe, linear([0.0, *ends], x_range), None, x_label, "", height, 60, left
    )
    drawn = []
    zero = frame.at(0, 0)[0]
    for i, p in enumerate(shown):
        y = frame.top + 22 * i + 11
        x = frame.at(p.x, 0)[0]
        colour, _, _ = style(p.style)
        drawn.append(
            f'<path d="M{zero:.1f} {y - 7:.1f}H{x:.1f}V{y + 7:.1f}H{zero:.1f}Z" '
            f'style="fill:{colour};fill-opacity:.35;stroke:{colour}"/>'
        )
        furthest = x
        if p.low is not None and p.high is not None and math.isfinite(p.low + p.high):
            low, high = frame.at(p.low, 0)[0], frame.at(p.high, 0)[0]
            furthest = max(x, high)
            drawn.append(
                f'<path d="M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8" '
                'style="stroke:var(--ink,#111);stroke-width:1.2"/>'
            )
        if p.mark is not None and math.isfinite(p.mark):
            place = frame.at(p.mark, 0)[0]
            furthest = max(furthest, place)
            drawn.append(
                f'<path d="M{place:.1f} {y - 8:.1f}v16" style="stroke:var(--ink,#111);stroke-width:2.5"/>'
            )
        drawn.append(words(frame.left - 6, y + 4, p.label, SMALL, "end"))
        drawn.append(words(furthest + 6, y + 4, number(p.x), SMALL))
    return frame.svg(drawn)


def matrix(
    name: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    shares: Sequence[Sequence[float]],
    *,
    texts: Sequence[Sequence[str]],
    describe: str,
    row_title: str = "",
    column_title: str = "",
) -> str:
    """Cells from white at 0 to dark at 1, each with a text.

    Arguments are those of :func:`lines`, but for the names of rows and columns, the darkness of each cell, 0 to 1
    (NaN leaves it empty), the text in each, and what rows and columns are.
    """
    side = 30 if len(columns) <= 16 else 22
    left = 10 + max(map(width_of, rows), default=0.0) + (16 if row_title else 0)
    top = 8 + max(map(width_of, columns), default=0.0) + (18 if column_title else 0)
    width, height = left + side * len(columns) + 8, top + side * len(rows) + 8
    drawn = []
    if column_title:
        drawn.append(words(left, 12, column_title, SMALL, quiet=True))
    if row_title:
        drawn.append(words(12, top + side * len(rows), row_title, SMALL, turned=True, quiet=True))
    for c, label in enumerate(columns):
        drawn.append(words(left + side * (c + 0.5) + 4, top - 5, label, SMALL, turned=True))
    for r, label in enumerate(rows):
        y = top + side * r
        drawn.append(words(left - 6, y + side / 2 + 4, label, SMALL, "end"))
        for c in range(len(columns)):
            share, x = shares[r][c], left + side * c
            if not math.isfinite(share):
                continue
            dark = min(max(share, 0.0), 1.0)
            # The cells keep their own colours in the dark, so that their texts keep their contrast.
            grey = round(250 - 190 * dark)
            drawn.append(
                f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{side - 2}" height="{side - 2}" '
                f'style="fill:rgb({grey},{min(grey + 6, 255)},{min(grey + 22, 255)});'
                'stroke:var(--line,#bbb);stroke-width:.5"/>'
            )
            ink = "#fff" if dark > 0.55 else "#111"
            drawn.append(
                words(
                    x + side / 2,
                    y + side / 2 + 4,
                    texts[r][c],
                    SMALL if side > 25 else 9,
                    "middle",
                    ink,
                )
            )
    return draw(name, title, describe, max(width, 120), height, drawn, wide=False)


def key(index: int) -> str:
    """A sample of a series, to stand beside its name in text."""
    colour, dash, marker = style(index)
    dashes = f";stroke-dasharray:{dash.replace(' ', ',')}" if dash else ""
    return (
        '<svg width="26" height="12" viewBox="0 0 26 12" aria-hidden="true" focusable="false">'
        f'<path d="M1 6H25" style="stroke:{colour};stroke-width:1.8{dashes}"/>'
        f"{marker_at(marker, 13, 6, colour)}</svg>"
    )
