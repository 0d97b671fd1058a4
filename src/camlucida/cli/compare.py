"""``camlucida compare``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from camlucida.cli.shared.console import console, print_json, print_table
from camlucida.cli.shared.options import AsJson, BootstrapSeed

if TYPE_CHECKING:
    from camlucida.benchmark.compare import RunComparison


def compare(
    first: Annotated[
        Path, typer.Argument(metavar="RUN1", help="The folder that camlucida evaluate wrote.")
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN2", help="The folder of another run.")],
    seed: BootstrapSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs photo by photo: what changed, and whether it could be chance.

    Photos are matched by their names in the data set. Photos that only one run has are listed.
    """
    from camlucida.benchmark.compare import compare as compare_runs

    found = compare_runs(first, second, seed=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found)


def _show(found: RunComparison) -> None:
    from camlucida.cli.summary import photos

    terminal = console()

    def say(text: str) -> None:
        terminal.print(text, markup=False, soft_wrap=True)

    say(f"{photos(found.images)} in both runs")
    for text in found.differences or ("nothing",):
        say(f"differs: {text}")
    for where, several in (("first", found.only_first), ("second", found.only_second)):
        if several:
            say(f"in the {where} run only: {', '.join(several)}")
    for text in found.left_out:
        say(f"not compared: {text}")
    terminal.print()
    print_table(terminal, _table(found))
    say(
        "\ndifference: second - first, with its 95 % interval; p: signed-rank test, after Holm over methods."
    )


def _table(found: RunComparison) -> Table:
    from camlucida.cli.summary import probability

    table = Table(box=None, pad_edge=False)
    for name, right in (
        ("number", False), ("method", False), ("first", True), ("second", True), ("difference", True),
        ("interval", True), ("p", True), ("photos", True), ("better", False),
    ):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    last = None
    for row in found.table.itertuples():
        if last not in {None, row.metric}:
            table.add_section()
        table.add_row(
            Text(row.metric if row.metric != last else ""),
            Text(row.method),
            _number(row.first),
            _number(row.second),
            _number(row.difference, "+"),
            f"{_number(row.low, '+')} to {_number(row.high, '+')}"
            if math.isfinite(row.low)
            else "",
            probability(row.p_holm),
            str(row.n),
            row.better,
        )
        last = row.metric
    return table


def _number(value: Any, sign: str = "") -> str:
    if not math.isfinite(value):
        return ""
    small = 1e-3 <= abs(value) < 1e4 or value == 0
    return f"{value:{sign}.4f}" if small else f"{value:{sign}.3g}"
