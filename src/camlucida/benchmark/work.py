"""The work itself: photos in, rows out; pure, and the same under every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlucida.benchmark.measure import Judged, explain_batch, judge
from camlucida.benchmark.needs import check_needs
from camlucida.benchmark.plan import Bench
from camlucida.benchmark.shards import ImageRow, Shard, ShardColumn
from camlucida.common.ahead import THREADS, ahead
from camlucida.common.errors import CamlucidaError
from camlucida.common.files import Stamp, stamp
from camlucida.common.optional import first_line
from camlucida.data.boxes import map_boxes, map_mask
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import Sample
from camlucida.engine.chunks import out_of_memory
from camlucida.explanation.left_out import LeftOut
from camlucida.metrics.regions import fill_boxes

_ALONE = 32  # of so many batches one is explained method by method, to know what each costs
_TRIES = 32  # photos that the check tries to read


@dataclass(frozen=True)
class ReadPhoto:
    """A photo made ready for the model.

    Attributes:
        row: what is known about it; with an error where it cannot be used, and then nothing else.
        inputs: ``(C, H, W)``.
        boxes: ``(n, 4)`` in pixels of the input.
        mask: ``(H, W)`` boolean.
        exact: whether the mask is the data set's own.
        stamps: of its files, before they were read.
    """

    row: ImageRow
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    boxes: Tensor = field(default_factory=lambda: torch.empty(0, 4))
    mask: Tensor = field(default_factory=lambda: torch.empty(0))
    exact: bool = False
    stamps: list[Stamp] = field(default_factory=list)


def read(bench: Bench, index: int) -> ReadPhoto:
    """Read one photo; whatever is wrong with it ends up in its row."""
    row, stamps = ImageRow(index, f"#{index}"), []
    try:
        sample = bench.data.sample(index)
        stamps = [stamp(path) for path in sample.files]
        row = ImageRow(
            index,
            sample.key,
            None if sample.path is None else str(sample.path),
            sample.label,
            sample.label_name,
        )
        if bench.settings.explain == "label" and sample.label is None:
            error = "its class is not known, and classes are explained by label"
            return ReadPhoto(replace(row, error=error), stamps=stamps)
        preprocess = bench.model.preprocess
        assert preprocess is not None  # noqa: S101 - the bench has checked it
        ready = _ready(row, sample, preprocess, bench.settings.legacy_boxes)
        return replace(ready, stamps=stamps)
    except (CamlucidaError, OSError, MemoryError) as error:
        return ReadPhoto(replace(row, error=str(error) or type(error).__name__), stamps=stamps)


def _ready(row: ImageRow, sample: Sample, preprocess: Preprocess, legacy: bool) -> ReadPhoto:
    picture = sample.picture()
    made = preprocess(picture)
    size = (int(made.shape[1]), int(made.shape[2]))
    if size != preprocess.size:  # a function of the user's own may keep the photo's proportions
        preprocess = replace(preprocess, size=size)
    boxes = map_boxes(sample.boxes, picture.size, preprocess, legacy=legacy)
    exact = sample.mask()
    if exact is not None or len(boxes):
        preprocess.shown(picture, made)
    if exact is None:
        mask = fill_boxes([boxes], preprocess.size)[0]
    else:
        mask = map_mask(torch.from_numpy(np.ascontiguousarray(exact)), preprocess)
    return ReadPhoto(row, made, boxes, mask, exact is not None)


class Worker:
    """Evaluates shards, one after the other, reading the next photos while it computes.

    Args:
        bench: what to do.
        batch_size: photos at a time; halved for good when the memory is too small.
        threads: how many threads read photos.
    """

    def __init__(self, bench: Bench, batch_size: int = 8, threads: int = THREADS) -> None:
        if batch_size < 1:
            raise CamlucidaError(f"the batch size must be at least 1 photo, got {batch_size}")
        self.bench = bench
        self.batch_size = batch_size
        self.threads = max(1, threads)
        self._batches = 0

    def shards(
        self, numbers: Sequence[int], progress: Callable[[int], object] | None = None
    ) -> Iterator[Shard]:
        """The results of these shards, in order.

        Args:
            numbers: which.
            progress: called with the number of photos that are done since the last call.
        """
        items = [(shard, index) for shard in numbers for index in self.bench.members(shard)]
        photos = ahead(
            items, lambda item: read(self.bench, item[1]), self.threads, 2 * self.batch_size
        )
        started = time.perf_counter()
        with closing(photos) as stream:
            for number in numbers:
                size = len(self.bench.members(number))
                shard = self._shard(number, (next(stream)[1] for _ in range(size)), progress)
                now = time.perf_counter()
                shard.facts["seconds"] = now - started
                started = now
                yield shard

    def some(self, indices: Sequence[int]) -> Shard:
        """The results of any photos, by their indices in the data set."""
        photos = ahead(indices, lambda i: read(self.bench, i), self.threads, 2 * self.batch_size)
        return self._shard(-1, (photo for _, photo in photos), None)

    def _shard(
        self, number: int, photos: Iterator[ReadPhoto], progress: Callable[[int], object] | None
    ) -> Shard:
        rows: list[ImageRow] = []
        stamps: list[list[Stamp]] = []
        columns: list[ShardColumn] = []
        spent = {"waiting": 0.0, "explaining": 0.0, "measuring": 0.0}
        batch: list[tuple[int, ReadPhoto]] = []

        def flush() -> None:
            while batch:
                part = batch[: self.batch_size]
                found = self._judge([photo for _, photo in part])
                if found is None:  # the memory was too small, and the batch size is now
                    continue
                positions = np.array([position for position, _ in part], np.int64)
                for position, row in zip(positions, found.rows, strict=True):
                    rows[position] = row
                columns.extend(
                    ShardColumn(positions[c.images], c.method, c.number, c.values, c.curves)
                    for c in found.columns
                )
                spent["explaining"] += found.explaining
                spent["measuring"] += found.measuring
                del batch[: len(part)]
                if progress is not None:
                    progress(len(part))

        while True:
            before = time.perf_counter()
            photo = next(photos, None)
            spent["waiting"] += time.perf_counter() - before
            if photo is None:
                break
            rows.append(photo.row)
            stamps.append(photo.stamps)
            if photo.row.error is None:
                batch.append((len(rows) - 1, photo))
            elif progress is not None:
                progress(1)
            if len(batch) >= self.batch_size:
                flush()
        flush()
        facts = {
            "shard": number,
            "images": len(rows),
            "broken": sum(row.error is not None for row in rows),
            **spent,
            "batch_size": self.batch_size,
            "device": _device(self.bench.device),
            "torch_threads": torch.get_num_threads(),
            "reading_threads": self.threads,
        }
        return Shard(number, rows, columns, facts, stamps, self.bench.record["digest"])

    def _judge(self, photos: list[ReadPhoto]) -> Judged | None:
        """The numbers of a batch; ``None`` when it has to be tried again with the smaller batch size."""
        alone = self._batches % _ALONE == 0
        try:
            found = judge(self.bench, *_stack(self.bench, photos), alone=alone)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(photos) == 1:
                raise CamlucidaError(
                    f"the memory is too small for a single photo ({first_line(error)})"
                ) from error
        else:
            self._batches += 1
            return found
        self.batch_size = len(photos) // 2
        if self.bench.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def check(bench: Bench) -> dict[str, Any]:
    """Try everything on the first photo that can be read, before the work begins.

    Returns:
        What helps to read the results, ready for JSON: title, direction, range and unit of each number, the
        positions of its curve, the layers of each method, and the model's class names.

    Raises:
        CamlucidaError: no photo can be read, a metric needs what the data lack, or a method or metric does not
            work with this model.
    """
    check_needs(bench)
    found = judge(bench, *_stack(bench, [_first(bench)]), alone=False, strict=True)
    named = bench.model.class_names
    return {
        "numbers": {number.name: asdict(number) for number in bench.numbers},
        "curves": found.positions,
        "layers": found.layers,
        "class_names": None if named is None else list(named),
    }


def fitting(bench: Bench) -> Bench:
    """The bench with those of its methods that can explain its first photo; the others are named in it.

    Raises:
        CamlucidaError: no photo can be read, or no method works with this model.
    """
    _, parts = _stack(bench, [_first(bench)])
    left_out = LeftOut(bench.labels, strict=False)
    for position, method in enumerate(bench.methods):
        with left_out.trying(position):
            explain_batch(bench, parts["inputs"], parts["labels"], [method])
    return bench.without(dict(left_out.reasons)) if left_out.reasons else bench


def _first(bench: Bench) -> ReadPhoto:
    """The first photo that can be read."""
    problems = []
    for position in range(min(bench.images, _TRIES)):
        photo = read(bench, bench.index(position * bench.images // min(bench.images, _TRIES)))
        if photo.row.error is None:
            return photo
        problems.append(photo.row.error)
    raise CamlucidaError(
        f"none of the first {len(problems)} photos tried can be used: {problems[0]}"
    )


def _stack(bench: Bench, photos: Sequence[ReadPhoto]) -> tuple[list[ImageRow], dict[str, Any]]:
    """The rows of a batch, and its part of a ``Scene``."""
    device = bench.device
    parts = {
        "inputs": torch.stack([p.inputs for p in photos]).to(device, bench.dtype),
        "labels": torch.tensor(
            [-1 if p.row.label is None else p.row.label for p in photos], device=device
        ),
        "boxes": tuple(p.boxes.to(device) for p in photos),
        "masks": torch.stack([p.mask for p in photos]).to(device),
        "exact": torch.tensor([p.exact for p in photos], device=device),
    }
    return [p.row for p in photos], parts


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
