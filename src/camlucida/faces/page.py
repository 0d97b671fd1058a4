"""The page of a face verification: curves, error rates, tables, and pairs with their maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camlucida.common.errors import ImageError
from camlucida.data.images import read_image
from camlucida.faces.pair import CARE
from camlucida.faces.protocol import as_said
from camlucida.faces.verification import RANDOM
from camlucida.faces.verification_report import VerificationReport
from camlucida.report.charts import Line, lines
from camlucida.report.page import Document, Section, figures, paragraph, picture, subheading
from camlucida.report.tables import Cell, Column, Table
from camlucida.report.template import jpeg

PICTURES = 24
"""Pairs whose maps are shown; others are named in a table."""

_WIDTH = 1500
_RULES = {
    "percentile": "pixels above a percentile of the map, as published; a map with many zeros stops deleting early",
    "rank": "exactly P % of the pixels, ties in a fixed order, so that all maps alter the same number",
}


@dataclass(frozen=True)
class DrawnPair:
    """A pair on the page.

    Attributes:
        name: what it is called.
        verdict: similarity, threshold and decision, or why it was left out.
        same: whether both show one person; ``None`` where nobody says.
        picture: file of the grid of its maps; ``None`` without one.
    """

    name: str
    verdict: str
    same: bool | None = None
    picture: Path | None = None


def verification_page(
    title: str,
    lead: Sequence[str],
    *,
    report: VerificationReport | None = None,
    tables: Sequence[Table] = (),
    others: Sequence[Section] = (),
    drawn: Sequence[DrawnPair] = (),
    facts: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> Document:
    """Compose the page.

    There is no report where the pairs do not say who they show; the other sections follow the tables, such as those
    of published numbers. The page says what such maps do not show.
    """
    sections: list[Section] = []
    if report is not None:
        sections.append(
            Section(
                "methods",
                "Which maps name the pixels that decide",
                [*tables, _curves(report)],
                "Delete blackens the P % most important pixels of the probe, Insert all others; the better "
                "the map, the lower the first and the higher the second.",
            )
        )
    sections += others
    if report is not None:
        sections.append(_scores(report))
    if drawn:
        sections.append(Section("pairs", "Pairs", _pairs(drawn)))
    sections.append(
        Section(
            "care",
            "What these maps show, and what they do not",
            [paragraph(text) for text in (CARE, *notes)],
        )
    )
    if report is not None and report.errors:
        sections.append(_left_out(report.errors))
    return Document(title, lead, sections, facts=facts)


def verification_table(
    report: VerificationReport,
    rule: str,
    *,
    name: str = "verification",
    published: Callable[[str], tuple[float, float] | None] = lambda _: None,
) -> Table:
    """Areas of every method and of maps that know nothing, with their intervals.

    ``published`` gives the Delete and Insert of a paper by the label of a method.
    """
    rows: list[tuple[Any, ...]] = []
    for label, curves in report.curves.items():
        beside = published(label) or (None, None)
        both = [curves[rule, mode] for mode in ("delete", "insert")]
        areas = (Cell(c.auc, c.low, c.high, p) for c, p in zip(both, beside, strict=True))
        rows.append((label, *areas, report.seconds.get(label), report.empty.get(label)))
    columns = (
        "method",
        Column("Delete", "lower", places=1),
        Column("Insert", "higher", places=1),
        Column("time per face", unit="s", places=2),
        Column("empty maps", places=0),
    )
    caption = f"Delete and Insert, by {rule}: {_RULES.get(rule, rule)}"
    legend = (
        f"Area under the verification accuracy over P, times 100, on {len(report.keys)} pairs; 95 % bootstrap "
        f"intervals over {len(set(report.people))} people. Random pixels destroy a face wherever they fall; random "
        "patches are as smooth as FAME's maps."
    )
    return Table.of_rows(f"{name}-{rule}", caption, columns, rows, legend).marked(but=RANDOM)


def _curves(report: VerificationReport) -> str:
    charts = []
    for rule in report.rules:
        for mode, better in (("delete", "lower"), ("insert", "higher")):
            found = [(label, curves[rule, mode]) for label, curves in report.curves.items()]
            series = [
                Line(label, c.percentages, (100 * c.accuracy).tolist(), style=number)
                for number, (label, c) in enumerate(found)
            ]
            told = "; ".join(f"{label} {c.auc:.1f}" for label, c in found)
            title = f"{mode.capitalize()}, by {rule} ({better} is better)"
            svg = lines(
                f"curve-{rule}-{mode}", title, series,
                x_label="% of the probe's pixels", y_label="pairs decided right, %", describe=f"Areas: {told}.",
            )  # fmt: skip
            charts.append((svg, title))
    return figures(charts)


def _scores(report: VerificationReport) -> Section:
    """FMR, FNMR and ROC of the unaltered pairs."""
    curves, threshold = report.error_curves, report.threshold
    compare = report.plan["compare"]
    value = as_said(threshold.value, compare)
    at = [as_said(score, compare) for score in curves.thresholds[::-1]]
    rates = lines(
        "error-rates",
        "Error rates over the threshold",
        [
            Line("FMR", at, (100 * curves.fmr[::-1]).tolist(), style=2),
            Line("FNMR", at, (100 * curves.fnmr[::-1]).tolist(), style=1),
        ],
        x_label=f"threshold of the {compare}",
        y_label="error, %",
        describe=f"At the threshold {value:.4f} the false match rate is {threshold.fmr:.1%} and the false "
        f"non-match rate {threshold.fnmr:.1%}.",
        y_range=(0.0, 100.0),
    )
    across, up = curves.roc
    roc = lines(
        "roc",
        "ROC",
        [Line("ROC", (100 * across).tolist(), (100 * up).tolist(), style=1)],
        x_label="false match rate, %",
        y_label="true match rate, %",
        describe=f"The area under the curve is {curves.auc:.4f}.",
        y_range=(0.0, 100.0),
    )
    return Section(
        "scores",
        "The pairs as they are",
        [
            figures([
                (rates, f"Error rates; the threshold is {value:.4f}"),
                (roc, f"ROC, area {curves.auc:.4f}"),
            ])
        ],
        f"Unaltered: {report.decided}. FMR is the share of the impostor pairs that are taken for one person, FNMR that "
        "of the genuine pairs that are taken for two.",
    )  # fmt: skip


def _pairs(drawn: Sequence[DrawnPair]) -> list[str | Table]:
    parts: list[str | Table] = []
    rest = []
    for one in drawn:
        shown = None
        if one.picture is not None and len(parts) < 2 * PICTURES:
            with suppress(ImageError):  # it was removed since
                shown = read_image(one.picture)
        if shown is None:
            rest.append((one.name, _caption(one)))
            continue
        shown.thumbnail((_WIDTH, _WIDTH * shown.height))
        parts += [subheading(one.name), picture(jpeg(shown), _caption(one))]
    if rest:
        caption = f"{len(rest)} {'more pairs' if parts else 'pairs'}"
        parts.append(Table.of_rows("other-pairs", caption, ("pair", "verdict"), rest))
    return parts


def _caption(pair: DrawnPair) -> str:
    told: Mapping[bool | None, str] = {True: " (one person)", False: " (two people)", None: ""}
    return f"{pair.verdict}{told[pair.same]}"


def _left_out(errors: Sequence[str]) -> Section:
    rows = enumerate(errors, 1)
    table = Table.of_rows("left-out", "Pairs that could not be used", ("number", "why"), rows)
    return Section("left-out", "Left out", [table])
