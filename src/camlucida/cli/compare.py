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

    from camlucida.audits.trust.change import TrustComparison
    from camlucida.benchmark.compare import RunComparison


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="RUN1",
            help="The folder that camlucida evaluate, or camlucida audit all, wrote.",
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="RUN2", help="The folder of another run.")],
    seed: BootstrapSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs, or two audits, photo by photo: what changed, and whether it could be chance.

    Photos are matched by their names in the data set. Photos that only one run has are listed. Of two audits, the
    grades of every method are compared, such as those of two versions of a model.
    """
    from camlucida.audits.trust.change import compare_audits, is_audit
    from camlucida.benchmark.compare import compare as compare_runs

    if is_audit(first) and is_audit(second):
        audits = compare_audits(first, second)
        if as_json:
            print_json(audits.to_dict())
        else:
            _show_audits(audits)
        return
    found = compare_runs(first, second, seed=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found)


def _show_audits(found: TrustComparison) -> None:
    from camlucida.audits.rules import SHORT
    from camlucida.cli.summary import probability

    terminal = console()
    images = "the same images" if found.paired else "other images"
    terminal.print(f"{found.models[0]} and {found.models[1]}, on {images}", soft_wrap=True)
    for where, several in (("first", found.only_first), ("second", found.only_second)):
        if several:
            terminal.print(f"in the {where} audit only: {', '.join(several)}", soft_wrap=True)
    columns = ("method", "question", "first", "second", "share", "share", "p", "what changed")
    rows = [
        (c.method, SHORT[c.question], c.before, c.after, *(_share(v) for v in (c.first, c.second)),
         "" if c.p is None else probability(c.p), c.said)
        for c in found.changes
    ]  # fmt: skip
    left = ("method", "question", "first", "second", "what changed")
    print_table(
        terminal, grid(columns, ((cells, False) for cells in rows), left=left, grouped=True)
    )
    terminal.print(
        "\nshare: of the way from a map that knows nothing to the exact answer; p: of the difference, after Holm.",
        soft_wrap=True,
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _show(found: RunComparison) -> None:
    from camlucida.benchmark.findings import LEVEL
    from camlucida.benchmark.report.wording import few
    from camlucida.cli.summary import photos

    terminal = console()

    def say(text: str) -> None:
        terminal.print(text, soft_wrap=True)

    say(f"{photos(found.images)} in both runs")
    same = not (found.differences or found.only_first or found.only_second)
    for text in ("nothing",) if same else found.differences:
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
