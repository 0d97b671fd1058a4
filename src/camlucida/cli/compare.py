"""``camlucida compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.shared.console import console, print_json, print_table
from camlucida.cli.shared.listing import grid
from camlucida.cli.shared.options import AsJson, BootstrapSeed

if TYPE_CHECKING:
    from rich.table import Table

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
    from camlucida.benchmark.findings import LEVEL
    from camlucida.benchmark.report.wording import few
    from camlucida.cli.summary import photos

    terminal = console()

    def say(text: str) -> None:
        terminal.print(text, soft_wrap=True)

    say(f"{photos(found.images)} in both runs")
    for text in found.differences or ("nothing",):
        say(f"differs: {text}")
    for where, several in (("first", found.only_first), ("second", found.only_second)):
        if several:
            say(f"in the {where} run only: {', '.join(several)}")
    for text in found.left_out:
        say(f"not compared: {text}")
    for text in few(found.images, "the runs"):
        say(text)
    terminal.print()
    print_table(terminal, _table(found))
    say(
        "\ndifference: second - first, with its 95 % interval; p: signed-rank test, after Holm over methods; "
        f"better: where p is below {LEVEL} and the interval leaves out 0."
    )


def _table(found: RunComparison) -> Table:
    from camlucida.cli.summary import interval, probability, short

    columns = (
        "number", "method", "first", "second", "difference", "interval", "p", "photos", "better",
    )  # fmt: skip
    rows = [
        (row.metric, row.method, short(row.first), short(row.second), short(row.difference, "+"),
         interval(row.low, row.high, "+"), probability(row.p_holm), str(row.n), row.better)
        for row in found.table.itertuples()
    ]  # fmt: skip
    left = ("number", "method", "better")
    return grid(columns, ((cells, False) for cells in rows), left=left, grouped=True)
