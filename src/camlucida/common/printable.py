"""Names of files as they are drawn and printed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def printable(file: str | os.PathLike[str]) -> str:
    """A path as text that any page, figure or terminal takes: without bytes that are no UTF-8, or line breaks."""
    text = os.fsencode(file).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def name_of(file: str | os.PathLike[str]) -> str:
    """The last part of a path, likewise."""
    return printable(Path(file).name)


def few(words: Iterable[str], most: int = 3) -> str:
    """The first words of a list, and how many follow: ``"tench, goldfish, shark and 997 more"``."""
    listed = list(words)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def slug(label: str, empty: str = "map") -> str:
    """A label as part of a file name: ``gradcam++ (form=true)`` to ``gradcam++-form-true``.

    Args:
        label: any text.
        empty: what a label without letters or digits becomes.
    """
    kept = "".join(c if c.isalnum() or c in "+-._" else "-" for c in label)
    return "-".join(filter(None, kept.split("-"))) or empty


def distinct(names: Iterable[str], again: str = "{}-{}") -> list[str]:
    """The names, each of them once: what comes again is numbered from 2.

    Args:
        names: in their order; names that differ in capitals only are one name, as on many a disk.
        again: how a name and its number are put together.
    """
    found: dict[str, str] = {}
    for name in names:
        own, n = name, 2
        while own.casefold() in found:
            own, n = again.format(name, n), n + 1
        found[own.casefold()] = own
    return list(found.values())
