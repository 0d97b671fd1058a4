"""``camlucida verify --pairs``: a whole list, with a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlucida.cli.shared.console import (
    bars,
    complain,
    console,
    print_json,
    print_lines,
    print_table,
)
from camlucida.cli.shared.writing import out_folder

if TYPE_CHECKING:
    from camlucida.faces.embedder import Embedder


def verify_list(
    embedder: Embedder, source: Path, out: Path, *, as_json: bool, **options: Any
) -> None:
    """Verify a list of pairs as :func:`camlucida.faces.verify_pairs` does, and print what was found."""
    from camlucida.faces import verify_pairs

    with out_folder(out), bars() as say:
        found = verify_pairs(embedder, source, out, say=say, **options)
    say_left_out(found.listed.skipped)
    say_left_out(() if found.report is None else found.report.errors)
    if as_json:
        print_json(found.to_dict())
        return
    if found.report is not None:
        print_lines(found.summary, style="bold")
        for table in found.tables:
            print_table(console(), table)
    else:
        print_lines(*(f"{one['pair']}: {one['verdict']}" for one in found.drawn))
    print_lines(out / "index.html")


def say_left_out(reasons: Sequence[str]) -> None:
    """Photos that could not be used, a few of them in full."""
    for text in reasons[:5]:
        complain(f"left out: {text}")
    if len(reasons) > 5:
        complain(f"and {len(reasons) - 5} more")
