"""The finished parts of a long computation, kept with the plan they were made by, so that a stopped one goes on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import check_regular, read_bytes, read_text, write, write_bytes
from camlucida.common.jsonable import digest, plain, to_json
from camlucida.common.provenance import fingerprint
from camlucida.common.version import __version__

PLAN = "plan.json"
"""The file of a folder with results that says how they were made."""

_Part = TypeVar("_Part")


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

    def value(
        self, name: str, compute: Callable[[], Any], whole: Callable[[Any], bool] = lambda _: True
    ) -> Any:
        """A part that JSON can hold: what was kept, or what ``compute`` returns.

        Args:
            name: of the part.
            compute: called where nothing is kept that can be used.
            whole: whether all that a kept part names, such as files, is there.
        """

        def read(path: Path) -> Any:
            kept = json.loads(read_bytes(path, "part"))
            if kept["part"] != name or kept["digest"] != digest([kept["value"]]):
                raise ValueError
            if not whole(kept["value"]):
                raise ValueError
            return kept["value"]

        def write(path: Path, value: Any) -> None:
            kept = {"part": name, "digest": digest([value]), "value": value}
            write_bytes(path, to_json(kept).encode())

        return self._part(
            self._path(name, "json"), read, lambda: json.loads(to_json(compute())), write
        )

    def tensors(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A part made of tensors, such as weights."""

        def read(path: Path) -> dict[str, Tensor]:
            check_regular(path, "part")
            kept = torch.load(path, weights_only=True, map_location="cpu")
            tensors: dict[str, Tensor] = kept["tensors"]
            if kept["digest"] != _digest(name, tensors):
                raise ValueError
            return tensors

        def write(path: Path, tensors: dict[str, Tensor]) -> None:
            write_torch(path, {"digest": _digest(name, tensors), "tensors": tensors})

        return self._part(
            self._path(name, "pt"),
            read,
            lambda: {k: v.detach().cpu() for k, v in compute().items()},
            write,
        )

    def checkpoint(self, name: str) -> Path | None:
        """The file from which a stopped training of this part goes on; ``None`` where nothing is kept."""
        return self._path(name, "ckpt")

    def _part(
        self,
        path: Path | None,
        read: Callable[[Path], _Part],
        compute: Callable[[], _Part],
        write: Callable[[Path, _Part], object],
    ) -> _Part:
        if path is not None and path.is_file():
            try:
                kept = read(path)
            except Exception:  # noqa: S110 - a damaged file is computed again
                pass
            else:
                self.found += 1
                return kept
        value = compute()
        if path is not None:
            write(path, value)
        return value

    def _path(self, name: str, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        readable = re.sub(r"[^a-z0-9.+-]+", "_", name.lower())[:60]
        return self.folder / f"{readable}-{self.key}-{digest([name])[:8]}.{suffix}"


def _digest(name: str, tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(name, *chain.from_iterable(tensors.items()))


def write_torch(path: Path, content: object) -> Path:
    """Write tensors as ``torch.save`` does, whole or not at all; returns the path.

    Raises:
        CamlucidaError: the file cannot be written.
    """

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch would write its name into the file
            torch.save(content, file)

    return write(path, save)


# ---- plans ---------------------------------------------------------------------------------------


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The ``plan.json`` of a folder; ``None`` where there is none.

    Raises:
        CamlucidaError: it cannot be read.
    """
    file = folder / PLAN
    if not os.path.lexists(file):
        return None
    text = read_text(file, "plan")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CamlucidaError(f"{str(file)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CamlucidaError(f"{str(file)!r} cannot be read: it is no plan")
    return found


def start_plan(folder: Path, plan: Mapping[str, Any], *, results: bool) -> None:
    """Write a plan into a folder, or check that it is the one that its results were made by.

    Args:
        folder: made if need be.
        plan: everything that decides the results, ready for JSON.
        results: whether the folder holds any; a plan without results gives way to another.

    Raises:
        CamlucidaError: the folder holds the results of another plan, or cannot be written to.
    """
    if not holds_plan(folder, plan, results=results):
        write_bytes(folder / PLAN, to_json(plan).encode())


def holds_plan(folder: Path, plan: Mapping[str, Any], *, results: bool) -> bool:
    """Whether a folder holds this very plan; ``False`` where it holds none, or another without results.

    Args:
        folder: may be missing.
        plan: everything that decides the results, ready for JSON.
        results: whether the folder holds any.

    Raises:
        CamlucidaError: it holds the results of another plan, or results without a plan.
    """
    kept = read_plan(folder)
    if results and kept is None:
        raise CamlucidaError(
            f"{str(folder)!r} holds results without a {PLAN}; choose another folder (--out)"
        )
    if results and kept is not None:
        check_plan(folder, kept, plan)
    return kept is not None and not _changes(kept, plan)


def check_plan(place: Path, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to mix the results of two plans.

    Args:
        place: the folder or file with the results, for the message.
        kept: the plan that they were made by.
        wanted: the plan of now. Where it has a ``digest``, that decides.

    Raises:
        CamlucidaError: the plans differ; it names the first differences.
    """
    if changed := _changes(kept, wanted):
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise CamlucidaError(
            f"{str(place)!r} holds the results of another plan, and the two are not mixed: "
            f"{'; '.join(changed[:5])}{more}. Choose another folder (--out), or delete {str(place)!r} to start anew"
        )


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], sides: tuple[str, str] = ("before", "now")
) -> list[str]:
    """What differs between two plans, in words, in the plans' order.

    Args:
        old: a plan.
        new: another.
        sides: what the two are called.
    """
    was, is_now = sides
    one, other = dict(leaves(old)), dict(leaves(new))
    absent = object()
    found: list[str] = []
    for name in dict.fromkeys([*one, *other]):
        values = one.get(name, absent), other.get(name, absent)
        if values[0] == values[1]:
            continue
        item, dot, _ = name.partition("].")
        there = [any(leaf.startswith(item + dot) for leaf in side) for side in (one, other)]
        if dot and not all(there):  # a method or metric that only one of them has
            found.append(f"{item}]: only {was if there[0] else is_now}")
        else:
            shown = [_shown(value, absent) for value in values]
            hashed = name.endswith("sha256") and absent not in values
            what = name.removesuffix("sha256").rstrip("_.")
            found.append(
                f"{what} differ" if hashed else f"{name}: {shown[0]} {was}, {shown[1]} {is_now}"
            )
    return list(dict.fromkeys(found))


def _changes(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    if "digest" in wanted and kept.get("digest") == wanted["digest"]:
        return []
    return differences(kept, wanted) or (["its digest"] if "digest" in wanted else [])


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value of a plan with its path, such as ``methods[rise].options.n``; how it was run is left out."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if path or key not in {"digest", "how", "about"}:
                yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            named = item.get("label") or item.get("name") if isinstance(item, Mapping) else None
            yield from leaves(item, f"{path}[{named or i}]")
    else:
        yield path, value


def _shown(value: Any, absent: object) -> str:
    text = "absent" if value is absent else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
