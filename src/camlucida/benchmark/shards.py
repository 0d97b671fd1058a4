"""The run folder: a plan, and shards of results that are whole or not there.

``RUN/images/shard-000000.parquet`` has a row per image, ``RUN/rows/shard-000000.parquet`` a row per image,
method and number. A shard holds a fixed range of images; its images are written first and its rows last, each
to a temporary name, flushed to the disk and renamed, so that a shard is done when its rows are there. Writing
a shard twice does no harm: both writings hold the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camlucida.benchmark.plan import FORMAT, Bench
from camlucida.common.errors import CamlucidaError
from camlucida.common.files import TEMPORARY, writable, write, write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.optional import require
from camlucida.common.statistics import Floats
from camlucida.common.store import PLAN, holds_plan, read_plan

_META = b"camlucida"


@dataclass(frozen=True)
class ImageRow:
    """What is known about one image.

    Attributes:
        index: its position in the data set.
        key: its name there.
        source: its file, if it lies in one.
        label: its true class, if known.
        label_name: what the data set calls that class.
        explained: the explained class.
        predicted: the predicted class.
        probability: of the predicted class.
        explained_probability: of the explained class.
        error: why it could not be used; it then has no rows.
        notes: what went wrong with single methods or metrics.
    """

    index: int
    key: str
    source: str | None = None
    label: int | None = None
    label_name: str = ""
    explained: int | None = None
    predicted: int | None = None
    probability: float | None = None
    explained_probability: float | None = None
    error: str | None = None
    notes: str | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the label; ``None`` where either is not known."""
        if self.label is None or self.predicted is None:
            return None
        return self.label == self.predicted


