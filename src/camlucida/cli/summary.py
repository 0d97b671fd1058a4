"""``camlucida summary``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from camlucida.cli.shared.console import console, print_json, print_table
from camlucida.cli.shared.options import AsJson, BootstrapSeed, option

if TYPE_CHECKING:
    from camlucida.benchmark.summary import Summary

_SHOWN = 5  # broken photos that are named
_ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


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
    """Print a summary: a block per number, a line per method."""
    terminal = console()
    state = "" if found.complete else f" of {found.total}, not finished"
    known = "" if found.accuracy is None else f"; {found.accuracy:.1%} classified right"
    broken = f"; {len(found.broken)} cannot be used" if found.broken else ""
    data = found.plan["data"].get("name", "")
    model = found.plan.get("model", {}).get("name", "")
    terminal.print(
        f"{model} on {data}: {photos(found.images)}{state}{broken}{known}",
        markup=False,
        soft_wrap=True,
    )
    for heading, said in (("cannot be used", found.broken), ("in part only", found.notes)):
        for key, reason in said[:_SHOWN]:
            terminal.print(f"{heading}: {key}: {reason}", markup=False, soft_wrap=True)
        if len(said) > _SHOWN:
            terminal.print(f"{heading}: {len(said) - _SHOWN} more")
    terminal.print()
    print_table(terminal, _means(found))
    terminal.print(
        "\n± is the standard deviation over photos; the interval is that of the mean, 95 %"
        + ("; * is the best." if found.table["method"].nunique() > 1 else ".")
    )
    if tests and not len(found.tests):
        terminal.print("\nno tests: they compare methods, and this run has one")
    elif tests:
        terminal.print()
        print_table(terminal, _tests(found))
        terminal.print("\np values after Holm, over the pairs of a number.")


def _means(found: Summary) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, right in (
        ("number", False), ("method", False), ("mean", True), ("±", True), ("interval", True), ("rank", True),
        ("photos", True),
    ):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    facts = found.plan["about"]["numbers"]
    several = found.table["method"].nunique() > 1
    last = None
    for row in found.table.itertuples():
        arrow = _ARROWS[facts[row.metric]["direction"]]
        new = row.metric != last
        name = f"{row.metric} {arrow}".rstrip() if new else ""
        if new and last is not None:
            table.add_section()
        last = row.metric
        best = row.best and several
        style = "bold" if best else ""
        table.add_row(
            Text(name),
            Text(f"{row.method}{' *' if best else ''}", style=style),
            Text(_number(row.mean), style=style),
            _number(row.std),
            f"{_number(row.low)} to {_number(row.high)}" if math.isfinite(row.low) else "",
            f"{row.rank:.2f}" if math.isfinite(row.rank) else "",
            str(row.n),
        )
    return table


def _tests(found: Summary) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("number", "methods", "difference", "photos", "rank-sum", "signed-rank"):
        table.add_column(name, justify="left" if name in {"number", "methods"} else "right")
    for row in found.tests.itertuples():
        table.add_row(
            Text(row.metric),
            Text(f"{row.a} - {row.b}"),
            _number(row.difference),
            str(row.n),
            probability(row.rank_sum_holm),
            probability(row.signed_rank_holm),
        )
    return table


def _write(found: Summary, folder: Path) -> None:
    from camlucida.cli.shared.writing import out_folder, write

    with out_folder(folder):
        for name, table in (("summary", found.table), ("tests", found.tests)):
            write(folder / f"{name}.csv", lambda p, table=table: table.to_csv(p, index=False))  # type: ignore[misc]


def _number(value: Any) -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"


def photos(count: int) -> str:
    """``"1 photo"``, ``"2 photos"``."""
    return f"{count} photo{'' if count == 1 else 's'}"


def probability(p: float) -> str:
    """A p value, short."""
    if not math.isfinite(p):
        return ""
    return f"{p:.3f}" if p >= 1e-3 else f"{p:.0e}" if p > 0 else "< 1e-300"
