"""From a run folder to a page and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.report import gallery as pictures
from camlucida.benchmark.report import plots, sections
from camlucida.benchmark.report.provenance import provenance
from camlucida.benchmark.report.results import RunResults, read
from camlucida.benchmark.report.wording import headline
from camlucida.common.files import write_bytes
from camlucida.common.optional import require
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
        notes: what could not be shown, in words.
    """

    document: Document
    tables: tuple[Table, ...]
    results: RunResults
    notes: tuple[str, ...] = ()


def write_report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    gallery: bool = True,
    model: LoadedModel | str | None = None,
    data: DataSet | str | None = None,
    progress: Callable[[float, float], object] | None = None,
) -> Path:
    """Write the report of a run: one web page, and its tables as CSV and LaTeX in a folder beside it.

    Args:
        run: the run folder of ``camlucida evaluate``, finished or not.
        out: the page; ``report.html`` in the run folder by default. The tables go into the folder
            ``report-tables`` beside it, named after the page.
        gallery: explain a few images again and show them; otherwise the page holds numbers only.
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
        >>> camlucida.benchmark.write_report("run", gallery=False).name
        'report.html'
    """
    page = page_of(run, out)
    composed = compose(run, gallery=gallery, model=model, data=data, progress=progress)
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
    results = composed.results
    files = {f"{table.name}.csv": table.csv() for table in composed.tables}
    files |= {f"{table.name}.tex": table.latex() for table in composed.tables}
    files["all-means.csv"] = all_means(results)
    files["all-tests.csv"] = results.summary.tests.to_csv(index=False)
    if results.curves:
        files["curves.csv"] = all_curves(results)
    for name, text in files.items():
        write_bytes(folder / name, text.encode())
    write_bytes(page, composed.document.html().encode())
    return folder


def compose(
    run: str | Path,
    *,
    gallery: bool = True,
    model: LoadedModel | str | None = None,
    data: DataSet | str | None = None,
    progress: Callable[[float, float], object] | None = None,
) -> Composed:
    """The report of a run, not written yet; arguments as for :func:`write_report`."""
    report = read(run)
    cases = pictures.cases_of(report)
    by = report.leading[0] if report.leading else None
    values = report.leading_values[by.number.name] if by is not None else None
    wanted = {} if by is None or values is None else pictures.chosen(values, by.number.direction)
    shown = pictures.Gallery(notes=("This report was made without pictures.",))
    if gallery:
        examples = [i for found in cases.values() for i in found[:EXAMPLES]]
        chosen = dict.fromkeys([i for found in wanted.values() for i in found] + examples)
        shown = pictures.explained(
            report, list(chosen), values, model=model, data=data, progress=progress
        ) if chosen else pictures.Gallery(notes=("No image can be shown.",))  # fmt: skip
    means = sections.means(report)
    tests, test_tables = sections.tests(report)
    confident, case_tables = sections.confidence(report, cases, shown, EXAMPLES)
    left_out, broken = sections.broken(report)
    made, plans = provenance(report)
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
    right = report.summary.accuracy
    accuracy = [] if right is None else [("model's accuracy", f"{100 * right:.1f} %")]
    document = Document(
        _title(report),
        headline(report.summary),
        [s for s in found if s is not None],
        facts=[
            ("model", report.model),
            ("data", report.data),
            ("images", f"{len(report.images['key']):,}"),
            ("methods", str(len(report.methods))),
            ("numbers", str(len(report.numbers) - (SECONDS in report.numbers))),
            *accuracy,
        ],
    )
    overview = [sections.overview(report)] if report.judged else []
    tables = (*overview, *means, *test_tables, *case_tables, *broken, *plans)
    return Composed(document, tables, report, shown.notes if gallery else ())


def all_means(results: RunResults) -> str:
    """Every mean in one long table: a line per number and method."""
    return _csv(
        {
            "number": f.number.name,
            **{k: getattr(f.number, k) for k in ("title", "direction", "unit")},
            "method": method,
            **{k: getattr(f.estimates[method], k) for k in ("mean", "low", "high", "images")},
            "mark": f.mark(method),
        }
        for f in results.findings
        for method in results.methods
        if method in f.estimates
    )


def all_curves(results: RunResults) -> str:
    """Every mean curve: a line per number, method and position."""
    return _csv(
        {
            "number": name, "method": m, "x": curve.x[i], "mean": mean[i], "low": curve.low[m][i],
            "high": curve.high[m][i], "images": curve.images[m],
        }
        for name, curve in results.curves.items()
        for m, mean in curve.mean.items()
        for i in range(len(mean))
    )  # fmt: skip


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    text: str = require("pandas", "benchmark").DataFrame(rows).to_csv(index=False)
    return text


def _title(results: RunResults) -> str:
    many = len(results.methods)
    return f"{many} explanation method{'s' if many > 1 else ''} on {results.model}, measured on {results.data}"
