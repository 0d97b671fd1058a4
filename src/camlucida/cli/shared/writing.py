"""The folder that a command writes its results to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camlucida.common.files import writable, write

__all__ = ["out_folder", "write"]


@contextmanager
def out_folder(path: Path) -> Iterator[Path]:
    """The folder of the results, made and tried out; removed at the end if nothing is in it.

    Raises:
        CamlucidaError: It cannot be made or written to.
    """
    made = [p for p in (path, *path.parents) if not p.exists()]
    with writable(path):
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
