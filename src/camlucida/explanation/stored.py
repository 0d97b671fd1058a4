"""Explanations in a folder, a shard for each batch, read as they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload
from zipfile import BadZipFile

import numpy as np

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import write
from camlucida.common.jsonable import plain
from camlucida.common.optional import first_line, require
from camlucida.common.store import read_plan, start_plan

if TYPE_CHECKING:
    import os

    from camlucida.explanation.result import Comparison, Explanation

_RECORD = "record"


@dataclass(frozen=True)
class StoredExplanation:
    """What is kept of one image.

    Attributes:
        arrays: as :meth:`camlucida.Explanation.arrays` names them, without the dimension of the images.
        rows: what is known of it, one row for each method.

    Example:
        >>> kept = camlucida.explain_each(model, images).save("kept")[0]
        >>> sorted(kept.arrays)[:2], kept.rows[0]["method"]
        (['layer:4', 'maps'], 'gradcam')
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    rows: Sequence[Mapping[str, Any]]


class Stored(Sequence[StoredExplanation]):
    """The explanations that ``explain_each(...).save(folder)`` wrote: ``shard-000000.npz`` and so on.

    Args:
        folder: where they are.

    Raises:
        CamlucidaError: there are none.

    Example:
        >>> stored = camlucida.explain_each(model, images).save("shards")
        >>> len(stored), stored[1].arrays["maps"].shape
        (2, (32, 32))
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        plan = read_plan(self.folder)
        if plan is None or not {"images", "batch_size"} <= plan.keys():
            raise CamlucidaError(f"{str(self.folder)!r} holds no explanations in shards")
        self.plan = plan
        self._held: tuple[int, dict[str, Any], dict[str, Any]] | None = None

    @classmethod
    def start(cls, folder: Path, plan: Mapping[str, Any]) -> Stored:
        """A folder for the results of a plan; refuses one that holds others."""
        start_plan(folder, plan, results=any(folder.glob("shard-*.npz")))
        return cls(folder)

    def __len__(self) -> int:
        return int(self.plan["images"])

    @overload
    def __getitem__(self, index: int) -> StoredExplanation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredExplanation]: ...

    def __getitem__(self, index: int | slice) -> StoredExplanation | Sequence[StoredExplanation]:
        """What is kept of one image; of a slice a list.

        Raises:
            ImageError: it could not be explained.
            CamlucidaError: its shard is not there yet, or is damaged.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        number = place // self.plan["batch_size"]
        record, arrays = self._read(number)
        if place not in record["places"]:
            reasons = {int(where): reason for where, reason in record["failed"]}
            raise ImageError(reasons[place])
        at = record["places"].index(place)
        return StoredExplanation(
            {name: array[at] for name, array in arrays.items()},
            [row for row in record["rows"] if row["image"] == at],
        )

    @property
    def explained(self) -> list[int]:
        """The positions of the images that there are explanations of."""
        return [place for record in self._records() for place in record["places"]]

    @property
    def failed(self) -> dict[int, str]:
        """The positions of the images that could not be explained, each with the reason."""
        return {place: why for record in self._records() for place, why in record["failed"]}

    @property
    def skipped(self) -> dict[str, str]:
        """The methods that were left out of a shard, each with the reason."""
        return {
            label: why for record in self._records() for label, why in record["skipped"].items()
        }

    def to_frame(self) -> Any:
        """A pandas table with a row for each image and method that there is."""
        rows = [
            {**row, "image": record["places"][row["image"]]}
            for record in self._records()
            for row in record["rows"]
        ]
        return require("pandas", "benchmark").DataFrame(rows)

    def holds(self, number: int, marks: list[Any]) -> bool:
        """Whether a shard is there, whole, of images with these marks."""
        if not self._file(number).exists():
            return False
        try:
            return bool(self._record(number)["marks"] == marks)
        except CamlucidaError:
            return False

    def write(
        self,
        number: int,
        places: Sequence[int],
        found: Explanation | Comparison | None,
        failed: Sequence[tuple[int, str]],
        marks: Sequence[Any],
    ) -> None:
        """Put a shard in place.

        Args:
            number: which.
            places: the positions of its images that were explained.
            found: their explanation; ``None`` where there is none.
            failed: the positions of the others, and why.
            marks: of all its images.
        """
        rows = [] if found is None else found.rows()
        for i, row in enumerate(rows):
            row["image"] = i % len(places)
        skipped = getattr(found, "skipped", {})
        record = {
            "places": places,
            "failed": failed,
            "marks": marks,
            "rows": rows,
            "skipped": skipped,
        }
        arrays = {} if found is None else found.arrays()
        text = np.array(json.dumps(plain(record)))
        self._held = None
        write(
            self._file(number),
            lambda path: np.savez_compressed(path, **{_RECORD: text, **arrays}),  # type: ignore[arg-type]
        )

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.npz"

    def _records(self) -> Iterator[dict[str, Any]]:
        """Of the shards that are there."""
        for number in range(-(-len(self) // self.plan["batch_size"])):
            if self._file(number).exists():
                yield self._record(number)

    def _record(self, number: int) -> dict[str, Any]:
        with self._opened(number) as kept:
            record: dict[str, Any] = json.loads(str(kept[_RECORD]))
        return record

    def _read(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Record and arrays of a shard; the last one that was read is held."""
        if self._held is None or self._held[0] != number:
            with self._opened(number) as kept:
                arrays = {name: kept[name] for name in kept.files if name != _RECORD}
            self._held = number, self._record(number), arrays
        return self._held[1:]

    @contextmanager
    def _opened(self, number: int) -> Iterator[Any]:
        file = self._file(number)
        try:
            with np.load(file) as kept:
                yield kept
        except FileNotFoundError as error:
            raise CamlucidaError(f"{str(file)!r} is not there yet") from error
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise CamlucidaError(f"{str(file)!r} cannot be read: {first_line(error)}") from error
