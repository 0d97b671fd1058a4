"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str, float, float], object]
"""``say(what, done, total)``: what is being done, how much of it is, and how much there is to do."""


def part(say: Say | None, what: str) -> Callable[[float, float], None] | None:
    """The progress of a part, ``progress(done, total)``, told as part of the whole; ``None`` tells nobody."""
    if say is None:
        return None

    def progress(done: float, total: float) -> None:
        say(what, done, total)

    return progress
