"""How long a larger benchmark takes and what it costs, worked out from measured rates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from camlucida.benchmark.plan import Bench
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.work import Worker
from camlucida.common.ahead import THREADS
from camlucida.common.errors import CamlucidaError

SCALES = {"ImageNet validation": 50_000, "100 million images": 100_000_000}
"""What is worked out unless told otherwise."""


@dataclass(frozen=True)
class Rate:
    """What one worker was measured to do.

    Attributes:
        images: photos measured.
        seconds: that they took one worker, reading included.
        waiting: those of the seconds in which it waited for photos to be read.
        explaining: those in which methods ran.
        measuring: those in which metrics ran.
        device: on what.
        stored: bytes that the results of a photo take on disk.

    Example:
        >>> camlucida.benchmark.Rate(10, 5.0, 1.0, 3.0, 1.0, "cpu").per_second
        2.0
    """

    images: int
    seconds: float
    waiting: float
    explaining: float
    measuring: float
    device: str
    stored: float = 0.0

    @property
    def per_second(self) -> float:
        """Images per second and worker."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Forecast:
    """A worked plan.

    Attributes:
        name: of what.
        images: how many.
        workers: how many work at the same time, one GPU (or share of the processors) each.
        hours: until all is done.
        worker_hours: hours times workers.
        cost: in the currency of the price; ``None`` without one.
        storage: bytes that the results take on disk.
    """

    name: str
    images: int
    workers: int
    hours: float
    worker_hours: float
    cost: float | None
    storage: float


def estimate(
    bench: Bench, images: int = 32, *, batch_size: int = 8, threads: int = THREADS
) -> Rate:
    """Measure the rate on a few photos, after a batch to warm up; nothing is kept.

    Args:
        bench: what to do.
        images: how many photos, at most all.
        batch_size: photos at a time.
        threads: how many threads read photos.

    Raises:
        CamlucidaError: there is no photo to be timed.

    Example:
        >>> bench = camlucida.benchmark.open_bench(
        ...     model, ".", metrics="sparseness", preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> camlucida.benchmark.estimate(bench, 1).images
        1
    """
    if images < 1:
        raise CamlucidaError(f"an estimate takes at least 1 photo, got {images}")
    members = [bench.index(position) for position in range(min(images, bench.images))]
    worker = Worker(bench, batch_size, threads)
    worker.some(members[:batch_size])
    started = time.perf_counter()
    shard = worker.some(members)
    taken = time.perf_counter() - started
    facts = shard.facts
    with TemporaryDirectory() as place:
        RunFolder(Path(place)).write(shard)
        size = sum(file.stat().st_size for file in Path(place).rglob("*.parquet"))
    return Rate(
        len(members),
        taken,
        facts["waiting"],
        facts["explaining"],
        facts["measuring"],
        facts["device"],
        size / len(members),
    )


def work_out(
    rate: Rate,
    *,
    workers: int = 1,
    price: float | None = None,
    scales: dict[str, int] | None = None,
) -> list[Forecast]:
    """Hours and cost of larger benchmarks at a measured rate.

    Workers do not share anything but the storage, so the rate is taken to grow with their number; storage that
    cannot keep up, and workers that share a machine's processors, make it less.

    Args:
        rate: of one worker.
        workers: how many.
        price: of one worker for an hour.
        scales: names and numbers of images.

    Raises:
        CamlucidaError: a number is out of range.

    Example:
        >>> rate = camlucida.benchmark.Rate(10, 5.0, 1.0, 3.0, 1.0, "cpu")
        >>> plan, *_ = camlucida.benchmark.work_out(rate, workers=2, price=1.5)
        >>> plan.name, round(plan.hours, 2)
        ('ImageNet validation', 3.47)
    """
    if workers < 1:
        raise CamlucidaError(f"a plan needs at least 1 worker, got {workers}")
    if price is not None and not price >= 0:
        raise CamlucidaError(f"the price must not be negative, got {price:g}")
    hours = {name: images / rate.per_second / 3600 for name, images in (scales or SCALES).items()}
    return [
        Forecast(
            name,
            images,
            workers,
            hours[name] / workers,
            hours[name],
            None if price is None else hours[name] * price,
            images * rate.stored,
        )
        for name, images in (scales or SCALES).items()
    ]


def to_dict(rate: Rate, plans: Sequence[Forecast]) -> dict[str, Any]:
    """Rate and plans, ready for JSON."""
    measured = {**asdict(rate), "images_per_second": rate.per_second}
    return {"measured": measured, "plans": [asdict(plan) for plan in plans]}
