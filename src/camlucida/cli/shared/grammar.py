"""The grammar ``name:key=value,key=value`` of ``--method``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def chosen_methods(texts: Sequence[str] | None) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Names and options of ``--method``; ``None`` where it is not given."""
    from camlucida.methods import read_method

    return [read_method(text) for text in texts or ()] or None
