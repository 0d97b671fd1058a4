"""Values as strict JSON can hold them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def to_json(document: Any) -> str:
    """Strict JSON: numbers that are not finite become null, and unknown objects their text."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def json_pieces(document: Mapping[str, Any]) -> Iterator[str]:
    """The same text of an object in pieces, of which none is longer than an item of its lists."""
    yield "{"
    for i, (key, value) in enumerate(document.items()):
        yield f"{',' * bool(i)}\n  {json.dumps(str(key))}: "
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value):
            for j, item in enumerate(value):
                yield f"{',' if j else '['}\n    {_within(item, 4)}"
            yield "\n  ]"
        else:
            yield _within(value, 2)
    yield "\n}\n" if document else "}\n"


def _within(value: Any, indent: int) -> str:
    return to_json(value).rstrip("\n").replace("\n", "\n" + " " * indent)


def plain(value: Any) -> Any:
    """The value made of dictionaries, lists, text, finite numbers and ``None`` only."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)


def digest(items: Iterable[Any]) -> str:
    """SHA-256 over plain values, in their order."""
    found = hashlib.sha256()
    for item in items:
        found.update(json.dumps(plain(item), allow_nan=False, sort_keys=True).encode())
        found.update(b"\n")
    return found.hexdigest()