@dataclass(frozen=True)
class ShardColumn:
    """One number of one method for some images.

    Attributes:
        images: positions in the shard's list of images, ``(N,)``.
        method: the method's label.
        number: the number's name.
        values: ``(N,)``; NaN where an image does not count.
        curves: ``(N, P)``, for numbers that sum up a curve.
    """

    images: npt.NDArray[np.int64]
    method: str
    number: str
    values: Floats
    curves: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Shard:
    """The results of one shard.

    Attributes:
        number: which.
        images: one per image.
        columns: the numbers of those without an error.
        facts: how long it took and on what, ready for JSON.
    """

    number: int
    images: list[ImageRow]
    columns: list[ShardColumn]
    facts: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """A folder that a benchmark writes into or that a summary reads.

    Attributes:
        path: the folder.

    Example:
        >>> from pathlib import Path
        >>> camlucida.benchmark.RunFolder(Path("nothing")).done()
        set()
    """

    path: Path

    # ---- the plan -----------------------------------------------------------------------------------

    @property
    def plan_file(self) -> Path:
        """Where the plan lies."""
        return self.path / PLAN

    def plan(self) -> dict[str, Any]:
        """The plan of this run.

        Raises:
            CamlucidaError: there is none, or it is of another format.
        """
        found = read_plan(self.path)
        if found is None:
            raise CamlucidaError(
                f"{str(self.path)!r} is not a run: it has no {PLAN}; camlucida evaluate makes one"
            )
        if found.get("format") != FORMAT:
            raise CamlucidaError(
                f"{str(self.plan_file)!r} is not a plan of format {FORMAT}, which this version reads"
            )
        return found

    def check(self, bench: Bench) -> bool:
        """Whether the folder holds this very plan; ``False`` where it holds none, or another without results.

        Raises:
            CamlucidaError: it holds the results of another plan, naming the first differences.
        """
        if self.plan_file.exists():
            self.plan()
        results = any(self.path.glob("images/*.parquet")) or any(self.path.glob("rows/*.parquet"))
        return holds_plan(self.path, bench.record, results=results)

    def start(self, bench: Bench, how: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Make the folder and write the plan, or check that it is the one that lies there.

        Args:
            bench: what is to be done.
            how: what does not decide the numbers: data, batch size, engine, device, workers.
            about: what helps to read them: numbers, curves, layers, class names.

        Raises:
            CamlucidaError: the folder cannot be written, or holds another plan.
        """
        with writable(self.path):
            for name in ("images", "rows"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        if not self.check(bench):
            text = to_json({**bench.record, "how": how, "about": about})
            write_bytes(self.plan_file, text.encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from the same work, and sweep up what a killed one left half written.

        A lock ends with its process, however that ends. Where a file system knows no locks, two processes do
        the work twice and no harm.

        Raises:
            CamlucidaError: another process holds the lock.
        """
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a")
        with file:
            if not _lock(file.fileno()):
                raise CamlucidaError(
                    f"another process is writing into {str(self.path)!r}; wait for it, or choose another --out"
                )
            for left in self.path.glob(f"*/{TEMPORARY}*"):
                left.unlink(missing_ok=True)
            yield

    # ---- shards -------------------------------------------------------------------------------------

    def file(self, kind: str, number: int) -> Path:
        """The file of a shard; the kind is ``"images"`` or ``"rows"``."""
        return self.path / kind / f"shard-{number:06d}.parquet"

    def done(self) -> set[int]:
        """The shards that are done."""
        return {int(p.stem.partition("-")[2]) for p in self.path.glob("rows/shard-*.parquet")}

    def missing(self, shards: int) -> list[int]:
        """Those of so many shards that are still to be done, in order."""
        done = self.done()
        return [number for number in range(shards) if number not in done]

    def write(self, shard: Shard) -> None:
        """Put a shard's images and then its rows in place.

        Raises:
            CamlucidaError: they cannot be written, for example because the disk is full.
        """
        parquet = require("pyarrow.parquet", "benchmark")
        for kind, table in (("images", _images(shard)), ("rows", _rows(shard))):
            write(
                self.file(kind, shard.number),
                lambda p, table=table: parquet.write_table(table, p, compression="zstd"),  # type: ignore[misc]
            )

    def facts(self) -> Iterator[dict[str, Any]]:
        """How long each shard took and on what; see :class:`camlucida.benchmark.work.Worker`."""
        parquet = require("pyarrow.parquet", "benchmark")
        for number in sorted(self.done()):
            metadata = parquet.read_schema(self.file("rows", number)).metadata or {}
            if _META in metadata:
                yield json.loads(metadata[_META])


# ---- tables ---------------------------------------------------------------------------------------------


def images_schema() -> Any:
    """Of the files in ``images/``."""
    pa = require("pyarrow", "benchmark")
    return pa.schema([
        ("index", pa.int64()), ("key", pa.string()), ("source", pa.string()), ("label", pa.int32()),
        ("label_name", pa.string()), ("explained", pa.int32()), ("predicted", pa.int32()),
        ("probability", pa.float64()), ("explained_probability", pa.float64()), ("correct", pa.bool_()),
        ("error", pa.string()), ("notes", pa.string()),
    ])  # fmt: skip


def rows_schema() -> Any:
    """Of the files in ``rows/``."""
    pa = require("pyarrow", "benchmark")
    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([
        ("index", pa.int64()), ("key", words), ("method", words), ("metric", words),
        ("value", pa.float64()), ("curve", pa.list_(pa.float32())),
    ])  # fmt: skip


def _images(shard: Shard) -> Any:
    pa = require("pyarrow", "benchmark")
    schema = images_schema()
    return pa.table(
        {name: [getattr(row, name) for row in shard.images] for name in schema.names}, schema=schema
    )


def _rows(shard: Shard) -> Any:
    pa = require("pyarrow", "benchmark")
    schema = rows_schema().with_metadata({_META: json.dumps(shard.facts).encode()})
    columns = shard.columns
    lengths = [len(c.images) for c in columns]
    at = np.concatenate([c.images for c in columns]) if columns else np.empty(0, np.int64)
    values = np.concatenate([c.values for c in columns]) if columns else np.empty(0)
    index = np.array([row.index for row in shard.images], np.int64)

    def words(chosen: npt.NDArray[np.int64], dictionary: list[str]) -> Any:
        return pa.DictionaryArray.from_arrays(
            pa.array(chosen, pa.int32()), pa.array(dictionary, pa.string())
        )

    def repeated(names: list[str]) -> Any:
        known = list(dict.fromkeys(names))
        return words(np.repeat([known.index(n) for n in names], lengths).astype(np.int64), known)

    return pa.Table.from_arrays(
        [
            pa.array(index[at]),
            words(at, [row.key for row in shard.images]),
            repeated([c.method for c in columns]),
            repeated([c.number for c in columns]),
            pa.array(values, pa.float64(), mask=np.isnan(values)),
            _curves(columns),
        ],
        schema=schema,
    )


def _curves(columns: list[ShardColumn]) -> Any:
    pa = require("pyarrow", "benchmark")
    widths = [np.full(len(c.images), 0 if c.curves is None else c.curves.shape[1]) for c in columns]
    width = np.concatenate(widths).astype(np.int64) if widths else np.empty(0, np.int64)
    offsets = np.concatenate([[0], width.cumsum()]).astype(np.int32)
    points = [c.curves.ravel() for c in columns if c.curves is not None]
    flat = np.concatenate(points) if points else np.empty(0, np.float32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat.astype(np.float32)), mask=pa.array(width == 0)
    )


# ---- files ----------------------------------------------------------------------------------------------


def _lock(descriptor: int) -> bool:
    """Whether the lock is ours; it ends with the process."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
