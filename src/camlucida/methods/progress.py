"""Progress of work that has parts."""

from __future__ import annotations

from collections.abc import Callable

from camlucida.methods.base import Progress


def share(progress: Progress | None, before: int, parts: int) -> Progress | None:
    """The progress of one part as that of the whole, ``before`` of whose ``parts`` are done."""
    if progress is None:
        return None
    return lambda done, total: progress(before * total + done, parts * total)


class Bar:
    """Progress in passes, part after part.

    Args:
        progress: called with the passes done and their total.
        total: passes of all parts.
    """

    def __init__(self, progress: Callable[[float, float], None] | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.before = 0
        self.now = 0

    def done(self, now: int) -> None:
        """So many passes of the present part are done."""
        self.now = now
        if self.progress is not None:
            self.progress(self.before + now, self.total)

    def next(self) -> None:
        """The present part is over."""
        self.before += self.now
        self.now = 0
