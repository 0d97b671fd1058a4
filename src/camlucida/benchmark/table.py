"""Read the rows of a run, lazily: one block of numbers at a time, as dense arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camlucida.benchmark.plan import COST, SECONDS
from camlucida.benchmark.shards import RunFolder
from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import first_line, require
from camlucida.common.statistics import Floats
from camlucida.metrics.registry import Number, describe_number

_CELLS = 50_000_000  # values held at a time, 8 bytes each


@dataclass(frozen=True)
class Results:
    """The rows of a run, or of the part of it that is done.

    Attributes:
        folder: the run folder.
        plan: its plan.
    """

    folder: RunFolder
    plan: dict[str, Any]

    @classmethod
    def of(cls, folder: RunFolder) -> Results:
        """Open a run.

        Raises:
            CamlucidaError: it is no run, or nothing of it is done yet.
        """
        plan = folder.plan()
        if not folder.done():
            raise CamlucidaError(f"nothing is done yet in {str(folder.path)!r}")
        return cls(folder, plan)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods' labels, in the plan's order."""
        return tuple(one["label"] for one in self.plan["methods"])

    @cached_property
    def numbers(self) -> dict[str, Number]:
        """The numbers by their names, in the plan's order; what explaining costs is the last."""
        return {
            name: describe(name, facts) for name, facts in self.plan["about"]["numbers"].items()
        }

    @cached_property
    def all_images(self) -> Any:
        """The images of all shards that are done, a data frame sorted by ``index``."""
        return self._read("images").to_table().to_pandas().sort_values("index", ignore_index=True)

    @cached_property
    def good(self) -> Any:
        """The images that have rows."""
        return self.all_images[self.all_images["error"].isna()].reset_index(drop=True)

    def blocks(
        self, methods: Sequence[str] | None = None, numbers: Sequence[str] | None = None
    ) -> Iterator[tuple[tuple[str, ...], Floats]]:
        """The values of some numbers at a time, ``(numbers, images, methods)``; NaN where there is none.

        The images are those of :attr:`good`; a block holds as many numbers as memory allows, at least one.

        Args:
            methods: labels; all by default.
            numbers: names; all by default.
        """
        chosen = tuple(methods or self.methods)
        wanted = tuple(numbers or self.numbers)
        index = self.good["index"].to_numpy(np.int64)
        block = max(1, _CELLS // max(1, len(index) * len(chosen)))
        for start in range(0, len(wanted), block):
            names = wanted[start : start + block]
            yield names, self._filled(names, chosen, index)

    def _filled(self, names: tuple[str, ...], methods: tuple[str, ...], index: Any) -> Floats:
        """The values of some numbers, ``(numbers, images, methods)``, in one pass over the files."""
        pandas = require("pandas", "benchmark")
        cells = np.full((len(names), len(index), len(methods)), np.nan)
        images = pandas.Index(index)
        scanner = self._read("rows").scanner(columns=["index", "method", "metric", "value"])
        for batch in self._batches(scanner):
            rows = batch.to_pandas()
            number, method = _codes(rows["metric"], names), _codes(rows["method"], methods)
            image = images.get_indexer(rows["index"])
            fits = (number >= 0) & (method >= 0) & (image >= 0)
            cells[number[fits], image[fits], method[fits]] = rows["value"][fits]
        return cells

    def _batches(self, scanner: Any) -> Iterator[Any]:
        try:
            yield from scanner.to_batches()
        except (OSError, ValueError) as error:  # pyarrow's errors are one or the other
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CamlucidaError:
        return CamlucidaError(
            f"the results in {str(self.folder.path)!r} cannot be read: {first_line(error)}"
        )

    def _read(self, kind: str) -> Any:
        dataset = require("pyarrow.dataset", "benchmark")
        files = [str(self.folder.file(kind, number)) for number in sorted(self.folder.done())]
        try:
            return dataset.dataset(files, format="parquet")
        except Exception as error:
            raise self._unreadable(error) from error


def _codes(column: Any, known: Sequence[str]) -> npt.NDArray[np.int64]:
    """The position of each word of a column; -1 for words that are not known."""
    pandas = require("pandas", "benchmark")
    words = column.astype("category").cat
    found: npt.NDArray[np.int64] = pandas.Index(known).get_indexer(words.categories)[words.codes]
    return found


def describe(name: str, facts: Mapping[str, Any] | None = None) -> Number:
    """Title, direction, range, unit and question of a number.

    Args:
        name: as in the rows.
        facts: what the plan says of it; the registry of metrics is asked for what it does not say.
    """
    stem, bracket, extra = name.partition(" (")
    known = COST
    if name != SECONDS:
        try:
            known = describe_number(stem)
        except CamlucidaError:  # of a metric that is not registered here
            known = Number(name, name)
    said = {k: v for k, v in (facts or {}).items() if v is not None and hasattr(known, k)}
    if "range" in said:
        low, high = said["range"]
        said["range"] = (-np.inf if low is None else low, np.inf if high is None else high)
    number = replace(known, **{**said, "name": name})
    if bracket and f"({extra}" not in number.title:
        number = replace(number, title=f"{number.title} ({extra}")
    return number
