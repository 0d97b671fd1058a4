"""The run folder: a plan, and shards of results that are whole or not there.

``RUN/images/shard-000000.parquet`` has a row per image, ``RUN/rows/shard-000000.parquet`` a row per image,
method and number. A shard holds a fixed range of images; its images are written first and its rows last, each
to a temporary name, flushed to the disk and renamed, so that a shard is done when its rows are there. Writing
a shard twice does no harm: both writings hold the same. Each file says in its metadata which shard of which plan it
is, its images, what their files were when they were read, and a checksum of what it holds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camlucida.benchmark.plan import FORMAT, Bench
from camlucida.common.errors import CamlucidaError
from camlucida.common.files import (
    Stamp,
    check_regular,
    locked,
    unchanged,
    writable,
    write,
    write_bytes,
)
from camlucida.common.jsonable import to_json
from camlucida.common.optional import first_line, require
from camlucida.common.statistics import Floats
from camlucida.common.store import PLAN, differences, holds_plan, read_plan

_META, _MARKS = b"camlucida", b"camlucida.shard"
_NAME = re.compile(r"shard-(\d{6,})")
_PLAN: dict[str, Any] = {
    "data": {"name": str, "images": int},
    "model": {"name": str},
    "methods": [{"label": str, "name": str, "options": {}}],
    "metrics": [{"name": str, "options": {}, "numbers": [str]}],
    "about": {"numbers": {"*": {"title": str, "direction": str}}},
}
"""What the readers of a plan take for granted; the star stands for every key."""


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
        stamps: of the files of each image, before they were read.
        plan: the digest of the plan that it belongs to.
    """

    number: int
    images: list[ImageRow]
    columns: list[ShardColumn]
    facts: dict[str, Any]
    stamps: list[list[Stamp]] = field(default_factory=list)
    plan: str = ""


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
        self._check_format(found)
        if fault := _fault_of(found, _PLAN, "it"):
            raise CamlucidaError(
                f"{str(self.plan_file)!r} is damaged: {fault}; the same camlucida evaluate as before mends it"
            )
        return found

    def _check_format(self, plan: Mapping[str, Any]) -> None:
        if plan.get("format") != FORMAT:
            raise CamlucidaError(
                f"{str(self.plan_file)!r} is not a plan of format {FORMAT}, which this version reads"
            )

    def check(self, bench: Bench) -> bool:
        """Whether the folder holds this very plan.

        ``False`` where it holds none, a damaged one, or another without results.

        Raises:
            CamlucidaError: it holds the results of another plan, naming the first differences.
        """
        kept = read_plan(self.path)
        if kept is not None:
            self._check_format(kept)
        results = any(self.path.glob("images/*.parquet")) or any(self.path.glob("rows/*.parquet"))
        if not holds_plan(self.path, bench.record, results=results) or kept is None:
            return False
        if _fault_of(kept, _PLAN, "it"):
            return False
        named = {**bench.record, "data": {**bench.record["data"], "name": kept["data"]["name"]}}
        return not differences(kept, named)

    def start(self, bench: Bench, how: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Make the folder and write the plan, or check that it is the one that lies there.

        Args:
            bench: what is to be done.
            how: what does not decide the numbers: data, batch size, engine, device, workers.
            about: what helps to read them: numbers, curves, layers, class names.

        Raises:
            CamlucidaError: the folder cannot be written, or holds another plan.
        """
        require(
            "pyarrow.parquet", "benchmark"
        )  # before anything is computed that could not be kept
        with writable(self.path):
            for name in ("images", "rows"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        if not self.check(bench):
            text = to_json({**bench.record, "how": how, "about": about})
            write_bytes(self.plan_file, text.encode())

    def locked(self) -> AbstractContextManager[None]:
        """See :func:`camlucida.common.files.locked`."""
        return locked(self.path)

    # ---- shards -------------------------------------------------------------------------------------

    def file(self, kind: str, number: int) -> Path:
        """The file of a shard; the kind is ``"images"`` or ``"rows"``."""
        return self.path / kind / f"shard-{number:06d}.parquet"

    def done(self) -> set[int]:
        """The shards that are done."""
        names = (_NAME.fullmatch(p.stem) for p in self.path.glob("rows/shard-*.parquet"))
        return {int(name[1]) for name in names if name}

    def has(self, number: int) -> bool:
        """Whether one shard is done, without looking at the others."""
        return self.file("rows", number).exists()

    def missing(self, shards: int) -> list[int]:
        """Those of so many shards that are still to be done, in order."""
        done = self.done()
        return [number for number in range(shards) if number not in done]

    def damaged(self, bench: Bench, *, content: bool = False) -> Iterator[tuple[int, str]]:
        """The shards that are there and cannot stay, with the reason.

        Those are files that cannot be read or hold something else than this plan's images, and results of photos
        that have changed since.

        Args:
            bench: what is to be done.
            content: read the photos to see whether they have changed, where their size and time say they have not.
        """
        for number in sorted(self.done()):
            if number >= bench.shards:
                yield number, "the plan has no such shard"
            elif fault := self._fault(bench, number) or _changed(
                bench, number, self._marks(number), content=content
            ):
                yield number, fault

    def _fault(self, bench: Bench, number: int) -> str:
        """What is wrong with the files of a shard; empty where all is well."""
        parquet = require("pyarrow.parquet", "benchmark")
        wanted = {"plan": bench.record["digest"], "shard": number, "indices": bench.members(number)}
        for kind, schema in (("images", images_schema()), ("rows", rows_schema())):
            path = self.file(kind, number)
            try:
                check_regular(path, "shard")
                with parquet.ParquetFile(path, page_checksum_verification=True) as file:
                    marks = json.loads((file.schema_arrow.metadata or {}).get(_MARKS, b"{}"))
                    known = file.schema_arrow.remove_metadata().equals(schema)
                    own = {**wanted, "kind": kind, "length": file.metadata.num_rows}
                    if not known or any(marks.get(key) != value for key, value in own.items()):
                        return f"{str(path)!r} holds something else than this shard"
                    if marks.get("content") != _checksum(file.read()):
                        return f"{str(path)!r} has been changed since it was written"
            except Exception as error:
                return f"{str(path)!r} cannot be read: {first_line(error)}"
        return ""

    def _marks(self, number: int) -> dict[str, Any]:
        """Which shard the rows say they are."""
        parquet = require("pyarrow.parquet", "benchmark")
        found = json.loads(parquet.read_schema(self.file("rows", number)).metadata[_MARKS])
        assert isinstance(found, dict)  # noqa: S101
        return found

    def remove(self, number: int) -> None:
        """Take a shard's rows and then its images away, so that it is to be done."""
        for kind in ("rows", "images"):
            with writable(self.file(kind, number)):
                self.file(kind, number).unlink(missing_ok=True)

    def write(self, shard: Shard) -> None:
        """Put a shard's images and then its rows in place.

        Raises:
            CamlucidaError: they cannot be written, for example because the disk is full.
        """
        parquet = require("pyarrow.parquet", "benchmark")
        for kind, table in (("images", _images(shard)), ("rows", _rows(shard))):
            marks = {
                "plan": shard.plan, "shard": shard.number, "indices": [row.index for row in shard.images],
                "kind": kind, "length": table.num_rows, "stamps": shard.stamps, "content": _checksum(table),
            }  # fmt: skip
            metadata = {**(table.schema.metadata or {}), _MARKS: json.dumps(marks).encode()}
            marked = table.replace_schema_metadata(metadata)
            write(
                self.file(kind, shard.number),
                lambda p, table=marked: parquet.write_table(  # type: ignore[misc]
                    table, p, compression="zstd", write_page_checksum=True
                ),
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


def _checksum(table: Any) -> str:
    """Of the values of a table, however they are stored."""
    pa, compute = require("pyarrow", "benchmark"), require("pyarrow.compute", "benchmark")
    found = hashlib.sha256()
    for column in table.columns:
        values = column.combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.cast(pa.string())
        if pa.types.is_list(values.type):
            lengths = compute.fill_null(compute.list_value_length(values), -1)
            found.update(lengths.to_numpy(zero_copy_only=False).tobytes())
            values = values.flatten()
        if pa.types.is_string(values.type):
            found.update(json.dumps(values.to_pylist()).encode())
        else:
            numbers = values.cast(pa.float64()) if not pa.types.is_boolean(values.type) else values
            plain = np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64)
            found.update(np.where(np.isnan(plain), np.nan, plain).tobytes())
    return found.hexdigest()


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


def _changed(bench: Bench, number: int, marks: Mapping[str, Any], *, content: bool) -> str:
    """Which photo of a shard is no longer the one that was read; empty where there is none."""
    for index, stamps in zip(bench.members(number), marks["stamps"], strict=True):
        try:
            files = bench.data.sample(index).files
        except (CamlucidaError, OSError):
            files = ()
        if len(files) != len(stamps):
            return f"the files of photo {index} have changed since they were read"
        for path, known in zip(files, stamps, strict=True):
            if not unchanged(path, known, content=content):
                return f"{str(path)!r} has changed since it was read"
    return ""


def _fault_of(value: Any, shape: Any, name: str) -> str:
    """Where a value has not the shape of keys, lists and types that is wanted; empty where it has."""
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
        return f"{name} is not {words[kind]}"
    if isinstance(shape, list):
        faults = (_fault_of(item, shape[0], f"{name}[{i}]") for i, item in enumerate(value))
        return next(filter(None, faults), "")
    fields = shape if isinstance(shape, dict) else {}
    if "*" in fields:
        fields = dict.fromkeys(value, fields["*"])
    for key, wanted in fields.items():
        inner = key if name == "it" else f"{name}.{key}"
        if key not in value:
            return f"{inner} is missing"
        if fault := _fault_of(value[key], wanted, inner):
            return fault
    return ""
