"""A run folder as a report needs it: the plan, the images, and the sums of the curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.summary import Summary, summarise
from camlucida.benchmark.table import Results as Table
from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import require
from camlucida.common.statistics import RESAMPLES
from camlucida.metrics.base import Question
from camlucida.metrics.registry import describe_number
from camlucida.report.tables import Direction

Floats = npt.NDArray[np.float64]

QUESTIONS: dict[Question, str] = {
    "localisation": "Does the map lie on the object?",
    "faithfulness": "Do the marked pixels matter to the model?",
    "stability": "Is the map the same when little changes?",
    "agreement": "How much do maps resemble a reference?",
    "concentration": "How concentrated is the map?",
    "dead zones": "Does the map mark what the model cannot see?",
    "other": "Other numbers",
}
"""What numbers ask, in the order of the report."""


@dataclass(frozen=True)
class Number:
    """One of the numbers of a run.

    Attributes:
        name: as in the rows.
        title: for people.
        direction: which way is better.
        unit: empty for a plain number or share.
        question: a key of :data:`QUESTIONS`, or ``"cost"``.
    """

    name: str
    title: str
    direction: Direction
    unit: str
    question: str


@dataclass(frozen=True)
class Curve:
    """Mean curves of a number, one per method.

    Attributes:
        x: positions ``(P,)``.
        x_label: what they are.
        mean: of each method, ``(P,)``.
        low: lower end of its 95 % interval, of Student's t over the images.
        high: upper end.
        images: of each method, how many.
    """

    x: Floats
    x_label: str
    mean: dict[str, Floats]
    low: dict[str, Floats]
    high: dict[str, Floats]
    images: dict[str, int]


@dataclass(frozen=True)
class Results:
    """A run folder, read for a report.

    Attributes:
        table: its rows, read when they are asked for.
        summary: means, intervals, ranks and tests.
        numbers: in the plan's order, the cost among them.
        curves: of the numbers that sum up a curve.
        images: columns of the table of images that were explained, ``{"index": (N,), "key": ...}``;
            ``None`` where something is not known, NaN for probabilities.
    """

    table: Table
    summary: Summary
    numbers: tuple[Number, ...]
    curves: dict[str, Curve]
    images: dict[str, npt.NDArray[Any]]

    @property
    def plan(self) -> dict[str, Any]:
        """The run's ``plan.json``."""
        return self.table.plan

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods' labels, in the plan's order."""
        return self.table.methods

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self.plan["model"]["name"])

    @property
    def data(self) -> str:
        """The name of the data set."""
        return str(self.plan["data"]["name"])

    def values(self, numbers: Sequence[str]) -> dict[str, Floats]:
        """The values of some numbers, ``(methods, N)`` each, for the images of :attr:`images`."""
        if not numbers:
            return {}
        return {
            name: values.T
            for names, block in self.table.blocks(numbers=list(numbers))
            for name, values in zip(names, block, strict=True)
        }

    def class_name(self, index: int) -> str:
        """The first of a class's names."""
        names = (self.plan.get("about") or {}).get("class_names")
        if names and 0 <= index < len(names):
            return str(names[index]).split(",")[0]
        return f"class {index}"


def read(run: str | Path, *, seed: int = 0, resamples: int = RESAMPLES) -> Results:
    """Read a run folder, finished or not.

    Args:
        run: the folder.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        CamlucidaError: it is no run, or nothing of it is done yet.
    """
    folder = RunFolder(Path(run))
    table = Table.of(folder)
    summary = summarise(run, seed=seed, resamples=resamples)
    about = table.plan["about"]
    return Results(
        table,
        summary,
        tuple(describe(name, about["numbers"].get(name)) for name in table.numbers),
        _curves(table, _positions(folder.path, about)),
        _images(table.good),
    )


def describe(name: str, facts: dict[str, Any] | None = None) -> Number:
    """Title, direction, unit and question of a number.

    Args:
        name: as in the rows.
        facts: what the plan says of it; the registry of metrics is asked for what it does not say.
    """
    known: dict[str, Any] = {"question": "cost"} if name == SECONDS else {}
    if name != SECONDS:
        with suppress(CamlucidaError):
            known = asdict(describe_number(name.partition(" (")[0]))
    known |= facts or {}
    title = str(known.get("title") or name)
    extra = name.partition(" (")[2]
    if extra and f"({extra}" not in title:
        title = f"{title} ({extra}"
    return Number(
        name,
        title,
        known.get("direction") or "none",
        str(known.get("unit") or ""),
        known.get("question") or "other",
    )


# --------------------------------------------------------------------------------------------- reading


def _images(good: Any) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    for name in good.columns:
        values = good[name]
        found[name] = values.astype(object).where(values.notna(), None).to_numpy()
    found["index"] = good["index"].to_numpy(np.int64)
    found["probability"] = good["probability"].to_numpy(np.float64)
    return found


