"""Write files so that each is either whole or not there, also after a power cut."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from camlucida.common.errors import CamlucidaError
from camlucida.common.printable import printable

TEMPORARY = ".writing-"

CHECKPOINTS = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ".pt2", ".onnx")
"""Endings by which a file is known as a checkpoint, also where there is none of that name."""
"""How the names of files begin that are not whole yet."""

Stamp: TypeAlias = "list[Any] | None"
"""Of a file that was read: its size, its time of change in nanoseconds, and the SHA-256 of its content; ``None`` where
there was no regular file."""


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


def read_bytes(
    path: Path, what: str, kind: type[CamlucidaError] = CamlucidaError, *, most: int | None = 2**31
) -> bytes:
    """The content of a regular file that is not too large; arguments as for :func:`check_regular`.

    Raises:
        CamlucidaError: of the given kind: the file is missing, no regular file or too large, or cannot be read.
    """
    check_regular(path, what, kind, most=most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise kind(f"the {what} {str(path)!r} cannot be read: {error.strerror or error}") from error


def read_text(
    path: Path, what: str, kind: type[CamlucidaError] = CamlucidaError, *, most: int | None = 2**28
) -> str:
    """The same as UTF-8 text, with or without a byte order mark; every end of a line is a line feed.

    Raises:
        CamlucidaError: as for :func:`read_bytes`; or the file holds no UTF-8 text.
    """
    try:
        text = read_bytes(path, what, kind, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"the {what} {str(path)!r} is no text file in UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_there(path: Path) -> bool:
    """Whether something is at a path; also of names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


# ---- what a file was when it was read ------------------------------------------------------------------


def stamp(path: Path) -> Stamp:
    """What tells later whether a file is still the same; to be taken before it is read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        with path.open("rb") as file:
            return [
                status.st_size,
                status.st_mtime_ns,
                hashlib.file_digest(file, "sha256").hexdigest(),
            ]
    except (OSError, ValueError):
        return None


def mark(path: Path) -> list[int] | None:
    """Size and time of change of a file, which tell whether it may be another; ``None`` where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def unchanged(path: Path, known: Stamp, *, content: bool = False) -> bool:
    """Whether a file is still the one that was stamped.

    Args:
        path: the file.
        known: its stamp of then.
        content: compare the content also where size and time are the same. Where only the time differs, as after
            copying, the content decides in any case.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return known is None
    if known is None or not stat.S_ISREG(status.st_mode):
        return known is None and not stat.S_ISREG(status.st_mode)
    if status.st_size != known[0]:
        return False
    if not content and status.st_mtime_ns == known[1]:
        return True
    now = stamp(path)
    return now is not None and now[2] == known[2]


# ---- folders that one process writes to ----------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from a folder, and sweep up what a killed one left half written, two folders deep.

    A lock ends with its process, however that ends. Where a file system knows no locks, two processes do the work
    twice and no harm.

    Raises:
        CamlucidaError: another process holds the lock, or the folder cannot be written to.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    with file:
        if not _lock(file.fileno()):
            raise CamlucidaError(
                f"another process is writing into {str(folder)!r}; wait for it, or choose another --out"
            )
        for depth in ("", "*/", "*/*/"):
            for left in folder.glob(f"{depth}{TEMPORARY}*"):
                left.unlink(missing_ok=True)
        yield


def _lock(descriptor: int) -> bool:
    """Whether the lock is ours; it ends with the process."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


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
