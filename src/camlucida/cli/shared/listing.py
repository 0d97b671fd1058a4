"""Tables for the terminal: what is registered with its facts, and rows of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text


def listing(entries: Iterable[tuple[str, Mapping[str, str]]]) -> Table:
    """Names, each with its facts below each other; empty facts are left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for entry, facts in entries:
        inner = Table(box=None, show_header=False, pad_edge=False)
        inner.add_column(style="dim", no_wrap=True, min_width=7)
        inner.add_column(overflow="fold")
        for name, fact in facts.items():
            if fact:
                inner.add_row(name, Text(fact))
        table.add_row(Text(entry), inner)
    return table


def word(value: Any) -> str:
    """An option's default as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "(" + ", ".join(map(word, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def grid(
    columns: Sequence[str],
    rows: Iterable[tuple[Sequence[str], bool]],
    *,
    left: Sequence[str] = (),
    grouped: bool = False,
) -> Table:
    """Rows of numbers.

    Args:
        columns: What stands over them.
        rows: The cells of each row, and whether it stands out.
        left: Columns of words, which are aligned left and may be wrapped.
        grouped: Rows that begin with the same word belong together, and it is written once.
    """
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(
            name, justify="left" if name in left else "right", no_wrap=name not in left
        )
    last = None
    for cells, strong in rows:
        first = cells[0]
        if grouped and last not in {None, first}:
            table.add_section()
        own = ["" if grouped and first == last else first, *cells[1:]]
        last = first
        table.add_row(
            *(Text(cell, style="bold" if strong and i else "") for i, cell in enumerate(own))
        )
    return table
