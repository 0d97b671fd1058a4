"""Write to disk so that a file is either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from camlucida.cli.console import shown
from camlucida.errors import CamlucidaError


def write(path: Path, writer: Callable[[Path], object]) -> Path:
    """Have ``writer`` write to a temporary name beside ``path``, then put it in place.

    Args:
        path: The file; an older one is replaced.
        writer: Writes the file whose path it gets; that path has the same suffix.

    Returns:
        The path.

    Raises:
        CamlucidaError: The file cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(f".writing-{os.getpid()}{path.suffix}")
    with _readable(path):
        try:
            writer(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextmanager
def out_folder(path: Path) -> Iterator[Path]:
    """The folder of the results, made and tried out; removed at the end if nothing is in it.

    Raises:
        CamlucidaError: It cannot be made or written to.
    """
    made = [p for p in (path, *path.parents) if not p.exists()]
    with _readable(path):
        path.mkdir(parents=True, exist_ok=True)
    write(path / ".writing", lambda p: p.write_bytes(b"")).unlink(missing_ok=True)
    try:
        yield path
    finally:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CamlucidaError(f"cannot write to '{shown(path)}': {reason}") from error
