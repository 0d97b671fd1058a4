"""The charts of a run's report: curves, and cost against quality."""

from __future__ import annotations

import math

from camlucida.benchmark.findings import Finding
from camlucida.benchmark.report.results import Curve, RunResults
from camlucida.benchmark.report.wording import listed
from camlucida.report import charts
from camlucida.report.page import Section, figures
from camlucida.report.tables import WORDS, number

SHOWN = 7
"""Curves that are drawn in full; the others stay in the background."""


def curves(report: RunResults) -> Section | None:
    """The mean curves with their bands."""
    drawn = [
        _curve(report, i, finding, report.curves[finding.number.name])
        for i, finding in enumerate(report.findings)
        if finding.number.name in report.curves
    ]
    if not drawn:
        return None
    return Section(
        "curves",
        "Curves",
        [figures(drawn)],
        lead="Means over the images; the bands are 95 % intervals of the means.",
    )


def _curve(report: RunResults, i: int, finding: Finding, curve: Curve) -> tuple[str, str]:
    title, over = finding.number.title, finding.number.over
    methods = [m for m in report.methods if m in curve.mean]
    order = [m for m in finding.ranked if m in curve.mean]
    first = (order + [m for m in methods if m not in order])[:SHOWN]
    series = [
        charts.Line(
            m,
            curve.x.tolist(),
            curve.mean[m].tolist(),
            curve.low[m].tolist(),
            curve.high[m].tolist(),
            report.style(m),
            quiet=m not in first,
        )
        for m in methods
    ]
    caption = title
    if finding.judges:
        caption += f": {WORDS[finding.number.direction]}"
    if len(methods) > SHOWN:
        caption += f". The {SHOWN} best are named, the other {len(methods) - SHOWN} drawn in grey"
    heights = {m: (float(curve.mean[m][0]), float(curve.mean[m][-1])) for m in first}
    said = "; ".join(f"{m} from {number(a)} to {number(b)}" for m, (a, b) in heights.items())
    svg = charts.lines(
        f"curve-{i}",
        title,
        series,
        x_label=over,
        y_label=finding.number.height or title,
        describe=f"{len(methods)} curves of {title} over {over}, from {curve.x[0]:g} to {curve.x[-1]:g}: "
        f"{said}. What they sum up to is in the tables.",
    )
    return svg, caption


def cost(report: RunResults) -> Section | None:
    """Cost against quality, for the leading number of each question."""
    found = report.cost
    if found is None or len(report.methods) < 2:
        return None
    drawn = []
    for i, finding in enumerate(report.leading):
        both = [m for m in finding.ranked if math.isfinite(found.estimates[m].mean)]
        points = [
            charts.Point(
                m,
                found.estimates[m].mean,
                finding.estimates[m].mean,
                finding.estimates[m].low,
                finding.estimates[m].high,
                report.style(m),
            )
            for m in both
        ]
        if not points:
            continue
        worth = [
            m
            for m in both
            if not any(
                finding.ahead(o, m) and found.estimates[o].mean <= found.estimates[m].mean
                for o in both
            )
        ]
        arrow = "up" if finding.number.direction == "higher" else "down"
        caption = (
            f"{finding.number.title} against time per image; better is {arrow} and to the left. No method is "
            f"both better and as fast as {listed(worth, 6)}"
        )
        svg = charts.scatter(
            f"cost-{i}",
            f"{finding.number.title} against cost",
            points,
            x_label="time per image",
            y_label=finding.number.title,
            log_x=True,
            x_text=seconds,
            describe="; ".join(f"{p.label}: {seconds(p.x)}, {number(p.y)}" for p in points) + ".",
        )
        drawn.append((svg, caption))
    return Section("cost", "Cost against quality", [figures(drawn)]) if drawn else None


def seconds(value: float) -> str:
    """A time for people."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"
