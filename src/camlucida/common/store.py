"""The finished parts of a long computation, kept so that a stopped one goes on."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from camlucida.common.files import write_bytes
from camlucida.common.jsonable import digest, plain, to_json
from camlucida.common.version import __version__


class Store:
    """Keeps finished parts, so that a stopped computation goes on where it was.

    Args:
        folder: where; ``None`` keeps nothing.
        key: what all parts depend on: model, data, options, seed. Another key finds none of them.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, key: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder) / "parts"
        self.key = digest([__version__, plain(key)])[:16]
        self.found = 0

    def value(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part that JSON can hold: what was kept, or what ``compute`` returns."""
        path = self._path(name, "json")
        if path is not None and path.is_file():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                pass  # a damaged file is computed again
            else:
                self.found += 1
                return kept
        value = json.loads(to_json(compute()))
        if path is not None:
            write_bytes(path, to_json(value).encode())
        return value

    def tensors(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A part made of tensors, such as weights."""
        path = self._path(name, "pt")
        if path is not None and path.is_file():
            try:
                kept = torch.load(path, weights_only=True, map_location="cpu")
            except Exception:  # noqa: S110 - a damaged file is computed again
                pass
            else:
                self.found += 1
                return dict(kept)
        values = {k: v.detach().cpu() for k, v in compute().items()}
        if path is not None:
            buffer = io.BytesIO()
            torch.save(values, buffer)
            write_bytes(path, buffer.getvalue())
        return values

    def _path(self, name: str, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        readable = re.sub(r"[^a-z0-9.+-]+", "_", name.lower())[:60]
        return self.folder / f"{readable}-{self.key}-{digest([name])[:8]}.{suffix}"
