"""The sections of a run's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from camlucida.benchmark.findings import LEVEL, MARKED, Estimate, Finding, wins
from camlucida.benchmark.report.gallery import CONFIDENT, KINDS, Gallery
from camlucida.benchmark.report.results import QUESTIONS, RunResults
from camlucida.benchmark.report.wording import questions
from camlucida.explanation.diagnostics import CASES
from camlucida.report import charts
from camlucida.report.page import (
    Section,
    answers,
    details,
    figures,
    paragraph,
    side_by_side,
    subheading,
)
from camlucida.report.tables import Cell, Column, Table

BROKEN = 50
"""Images that could not be used and are listed on the page."""


# --------------------------------------------------------------------------------------------- tables


def summary(report: RunResults) -> Section:
    """Each question with its answer, and the methods at a glance."""
    said = questions(report.findings)
    parts: list[str | Table] = [answers(said)] if said else []
    if report.judged:
        parts.append(overview(report))
    return Section("summary", "Question by question", parts)


def overview(report: RunResults) -> Table:
    """Per method: on how many numbers it leads, its mean rank, and what it costs."""
    judged, cost = report.judged, report.cost
    ranks = {
        m: [f.estimates[m].rank for f in judged if math.isfinite(f.estimates[m].rank)]
        for m in report.methods
    }
    columns = [
        Column("best or level with it", "higher", f"of {len(judged)}"),
        Column("clearly best", "higher", f"of {len(judged)}"),
        Column("mean rank", "lower", places=2, note="over images and numbers, 1 is best"),
    ]
    if cost is not None:
        columns.append(Column("time per image", "lower", "s", digits=3))
    rows = []
    for m in report.methods:
        row: list[float | str | None] = [
            m,
            sum(f.mark(m) != "" for f in judged),
            sum(f.mark(m) == "best" for f in judged),
            float(np.mean(ranks[m])) if ranks[m] else None,
        ]
        rows.append(row if cost is None else [*row, cost.estimates[m].mean])
    return Table.of_rows(
        "overview",
        f"The methods over the {len(judged)} numbers that judge them",
        ["method", *columns],
        rows,
        "Level with the best: not told apart from it by a signed-rank test with Holm's correction, p of "
        f"{LEVEL} or more.",
    )


def means(report: RunResults) -> list[Table]:
    """A table of means per question, and one of the cost."""
    made = []
    groups = {**QUESTIONS, "cost": "What does a map cost?"}
    for question, text in groups.items():
        mine = [f for f in report.findings if f.number.question == question and f.ranked]
        if not mine:
            continue
        counts = {e.images for f in mine for e in f.estimates.values() if e.images}
        few = (
            f"{text} Between {min(counts):,} and {max(counts):,} images count."
            if len(counts) > 1
            else ""
        )
        rows = tuple(
            (m, tuple(_cell(f.estimates.get(m), f, m) for f in mine)) for m in report.methods
        )
        made.append(
            Table(
                f"means-{question.replace(' ', '-')}",
                text,
                tuple(f.column for f in mine),
                rows,
                legend=few,
            )
        )
    return made


def _cell(estimate: Estimate | None, finding: Finding, method: str) -> Cell:
    if estimate is None or not math.isfinite(estimate.mean):
        return Cell()
    return Cell(estimate.mean, estimate.low, estimate.high, mark=finding.mark(method))


def results(found: Sequence[Table]) -> Section:
    """All means."""
    marks = {cell.mark for table in found for _, cells in table.rows for cell in cells}
    lead = "Means over the images, with their 95 % intervals by bootstrap below them."
    if marks - {""}:
        lead += f" {MARKED}"
    notes = [t.legend for t in found if t.legend]
    return Section(
        "results",
        "All numbers",
        [side_by_side(found), *(paragraph(n, note=True) for n in notes)],
        lead=lead,
    )


# ---------------------------------------------------------------------------------------------- tests


def tests(report: RunResults) -> tuple[Section | None, list[Table]]:
    """Which method beats which on how many numbers, and the tests behind the leading numbers."""
    methods, judged = report.methods, report.judged
    if len(methods) < 2 or not judged:
        return None, []
    counts = wins(methods, judged)
    total = len(judged)
    places = range(len(methods))
    known = [[None if r == c else int(counts[r, c]) for c in places] for r in places]
    beaten = counts.sum(1)
    first = methods[int(beaten.argmax())]
    svg = charts.matrix(
        "wins",
        "How often the method of a row beats that of a column",
        methods,
        methods,
        [[math.nan if n is None else n / total for n in row] for row in known],
        texts=[["" if n is None else str(n) for n in row] for row in known],
        describe=f"Of {total} judged numbers, on how many the method of the row is better than that of the column "
        f"beyond chance. {first} has the most such wins, {beaten.max():.0f} of {total * (len(methods) - 1)}. The "
        "same numbers are in the table below."
        if beaten.max()
        else f"Of {total} judged numbers, no method is better than another beyond chance on any.",
    )
    count_table = Table.of_rows(
        "wins-table",
        f"On how many of the {total} judged numbers the method of the row beats that of the column",
        ["method", *methods],
        [[m, *row] for m, row in zip(methods, known, strict=True)],
    )
    made = [count_table, *(_pairs(f, methods) for f in report.leading)]
    caption = (
        "Each cell: on how many numbers the method of the row is better than that of the column beyond chance "
        f"(signed-rank test on the same images, Holm's correction over all pairs of a number, p below {LEVEL})"
    )
    folded = [details("The same as a table", count_table.html())]
    folded += [
        details(f"Tests of {f.number.title}", t.html())
        for f, t in zip(report.leading, made[1:], strict=True)
    ]
    return Section("tests", "Which method beats which", [figures([(svg, caption)]), *folded]), made


def _pairs(finding: Finding, methods: Sequence[str]) -> Table:
    def cell(one: str, other: str) -> Cell:
        p = finding.p_of(one, other)
        if one == other or not math.isfinite(p):
            return Cell()
        return Cell(p, mark="best" if finding.beats(one, other) else "")

    return Table(
        f"tests-{finding.number.question.replace(' ', '-')}",
        f"{finding.number.title}: corrected p of each pair",
        tuple(Column(m, places=3) for m in methods),
        tuple((m, tuple(cell(m, o) for o in methods)) for m in methods),
        legend="Bold with a star: the method of the row is better than that of the column.",
        best="row is better",
    )


# --------------------------------------------------------------------------------------------- images


def confidence(
    report: RunResults, cases: dict[str, list[int]], pictures: Gallery, shown: int
) -> tuple[Section | None, list[Table]]:
    """The four cases: how many images, how the methods do in each, and examples."""
    if not cases:
        return None, []
    total = sum(map(len, cases.values()))
    sure = report.images["probability"]
    made = [
        Table.of_rows(
            "cases",
            f"The {total:,} images with a known class; confident means a probability of {CONFIDENT} or more",
            ["case", "images", Column("share", unit="%", places=1), "mean confidence"],
            [
                (title, len(own := cases[case]), 100 * len(own) / total, _mean(sure[own]))
                for case, title in CASES.items()
            ],
        )
    ]
    for finding in report.leading[:3]:
        values = report.leading_values[finding.number.name]
        made.append(
            Table.of_rows(
                f"cases-{finding.number.question.replace(' ', '-')}",
                f"{finding.number.title} in each case, mean over its images",
                ["method", *(Column(title, finding.number.direction) for title in CASES.values())],
                [
                    [m, *(_mean(values[i][cases[case]]) for case in CASES)]
                    for i, m in enumerate(report.methods)
                ],
            )
        )
    parts: list[str | Table] = [made[0], side_by_side(made[1:])]
    if pictures.strips and report.leading:
        said = f"The clearest images of each case; below each map its {report.leading[0].number.title}."
        parts.append(paragraph(said, note=True))
    for case, title in CASES.items():
        if strips := pictures.html(cases[case][:shown]):
            parts += [subheading(f"{title.capitalize()}: {len(cases[case]):,}"), strips]
    return Section("cases", "Confident or unsure, right or wrong", parts), made


def _mean(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def gallery(report: RunResults, chosen: dict[str, list[int]], pictures: Gallery) -> Section | None:
    """The pictures of the best, middle, worst and most disagreeing images."""
    parts: list[str | Table] = [paragraph(note, note=True) for note in pictures.notes]
    for kind, title in KINDS.items():
        if strips := pictures.html(chosen.get(kind, [])):
            parts += [subheading(title), strips]
    if not parts:
        return None
    by = report.leading[0].number if report.leading else None
    lead = (
        ""
        if by is None
        else f"Chosen by {by.title}, averaged over the methods; its value stands below each map. Dark is no "
        "attribution, light is much. The maps were computed again for this page."
    )
    return Section("images", "Images", parts, lead=lead if pictures.strips else "")


def broken(report: RunResults) -> tuple[Section | None, list[Table]]:
    """Images that could not be used, and those on which a method or metric failed."""
    summary = report.summary
    parts: list[str | Table] = []
    made = []
    for name, found, caption in (
        ("broken", summary.broken, "could not be used"),
        ("failed", summary.notes, "lack a number, as a method or metric failed on them"),
    ):
        if not found:
            continue
        many = f"{len(found):,} image{'s' if len(found) > 1 else ''} {caption}"
        table = Table.of_rows(name, many, ["image", "reason"], found)
        made.append(table)
        parts.append(replace(table, rows=table.rows[:BROKEN]))
        if len(found) > BROKEN:
            parts.append(
                paragraph(f"The first {BROKEN} are listed; the file {name}.csv has all.", note=True)
            )
    return (Section("broken", "Images left out", parts), made) if parts else (None, [])
