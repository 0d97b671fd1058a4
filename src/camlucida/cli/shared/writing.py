"""The folder that a command writes its results to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import writable, write
from camlucida.common.jsonable import to_json
from camlucida.common.printable import printable as shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["claim", "model_of", "out_folder", "write", "write_figure", "write_json", "write_text"]


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


def claim(out: Path, model: str, *names: str) -> None:
    """Refuse to write over records of another model.

    Args:
        out: The folder of the results.
        model: The name of the model.
        names: What the records are called, without ``.json``.

    Raises:
        CamlucidaError: Naming the other model and what to do.
    """
    for name in names:
        if (held := model_of(out, name)) not in (None, model):
            raise CamlucidaError(
                f"'{shown(out / name)}.json' holds the results of the model {held}, and this is {model}; choose "
                "another folder with --out, or delete that file"
            )


def model_of(out: Path, name: str) -> str | None:
    """The model that a record in a folder is about; ``None`` where there is no record."""
    try:
        record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        held = record.get("model") or record.get("record", {}).get("model")
    except (OSError, ValueError, AttributeError):
        return None
    return held if isinstance(held, str) else None


def write_text(path: Path, text: str) -> Path:
    """A text in UTF-8, whole or not at all."""
    return write(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: Path, document: Any) -> Path:
    """A document as JSON, whole or not at all."""
    return write_text(path, to_json(document))


def write_figure(path: Path, figure: Figure) -> Path:
    """A figure as a picture, whole or not at all."""
    return write(path, lambda p: figure.savefig(p, dpi=130))
