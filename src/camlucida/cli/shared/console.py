"""Talk to the user: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from camlucida.common.jsonable import to_json

_PIPED_WIDTH = 100
_WIDEST = 1000


def console() -> Console:
    """For results: coloured on a terminal, plain text in a pipe."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=_PIPED_WIDTH if piped else None)


def print_table(place: Console, table: Any) -> None:
    """A table as wide as the terminal; in a pipe as wide as it takes, so that no cell is broken or cut."""
    if place.is_terminal or "COLUMNS" in os.environ:
        place.print(table)
        return
    room = place.options.update(width=_WIDEST, max_width=_WIDEST)
    needed = place.measure(table, options=room).maximum
    Console(file=place.file, highlight=False, width=max(needed, place.width)).print(table)


def complain(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    line = " ".join(part.strip() for part in text.splitlines() if part.strip())
    Console(stderr=True).print(f"camlucida: {line}", markup=False, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar on stderr that leaves nothing behind; silent where stderr is no terminal."""
    bar = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=bar,
        transient=True,
        disable=not bar.is_terminal,
    )


@contextmanager
def bars() -> Iterator[Callable[[str, float, float], None]]:
    """One bar for each part of a long work: called with the part, what of it is done, and its whole."""
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def say(what: str, done: float, total: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=int(done), total=int(total) or None)

        yield say


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(to_json(document))
    sys.stdout.flush()


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed, also where its bytes are no UTF-8 or it holds line breaks."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