class _Sums:
    """Mean and squared deviations of curves that come in parts."""

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(width), np.zeros(width)

    def add(self, points: Floats) -> None:
        """Take in more curves, ``(n, P)``, without losing digits (Chan, Golub and LeVeque 1979)."""
        new, total = len(points), self.count + len(points)
        middle = points.mean(0)
        shift = middle - self.mean
        self.mean = self.mean + shift * new / total
        self.squares = (
            self.squares + ((points - middle) ** 2).sum(0) + shift**2 * self.count * new / total
        )
        self.count = total

    def half(self) -> Floats:
        """Half the width of the mean's 95 % interval, by Student's t; NaN for one curve."""
        from scipy.special import stdtrit

        if self.count < 2:
            return np.full(len(self.mean), np.nan)
        error = np.sqrt(self.squares / (self.count - 1) / self.count)
        return float(stdtrit(self.count - 1, 0.975)) * error


def _curves(table: Table, positions: dict[str, tuple[list[float], str]]) -> dict[str, Curve]:
    parquet = require("pyarrow.parquet", "benchmark")
    sums: dict[tuple[str, str], _Sums] = {}
    for shard in sorted(table.folder.done()):
        rows = parquet.read_table(
            table.folder.file("rows", shard), columns=["method", "metric", "curve"]
        )
        for number, method, points in _grouped(rows):
            known = sums.setdefault((number, method), _Sums(points.shape[1]))
            if len(known.mean) == points.shape[1]:
                known.add(points)
    found: dict[str, Curve] = {}
    for number in table.numbers:
        mine = {m: sums[number, m] for m in table.methods if (number, m) in sums}
        if not mine:
            continue
        width = len(next(iter(mine.values())).mean)
        x, label = positions.get(number, ([], ""))
        if len(x) != width:
            x, label = np.linspace(0, 1, width).tolist(), "along the curve"
        ends = table.range(number)
        found[number] = Curve(
            np.asarray(x, np.float64),
            label,
            {m: s.mean for m, s in mine.items()},
            {m: np.minimum(s.mean, np.clip(s.mean - s.half(), *ends)) for m, s in mine.items()},
            {m: np.maximum(s.mean, np.clip(s.mean + s.half(), *ends)) for m, s in mine.items()},
            {m: s.count for m, s in mine.items()},
        )
    return found


def _grouped(rows: Any) -> Iterator[tuple[str, str, Floats]]:
    """The curves of a shard, by number and method, those with a NaN left out."""
    rows = rows.filter(rows["curve"].is_valid()).combine_chunks()
    if not len(rows):
        return
    methods, method = _codes(rows["method"])
    numbers, number = _codes(rows["metric"])
    curves = rows["curve"].combine_chunks()
    lengths = np.diff(curves.offsets.to_numpy())
    heights = curves.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    starts = np.concatenate([[0], lengths.cumsum()])
    group = number * len(methods) + method
    for one in np.unique(group):
        which = np.flatnonzero(group == one)
        width = int(lengths[which[0]])
        which = which[lengths[which] == width]
        if width == 0:
            continue
        points = heights[starts[which][:, None] + np.arange(width)]
        points = points[np.isfinite(points).all(1)]
        if len(points):
            yield numbers[one // len(methods)], methods[one % len(methods)], points


def _codes(column: Any) -> tuple[list[str], npt.NDArray[np.int64]]:
    """A column of words as a list of words and the position of each row's."""
    column = (
        column.unify_dictionaries().combine_chunks()
        if hasattr(column.type, "value_type")
        else column
    )
    if not hasattr(column, "dictionary"):
        column = column.combine_chunks().dictionary_encode()
    codes = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return [str(word) for word in column.dictionary.to_pylist()], codes


def _positions(folder: Path, about: dict[str, Any]) -> dict[str, tuple[list[float], str]]:
    """Positions and what they are, of every number with a curve."""
    found = dict(about.get("curves") or {})
    file = folder / "curves.json"
    if file.exists():
        try:
            found |= json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CamlucidaError(f"{str(file)!r} cannot be read: {error}") from error
    positions = {}
    for number, given in found.items():
        at = given.get("at", []) if isinstance(given, dict) else given
        label = given.get("x", "") if isinstance(given, dict) else ""
        positions[number] = ([float(v) for v in at], str(label) or _x_label(number))
    return positions


def _x_label(number: str) -> str:
    stem = number.lower()
    if "insertion" in stem:
        return "share of pixels shown"
    if "deletion" in stem:
        return "share of pixels removed"
    if "road" in stem:
        return "pixels removed"
    return "threshold" if "iou" in stem else "position"
