"""Run a benchmark in this process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camlucida.benchmark.plan import Bench
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.work import Worker, check
from camlucida.common.ahead import THREADS
from camlucida.common.errors import CamlucidaError

Progress = Callable[[int, int], object]
"""Called with the photos that are done, those of earlier runs among them, and their total."""

_NAMED = 5  # shards that are computed again and said one by one


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
        skipped: methods that were left out, by label, with the reason.
    """

    run: RunFolder
    images: int
    total: int
    before: int
    seconds: float
    interrupted: bool = False
    skipped: Mapping[str, str] = field(default_factory=dict)


def run(
    bench: Bench,
    out: str | Path,
    *,
    batch_size: int = 8,
    threads: int = THREADS,
    verify_data: bool = False,
    progress: Progress | None = None,
) -> Finished:
    """Do all shards of a benchmark that are not done yet.

    Whatever ends it, what is done stays, and the same call goes on from there.

    Args:
        bench: what to do.
        out: the run folder.
        batch_size: photos explained at a time; it does not decide the numbers.
        threads: how many threads read photos while others are explained.
        verify_data: read the photos of what is done, to see whether they have changed, where their size and time
            say they have not.
        progress: called after every batch.

    Raises:
        CamlucidaError: the folder holds another plan or is being written to by another process; a method or a
            metric does not fit model or data; the folder cannot be written.
    """
    if batch_size < 1:
        raise CamlucidaError(f"the batch size must be at least 1 photo, got {batch_size}")
    folder = RunFolder(Path(out))

    def work(todo: list[int], advance: Callable[[int], None]) -> None:
        for shard in Worker(bench, batch_size, threads).shards(todo, advance):
            folder.write(shard)

    how = {"engine": "local", "batch_size": batch_size, "threads": threads}
    return carry_out(bench, folder, how, work, progress, verify_data=verify_data)


def carry_out(
    bench: Bench,
    folder: RunFolder,
    how: dict[str, Any],
    work: Callable[[list[int], Callable[[int], None]], None],
    progress: Progress | None,
    *,
    verify_data: bool = False,
) -> Finished:
    """What every engine does around its work: check, lock, plan, count and time.

    Args:
        bench: what to do.
        folder: the run folder.
        how: what does not decide the numbers, for the plan.
        work: does these shards, and calls its second argument with the photos done since the last call.
        progress: called with the photos done and their total.
        verify_data: see :func:`run`.
    """
    started = time.perf_counter()
    folder.check(bench)
    with folder.locked():
        todo = prepare(bench, folder, how, verify_data=verify_data)
        before = done = count(bench, folder)

        def advance(images: int) -> None:
            nonlocal done
            done += images
            if progress is not None:
                progress(done, bench.images)

        advance(0)
        interrupted = False
        try:
            if todo:
                work(todo, advance)
        except KeyboardInterrupt:
            interrupted = True
        spent = time.perf_counter() - started
        done = count(bench, folder)
        return Finished(folder, done, bench.images, before, spent, interrupted, bench.skipped)


def heal(bench: Bench, folder: RunFolder, *, verify_data: bool = False) -> None:
    """Take away the shards that are damaged or older than their photos, and say so in a warning."""
    if not folder.done():
        return
    found = list(folder.damaged(bench, content=verify_data))
    for number, _ in found:
        folder.remove(number)
    for number, reason in found[:_NAMED]:
        what = "is computed again" if number < bench.shards else "is taken away"
        warnings.warn(f"shard {number} {what}: {reason}", stacklevel=2)
    if len(found) > _NAMED:
        warnings.warn(f"and {len(found) - _NAMED} more shards", stacklevel=2)


def prepare(
    bench: Bench, folder: RunFolder, how: dict[str, Any], *, verify_data: bool = False
) -> list[int]:
    """Check plan, shards and methods, write the plan, and say which shards are to be done."""
    held = folder.check(bench)
    heal(bench, folder, verify_data=verify_data)
    if held and not folder.missing(bench.shards):
        return []
    about = check(bench)
    source = bench.source or {"data": bench.data.name, "model": bench.model.name}
    facts = {
        **{key: source.get(key) for key in ("data", "model", "class_names")},
        **{
            k: source[k] for k in ("outputs", "preprocess") if isinstance(source.get(k), str | dict)
        },
        "device": str(bench.device),
        "skipped": bench.skipped,
        **how,
    }
    folder.start(bench, facts, about)
    return folder.missing(bench.shards)


def count(bench: Bench, folder: RunFolder) -> int:
    """The photos whose shards are done."""
    return sum(len(bench.members(number)) for number in folder.done() if number < bench.shards)
