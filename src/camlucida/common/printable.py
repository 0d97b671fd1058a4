"""Names of files as they are drawn and printed."""

from __future__ import annotations

import os
from pathlib import Path


def printable(file: str | os.PathLike[str]) -> str:
    """A path as text that any page, figure or terminal takes: without bytes that are no UTF-8, or line breaks."""
    text = os.fsencode(file).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def name_of(file: str | os.PathLike[str]) -> str:
    """The last part of a path, likewise."""
    return printable(Path(file).name)
