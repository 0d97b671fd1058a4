"""Talk to the user: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import floor, isnan
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from camlucida.common.jsonable import json_pieces, to_json
from camlucida.common.printable import printable as shown
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.methods import Progress as Advance

__all__ = [
    "bars", "complain", "console", "print_json", "print_lines", "print_result", "print_table", "progress",
    "progress_bar", "shown",
]  # fmt: skip

_PIPED_WIDTH = 100
_WIDEST = 1000
_EVERY = 10.0  # seconds between two lines about long work

# ---- results ----------------------------------------------------------------------------------------


def console() -> Console:
    """For results: coloured on a terminal, plain text in a pipe."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _console(width=_PIPED_WIDTH if piped else None)


def _console(**how: Any) -> Console:
    """One that prints texts as they are: what users wrote may look like markup or the code of an emoji."""
    return Console(highlight=False, markup=False, emoji=False, **how)


def print_table(place: Console, table: Any) -> None:
    """A table as wide as the terminal; in a pipe as wide as it takes, so that no cell is broken or cut."""
    if place.is_terminal or "COLUMNS" in os.environ:
        place.print(table)
        return
    room = place.options.update(width=_WIDEST, max_width=_WIDEST)
    needed = place.measure(table, options=room).maximum
    _console(file=place.file, width=max(needed, place.width)).print(table)


def print_lines(*lines: str | os.PathLike[str], style: str | None = None) -> None:
    """Texts and paths as they are, each on a line of its own however long it is."""
    place = console()
    for line in lines:
        text = line if isinstance(line, str) else shown(line)
        place.print(text, style=style, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout, of an object as its parts are read."""
    for piece in json_pieces(document) if isinstance(document, Mapping) else [to_json(document)]:
        sys.stdout.write(piece)
    sys.stdout.flush()


def print_result(
    found: Any,
    document: Any,
    files: Sequence[os.PathLike[str]],
    *,
    as_json: bool,
    skipped: Sequence[tuple[object, str]] = (),
) -> None:
    """What a command found: as JSON, or for people with the files that were written.

    Args:
        found: A table or anything else that can be printed.
        document: The same, ready for JSON.
        files: What was written.
        as_json: Which of the two.
        skipped: What was left out, with the reason.
    """
    for _, reason in skipped:
        complain(f"left out: {reason}")
    if as_json:
        print_json(document)
        return
    print_table(console(), found)
    print_lines(*files)


# ---- all else ---------------------------------------------------------------------------------------


def complain(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    line = " ".join(part.strip() for part in text.splitlines() if part.strip())
    _console(stderr=True).print(f"camlucida: {line}", soft_wrap=True)


class _Bar(Progress):
    """A bar, or plain lines where it is disabled."""

    _last = float("nan")

    def update(self, task_id: TaskID, *args: Any, **fields: Any) -> None:
        """As any bar, and a line where ten seconds have passed since the last."""
        super().update(task_id, *args, **fields)
        now = monotonic()
        if isnan(self._last):
            self._last = now
        if self.disable and now - self._last >= _EVERY:
            self._last = now
            task = self._tasks[task_id]
            left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
            if task.fields.get("parts") and task.total:
                # Unlike parts of one long work: no count, and what is left of one says nothing of the next.
                complain(f"{task.description} ({task.percentage:.0f} % of all)")
                return
            whole = f" of {task.total:g}" if task.total else ""
            rate = f", {task.speed:.3g} a second" if task.speed else ""
            complain(f"{task.description}: {floor(task.completed)}{whole}{rate}{left}")


def progress_bar() -> Progress:
    """A bar on stderr that leaves nothing behind; where stderr is no terminal, a line every ten seconds."""
    bar = _console(stderr=True)
    return _Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=bar,
        transient=True,
        disable=not bar.is_terminal,
    )


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar for one long work: called with what of it is done, and its whole."""
    with bars() as say:
        say(what, 0, 0)

        def advance(done: float, total: float) -> None:
            say(what, done, total)

        yield advance


@contextmanager
def bars(*, one: bool = False) -> Iterator[Say]:
    """Bars for long work: called with the part, what of it is done, and its whole.

    Args:
        one: One bar, which shows the part that was spoken of last, instead of one for each part.
    """
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def say(what: str, done: float, total: float) -> None:
            key = "" if one else what
            if key not in tasks:
                tasks[key] = bar.add_task(what, total=None, parts=one)
            bar.update(tasks[key], description=what, completed=done, total=total or None)

        yield say
