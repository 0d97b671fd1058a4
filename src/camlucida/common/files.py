"""Write files so that each is either whole or not there, also after a power cut."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from camlucida.common.errors import CamlucidaError
from camlucida.common.printable import printable

TEMPORARY = ".writing-"
"""How the names of files begin that are not whole yet."""


def write(path: Path, writer: Callable[[Path], object]) -> Path:
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
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer(temporary)
            flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        flush(path.parent)
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write these bytes, whole or not at all; returns the path.

    Raises:
        CamlucidaError: the file cannot be written.
    """
    return write(path, lambda temporary: temporary.write_bytes(content))


def flush(path: Path) -> None:
    """Have a file, or the entries of a folder, reach the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Say it in words where a path cannot be written to.

    Raises:
        CamlucidaError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise CamlucidaError(
            f"cannot write to '{printable(path)}': {error.strerror or error}"
        ) from error


def check_regular(
    path: Path, what: str, kind: type[CamlucidaError] = CamlucidaError, *, most: int | None = None
) -> None:
    """Refuse what is missing, no regular file or too large, before anything is read: a device never ends.

    Args:
        path: the file; links are followed.
        what: what it should be, such as ``"checkpoint file"``.
        kind: the error to raise.
        most: the largest size, in bytes; ``None`` for any.

    Raises:
        CamlucidaError: of the given kind.
    """
    name = repr(str(path))
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
        reason = (
            f"no such {what}: {name}" if missing else f"the {what} {name} cannot be read: {error}"
        )
        raise kind(reason) from error
    if stat.S_ISDIR(status.st_mode):
        raise kind(f"{name} is a folder, not a {what}")
    if not stat.S_ISREG(status.st_mode):
        raise kind(
            f"{name} is not a regular file (a device, a pipe or a socket), so it is no {what}"
        )
    if most is not None and status.st_size > most:
        raise kind(f"{name} has {status.st_size:,} bytes, more than the {most:,} of any {what}")
