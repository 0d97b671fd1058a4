"""``camlucida summary``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import console, print_json, print_table
from camlucida.cli.shared.listing import grid
from camlucida.cli.shared.options import AsJson, BootstrapSeed, option
from camlucida.report.tables import ARROWS, SYMBOLS

if TYPE_CHECKING:
    from rich.table import Table

    from camlucida.benchmark.summary import Summary

_SHOWN = 5  # broken photos that are named


def summary(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder that camlucida evaluate wrote.")
    ],
    tests: Annotated[
        bool,
        typer.Option(
            "--tests", help="Show the tests between methods, pair by pair; --json always has them."
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        option("FOLDER", "Also write summary.csv and tests.csv into this folder."),
    ] = None,
    seed: BootstrapSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Sum up a run: mean, 95 % interval, rank, tests between methods, and cost.

    A run that is not finished can be summed up too. The tests are Wilcoxon's: rank-sum as in published tables, and
    signed-rank for pairs, corrected after Holm.
    """
    from camlucida.benchmark.summary import summarise

    found = summarise(run, seed=seed)
    if csv is not None:
        _write(found, csv)
    if as_json:
        print_json(document(found))
    else:
        show(found, tests=tests)


def document(found: Summary) -> dict[str, Any]:
    """A summary as it is printed: without the names of all classes, which the run folder keeps."""
    record = found.to_dict()
    record["plan"].get("about", {}).pop("class_names", None)
    return record


def show(found: Summary, *, tests: bool = False) -> None:
    """Print a summary: what the page says first, then a block per number, a line per method."""
    from camlucida.benchmark.findings import MARKED
    from camlucida.benchmark.report.wording import headline

    terminal = console()
    state = "" if found.complete else f" of {found.total}, not finished"
    known = "" if found.accuracy is None else f"; {found.accuracy:.1%} classified right"
    broken = f"; {len(found.broken)} cannot be used" if found.broken else ""
    data = found.plan["data"].get("name", "")
    model = found.plan.get("model", {}).get("name", "")
    terminal.print(
        f"{model} on {data}: {photos(found.images)}{state}{broken}{known}",
        soft_wrap=True,
    )
    left_out = [*found.plan.get("how", {}).get("skipped", {}).items()]
    for heading, said in (
        ("left out", left_out),
        ("cannot be used", found.broken),
        ("in part only", found.notes),
    ):
        for key, reason in said[:_SHOWN]:
            terminal.print(f"{heading}: {key}: {reason}", soft_wrap=True)
        if len(said) > _SHOWN:
            terminal.print(f"{heading}: {len(said) - _SHOWN} more")
    terminal.print()
    for text in headline(found):
        terminal.print(text)
    terminal.print()
    print_table(terminal, _means(found))
    terminal.print(
        "\n± is the standard deviation over photos; the interval is that of the mean, 95 %."
    )
    if any(found.table["mark"]):
        terminal.print(MARKED)
    if tests and not len(found.tests):
        terminal.print("\nno tests: they compare methods, and this run has one")
    elif tests:
        terminal.print()
        print_table(terminal, _tests(found))
        terminal.print(
            "\np values after Holm, over the pairs of a number; rank-sum, as in published tables, "
            "takes the photos of the two methods for different ones."
        )


def _means(found: Summary) -> Table:
    facts = found.plan["about"]["numbers"]
    columns = ("number", "method", "mean", "±", "interval", "rank", "photos")
    rows = []
    for row in found.table.itertuples():
        cells = (
            f"{row.metric} {ARROWS[facts[row.metric]['direction']]}".rstrip(),
            f"{row.method} {SYMBOLS[row.mark]}".rstrip(),
            short(row.mean),
            short(row.std),
            interval(row.low, row.high),
            f"{row.rank:.2f}" if math.isfinite(row.rank) else "",
            str(row.n),
        )
        rows.append((cells, row.mark == "best"))
    return grid(columns, rows, left=columns[:2], grouped=True)


def _tests(found: Summary) -> Table:
    columns = ("number", "methods", "difference", "photos", "rank-sum", "signed-rank")
    rows = [
        (row.metric, f"{row.a} - {row.b}", short(row.difference), str(row.n),
         probability(row.rank_sum_holm), probability(row.signed_rank_holm))
        for row in found.tests.itertuples()
    ]  # fmt: skip
    return grid(columns, ((cells, False) for cells in rows), left=columns[:2])


def _write(found: Summary, folder: Path) -> None:
    from camlucida.cli.shared.writing import out_folder, write

    with out_folder(folder):
        for name, table in (("summary", found.table), ("tests", found.tests)):
            write(folder / f"{name}.csv", lambda p, table=table: table.to_csv(p, index=False))  # type: ignore[misc]


def short(value: Any, sign: str = "") -> str:
    """A number, short; ``sign="+"`` writes its sign also where it is positive."""
    if not math.isfinite(value):
        return ""
    small = 1e-3 <= abs(value) < 1e4 or value == 0
    return f"{value:{sign}.4f}" if small else f"{value:{sign}.3g}"


def interval(low: float, high: float, sign: str = "") -> str:
    """Both ends of an interval, where there is one."""
    return f"{short(low, sign)} to {short(high, sign)}" if math.isfinite(low) else ""


def photos(count: int) -> str:
    """``"1 photo"``, ``"2 photos"``."""
    return f"{count} photo{'' if count == 1 else 's'}"


def probability(p: float) -> str:
    """A p value, short."""
    if not math.isfinite(p):
        return ""
    return f"{p:.3f}" if p >= 1e-3 else f"{p:.0e}" if p > 0 else "< 1e-300"
