"""From a run folder to a page and its tables."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.report import gallery as pictures
from camlucida.benchmark.report import plots, sections
from camlucida.benchmark.report.findings import Finding, Report, findings
from camlucida.benchmark.report.provenance import provenance
from camlucida.benchmark.report.results import Results, read
from camlucida.benchmark.report.wording import headline
from camlucida.common.errors import CamlucidaError
from camlucida.report.page import Document, Section
from camlucida.report.tables import Table

if TYPE_CHECKING:
    from camlucida.data.samples import DataSet
    from camlucida.models import LoadedModel

EXAMPLES = 2
"""Images shown of each of the four confidence cases."""


@dataclass(frozen=True)
class Composed:
    """A report before it is written.

    Attributes:
        document: the page.
        tables: the tables on it, in full.
        results: the run.
        findings: its numbers, judged.
        notes: what could not be shown, in words.
    """

    document: Document
    tables: tuple[Table, ...]
    results: Results
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


def write_report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    galleries: bool = True,
    model: LoadedModel | str | None = None,
    data: DataSet | str | None = None,
    progress: Callable[[float, float], object] | None = None,
) -> Path:
    """Write the report of a run: one web page, and its tables as CSV and LaTeX in a folder beside it.

    Args:
        run: the run folder of ``camlucida evaluate``, finished or not.
        out: the page; ``report.html`` in the run folder by default. The tables go into the folder
            ``report-tables`` beside it, named after the page.
        galleries: explain a few images again and show them; otherwise the page holds numbers only.
        model: the model for that; by default the plan's.
        data: the data for that; by default the plan's.
        progress: called with the number of maps explained again and their total.

    Returns:
        The page.

    Raises:
        CamlucidaError: the folder is no run or holds nothing yet, or the report cannot be written.

    Example:
        >>> _ = camlucida.benchmark.evaluate(
        ...     model, ".", metrics=["sparseness"], out="run", preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> camlucida.benchmark.write_report("run", galleries=False).name
        'report.html'
    """
    page = page_of(run, out)
    composed = compose(run, galleries=galleries, model=model, data=data, progress=progress)
    save(composed, page)
    return page


def page_of(run: str | Path, out: str | Path | None) -> Path:
    """Where the report of a run goes."""
    page = Path(run) / "report.html" if out is None else Path(out)
    return page / "report.html" if page.is_dir() else page


def save(composed: Composed, page: Path) -> Path:
    """Write a report and its tables; the page comes last.

    Returns:
        The folder of the tables.

    Raises:
        CamlucidaError: something cannot be written.
    """
    folder = page.with_name(f"{page.stem}-tables")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in composed.tables:
            _put(folder / f"{table.name}.csv", table.csv())
            _put(folder / f"{table.name}.tex", table.latex())
        _put(folder / "all-means.csv", all_means(composed.results, composed.findings))
        _put(folder / "all-tests.csv", composed.results.summary.tests.to_csv(index=False))
        if composed.results.curves:
            _put(folder / "curves.csv", all_curves(composed.results))
        _put(page, composed.document.html())
    except OSError as error:
        raise CamlucidaError(f"cannot write to {str(page)!r}: {error.strerror or error}") from error
    return folder


def compose(
    run: str | Path,
    *,
    galleries: bool = True,
    model: LoadedModel | str | None = None,
    data: DataSet | str | None = None,
    progress: Callable[[float, float], object] | None = None,
) -> Composed:
    """The report of a run, not written yet; arguments as for :func:`write_report`."""
    results = read(run)
    report = Report(results, findings(results))
    cases = pictures.cases_of(results)
    by = report.leading[0] if report.leading else None
    values = report.values[by.number.name] if by is not None else None
    wanted = {} if by is None or values is None else pictures.chosen(values, by.number.direction)
    shown = pictures.Gallery(notes=("This report was made without pictures.",))
    if galleries:
        examples = [i for found in cases.values() for i in found[:EXAMPLES]]
        chosen = dict.fromkeys([i for found in wanted.values() for i in found] + examples)
        shown = pictures.explained(
            results, list(chosen), values, model=model, data=data, progress=progress
        ) if chosen else pictures.Gallery(notes=("No image can be shown.",))  # fmt: skip
    means = sections.means(report)
    tests, test_tables = sections.tests(report)
    confident, case_tables = sections.confidence(report, cases, shown, EXAMPLES)
    left_out, broken = sections.broken(report)
    made, plans = provenance(results)
    found: list[Section | None] = [
        sections.summary(report) if report.judged else None,
        sections.results(means) if means else None,
        plots.curves(report),
        plots.cost(report),
        tests,
        confident,
        sections.gallery(report, wanted, shown),
        left_out,
        made,
    ]
    right = results.summary.accuracy
    accuracy = [] if right is None else [("model's accuracy", f"{100 * right:.1f} %")]
    document = Document(
        _title(results),
        headline(results, report.findings),
        [s for s in found if s is not None],
        facts=[
            ("model", results.model),
            ("data", results.data),
            ("images", f"{len(results.images['key']):,}"),
            ("methods", str(len(results.methods))),
            ("numbers", str(len([n for n in results.numbers if n.name != SECONDS]))),
            *accuracy,
        ],
    )
    overview = [sections.overview(report)] if report.judged else []
    tables = (*overview, *means, *test_tables, *case_tables, *broken, *plans)
    return Composed(document, tables, results, report.findings, shown.notes if galleries else ())


def all_means(results: Results, found: tuple[Finding, ...]) -> str:
    """Every mean in one long table: a line per number and method."""
    lines = [
        ["number", "title", "direction", "unit", "method", "mean", "low", "high", "images", "mark"]
    ]
    for finding in found:
        facts = finding.number
        for method in results.methods:
            e = finding.estimates.get(method)
            if e is None:
                continue
            mean, low, high = (repr(v) if math.isfinite(v) else "" for v in (e.mean, e.low, e.high))
            lines.append([
                facts.name, facts.title, facts.direction, facts.unit, method, mean, low, high, str(e.images),
                finding.mark(method),
            ])  # fmt: skip
    return _csv(lines)


def all_curves(results: Results) -> str:
    """Every mean curve: a line per number, method and position."""
    lines = [["number", "method", "x", "mean", "low", "high", "images"]]
    for name, curve in results.curves.items():
        for method, mean in curve.mean.items():
            band = zip(curve.x, mean, curve.low[method], curve.high[method], strict=True)
            for values in band:
                written = [repr(float(v)) if math.isfinite(v) else "" for v in values]
                lines.append([name, method, *written, str(curve.images[method])])
    return _csv(lines)


def _title(results: Results) -> str:
    many = len(results.methods)
    return f"{many} explanation method{'s' if many > 1 else ''} on {results.model}, measured on {results.data}"


def _csv(lines: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def _put(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
