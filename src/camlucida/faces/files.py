"""Write files so that each is either whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from camlucida.errors import CamlucidaError

TEMPORARY = ".writing-"


def put(path: Path, writer: Callable[[Path], object]) -> Path:
    """Have ``writer`` write to a temporary name beside ``path``, flush it to the disk, then put it in place.

    Args:
        path: the file; its folder is made, an older file is replaced.
        writer: writes the file whose path it gets; that path has the same suffix.

    Returns:
        The path.

    Raises:
        CamlucidaError: the file cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CamlucidaError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def slug(label: str) -> str:
    """A label as part of a file name."""
    kept = "".join(c if c.isalnum() or c in "+-._" else "-" for c in label)
    return "-".join(part for part in kept.split("-") if part) or "map"
