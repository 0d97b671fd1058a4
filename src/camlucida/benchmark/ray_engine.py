"""Run a benchmark on Ray Data: workers on one machine or many, the same rows, the same resume.

Shard numbers stream through a pool of actors. Each actor opens model and data by itself and writes whole
shards into the run folder, which therefore has to lie where every machine sees it under the same path. A shard
is done when its rows are there: an actor that is killed costs the shards it had in hand, which are done again.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from camlucida.benchmark.local import Finished, Progress, carry_out
from camlucida.benchmark.plan import Bench, open_bench
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.work import Worker, check
from camlucida.common.ahead import THREADS
from camlucida.common.allocator import keep_freed_memory, keeps_freed_memory
from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import first_line, require
from camlucida.common.plugins import load_plugins
from camlucida.common.store import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_BLOCKS = 4096  # at most, however many shards there are
_AHEAD = 4  # shards that an actor gets at a time, so that it reads the next one's photos while it computes


class Actor:
    """Holds model and data on one worker, and does the shards whose numbers it is given.

    Args:
        source: the arguments of :func:`camlucida.benchmark.open_bench`.
        record: the plan that the run folder holds; a worker that finds other data or weights refuses.
        out: the run folder.
        todo: the numbers of the shards to do, by position.
        batch_size: photos at a time.
        threads: how many threads read photos.
        device: where the model goes; by default the GPU that Ray has assigned, if any.
        folder: where the run was started, for paths that are relative to it.
        keep_memory: see :func:`camlucida.common.allocator.keep_freed_memory`.
    """

    def __init__(
        self,
        source: Mapping[str, Any],
        record: dict[str, Any],
        out: str,
        todo: list[int],
        batch_size: int,
        threads: int,
        device: str | None,
        folder: str,
        keep_memory: bool = False,
    ) -> None:
        if keep_memory:
            keep_freed_memory()
        with suppress(OSError):
            os.chdir(folder)
        self._todo = todo
        self._folder = RunFolder(Path(out))
        if device is None and _gpus_here():
            device = "cuda"
        load_plugins()
        bench = open_bench(**source, device=device)
        if bench.record["digest"] != record["digest"]:
            changed = differences(record, bench.record) or ["another version of camlucida"]
            raise CamlucidaError(
                f"a worker finds something else than the plan says: {'; '.join(changed[:3])}"
            )
        if not self._folder.plan_file.exists():
            raise CamlucidaError(
                f"a worker does not see {out!r}; the run folder must lie where every machine finds it under "
                "this path"
            )
        check(bench)
        self._worker = Worker(bench, batch_size, threads)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Do the shards at these positions, and tell of each how many photos it had."""
        numbers = [self._todo[int(position)] for position in batch["id"]]
        done = {number for number in numbers if self._folder.has(number)}
        bench = self._worker.bench
        for number in numbers:
            if number in done:
                yield {"shard": [number], "images": [len(bench.members(number))]}
        for shard in self._worker.shards([n for n in numbers if n not in done]):
            shard.facts["engine"] = "ray"
            shard.facts["pid"] = os.getpid()
            self._folder.write(shard)
            yield {"shard": [shard.number], "images": [len(shard.images)]}


def run(
    bench: Bench,
    out: str | Path,
    *,
    address: str | None = None,
    workers: int | None = None,
    batch_size: int = 8,
    threads: int = THREADS,
    verify_data: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> Finished:
    """Do all shards of a benchmark that are not done yet, on a Ray cluster.

    Args:
        bench: what to do; its model and data are named as text, since every worker opens its own.
        out: the run folder; with several machines on storage that all of them share.
        address: of a running cluster, such as ``"auto"`` or ``"ray://head:10001"``; ``None`` starts one here
            for the time of the run, unless this process is connected to one already.
        workers: actors; by default one per GPU, or one per two processors where there is no GPU.
        batch_size: photos explained at a time by each; it does not decide the numbers.
        threads: how many threads of each worker read photos.
        verify_data: see :func:`camlucida.benchmark.local.run`.
        device: of the workers; by default their GPU, if Ray has given them one.
        progress: called after every shard.

    Raises:
        CamlucidaError: as for the local engine; and Ray is missing, cannot be reached, or a worker refuses.
    """
    if bench.source is None:
        raise CamlucidaError(
            "the Ray engine opens model and data in every worker; name both of them, as text"
        )
    folder = RunFolder(Path(out).absolute())

    def work(todo: list[int], advance: Callable[[int], None]) -> None:
        with _connected(address, workers) as ray:
            for images in _stream(ray, bench, folder, todo, workers, batch_size, threads, device):
                advance(images)

    how = {"engine": "ray", "batch_size": batch_size, "threads": threads, "workers": workers}
    return carry_out(bench, folder, how, work, progress, verify_data=verify_data)


def _stream(
    ray: Any,
    bench: Bench,
    folder: RunFolder,
    todo: list[int],
    workers: int | None,
    batch_size: int,
    threads: int,
    device: str | None,
) -> Iterator[int]:
    """The number of photos of each shard, as the workers finish them."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if device is None or device.startswith("cuda") else 0
    pool = workers or gpus or max(1, int(resources.get("CPU", 2)) // 2)
    share = min(1.0, gpus / pool) if gpus else 0
    ahead = max(1, min(_AHEAD, len(todo) // (2 * pool)))
    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    blocks = max(1, min(_BLOCKS, -(-len(todo) // ahead)))
    # Ray Data restarts actors that die and does their tasks again, as often as it takes.
    found = ray.data.range(len(todo), override_num_blocks=blocks).map_batches(
        Actor,
        batch_size=ahead,
        compute=ray.data.ActorPoolStrategy(size=pool, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=share,
        fn_constructor_args=(
            bench.source, bench.record, str(folder.path), todo, batch_size, threads, device,
            str(Path.cwd()), keeps_freed_memory(),
        ),
    )  # fmt: skip
    try:
        for row in found.iter_rows():
            yield int(row["images"])
    except CamlucidaError:
        raise
    except Exception as error:
        raise _in_words(error) from error


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, connected: to what this process is connected to, to an address, or to a cluster of our own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require("ray", "ray")
    require("ray.data", "ray")
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {}
    if address is None:
        processors = max(os.cpu_count() or 1, (workers or 1) + 1)
        options = {"num_cpus": processors, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:
        where = f"the Ray cluster at {address!r}" if address else "a Ray cluster here"
        raise CamlucidaError(f"{where} cannot be used: {first_line(error)}") from error
    try:
        yield ray
    finally:
        with suppress(Exception):
            ray.shutdown()


def _gpus_here() -> bool:
    import ray

    return bool(ray.get_gpu_ids()) and torch.cuda.is_available()


def _in_words(error: BaseException) -> CamlucidaError:
    """The reason at the bottom of Ray's chain of errors."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, CamlucidaError):
            return CamlucidaError(str(seen))
        seen = getattr(seen, "cause", None) or seen.__cause__ or seen.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")
    return CamlucidaError(f"a Ray worker failed: {said[:300] or type(error).__name__}")
