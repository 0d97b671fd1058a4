"""Run a benchmark in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camlucida.benchmark.plan import Bench
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.work import THREADS, Worker, check
from camlucida.common.errors import CamlucidaError

Progress = Callable[[int, int], object]
"""Called with the photos that are done, those of earlier runs among them, and their total."""


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        run: the folder.
        images: photos whose shards are done.
        total: photos of the plan.
        before: those of ``images`` that were done when the run began.
        seconds: how long this run took.
        interrupted: whether Ctrl-C ended it.
    """

    run: RunFolder
    images: int
    total: int
    before: int
    seconds: float
    interrupted: bool = False


def run(
    bench: Bench,
    out: str | Path,
    *,
    batch_size: int = 8,
    threads: int = THREADS,
    progress: Progress | None = None,
) -> Finished:
    """Do all shards of a benchmark that are not done yet.

    Whatever ends it, what is done stays, and the same call goes on from there.

    Args:
        bench: what to do.
        out: the run folder.
        batch_size: photos explained at a time; it does not decide the numbers.
        threads: that read photos while others are explained.
        progress: called after every batch.

    Raises:
        CamlucidaError: the folder holds another plan or is being written to by another process; a method or a
            metric does not fit model or data; the folder cannot be written.
    """
    import time

    if batch_size < 1:
        raise CamlucidaError(f"the batch size must be at least 1 photo, got {batch_size}")
    folder = RunFolder(Path(out))
    started = time.perf_counter()
    folder.check(bench)
    with folder.locked():
        how = {"engine": "local", "batch_size": batch_size, "threads": threads}
        todo = prepare(bench, folder, how)
        before = count(bench, folder)
        done = before
        if progress is not None:
            progress(done, bench.images)

        def advance(images: int) -> None:
            nonlocal done
            done += images
            if progress is not None:
                progress(done, bench.images)

        interrupted = False
        try:
            for shard in Worker(bench, batch_size, threads).shards(todo, advance):
                folder.write(shard)
        except KeyboardInterrupt:
            interrupted = True
        return Finished(
            folder,
            count(bench, folder),
            bench.images,
            before,
            time.perf_counter() - started,
            interrupted,
        )


def prepare(bench: Bench, folder: RunFolder, how: dict[str, Any]) -> list[int]:
    """Check plan and methods, write the plan, and say which shards are to be done."""
    if folder.check(bench) and not folder.missing(bench.shards):
        return []
    about = check(bench)
    recipe = bench.recipe
    facts = {
        "data": recipe.data if recipe else bench.data.name,
        "model": recipe.model if recipe else bench.model.name,
        "class_names": recipe.class_names if recipe else None,
        "device": str(bench.device),
        **how,
    }
    folder.start(bench, facts, about)
    return folder.missing(bench.shards)


def count(bench: Bench, folder: RunFolder) -> int:
    """The photos whose shards are done."""
    return sum(len(bench.members(number)) for number in folder.done() if number < bench.shards)
