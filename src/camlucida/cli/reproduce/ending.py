"""How every table is made, written and printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from camlucida.cli.shared.console import bars, console, print_json, print_lines, print_table, shown
from camlucida.cli.shared.writing import out_folder
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.studies.published import FameTable1, Reproduced


def finish(run: Callable[[Say], Reproduced | FameTable1], out: Path, *, as_json: bool) -> None:
    """Make a table under progress bars, write it, and print it or one JSON document.

    Raises:
        Exit: with 130 where the work was stopped before its end.
    """
    with out_folder(out):
        with bars() as say:
            found = run(say)
        files = found.save(out)
    if as_json:
        print_json({**found.to_dict(), "files": [shown(file) for file in files]})
    else:
        for table in found.tables:
            print_table(console(), table)
        print_lines(*found.lead, files[0])
    if not found.complete:
        raise typer.Exit(130)
