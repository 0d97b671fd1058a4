"""Where weights that this machine trained are kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from camlucida.errors import CamlucidaError
from camlucida.models.loaded import require


def cache_folder() -> Path:
    """The folder of trained weights: ``CAMLUCIDA_CACHE``, else the user's cache folder. It need not exist."""
    if chosen := os.environ.get("CAMLUCIDA_CACHE"):
        return Path(chosen).expanduser()
    return Path(require("platformdirs", "train").user_cache_dir("camlucida", appauthor=False))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there, also after a power cut.

    Raises:
        CamlucidaError: the folder cannot be made or the file not be written.
    """
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CamlucidaError(f"cannot write to {str(path)!r}: {error.strerror or error}") from error


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
