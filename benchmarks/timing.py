"""The harness: every contender against the plain forward pass of the same model, in one interleaved run.

Absolute times of a shared machine mean little. Therefore each run of a contender stands between two plain
``no_grad`` forward passes of the same model on the same batch, and what counts is its time over their mean.
A round runs all contenders once, in a random order; the rounds give the median and the spread.
"""

from __future__ import annotations

import gc
import importlib
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLAIN = "plain forward"

SLOW = 20.0
"""A contender that costs more than so many plain passes is timed in ``FEW`` rounds only."""

FEW = 2
PATIENCE = 5.0
"""Seconds after which no further untimed run of a contender is started."""


@dataclass(frozen=True)
class Workload:
    """What all contenders are given.

    Attributes:
        model: in evaluation mode, its parameters requiring gradients as after loading.
        layer: dotted name of the layer that is explained.
        inputs: ``(N, C, H, W)`` on the model's device.
        classes: the explained class of each image, so that nobody has to find it.
    """

    model: nn.Module
    layer: str
    inputs: Tensor
    classes: tuple[int, ...]

    @property
    def module(self) -> nn.Module:
        """The layer itself."""
        return self.model.get_submodule(self.layer)


@dataclass(frozen=True)
class Contender:
    """One row of a benchmark.

    Attributes:
        name: of the method, as its library calls it.
        library: whose it is.
        run: what the clock sees; called with what ``build`` yields, or with nothing.
        build: makes an extractor, registers its hooks and removes them again; outside the clock.
        maps: from what ``run`` returned to maps ``(N, h, w)``, rectified where the method rectifies;
            outside the clock.
        like: name of the contender (the first of that name) that should give the same maps.
        missing: why it cannot take part, such as a library that is not installed.
    """

    name: str
    library: str
    run: Callable[..., Any]
    build: Callable[[], AbstractContextManager[Any]] | None = None
    maps: Callable[[Any], Any] = lambda maps: maps
    like: str | None = None
    missing: str = ""

    @contextmanager
    def ready(self) -> Iterator[Callable[[], Any]]:
        """A call without arguments, its extractor built."""
        if self.build is None:
            yield self.run
            return
        with self.build() as built:
            yield lambda: self.run(built)


Peer = tuple[str, str, Callable[[Any, str, Workload], Iterator[Contender]]]


def peers(task: Workload, *libraries: Peer) -> Iterator[Contender]:
    """The rows of other libraries, and a row that says so for each that is not installed.

    Args:
        task: what all contenders are given.
        *libraries: name, package to import, and the function that makes rows of the package.
    """
    for library, package, rows in libraries:
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            yield Contender("all", library, lambda: None, missing=f"not installed ({error})")
        else:
            yield from rows(module, library, task)


@dataclass
class Row:
    """What was measured of one contender.

    Attributes:
        contender: who.
        seconds: time of each round.
        ratios: the same over the mean of the two plain passes around it.
        work: the like ratios of processor time, of all threads together; other people's load on the
            machine moves it less.
        held: most bytes of tensors saved for a backward pass at a time, without what the model and the
            caller hold anyway (parameters, buffers, the batch).
        peak: on CUDA, how far the allocator's peak rose above what was allocated before.
        agreement: mean over images of the correlation with the maps of ``contender.like``.
        constant: images left out of it, because one of the two maps is constant.
        error: why it did not run.
    """

    contender: Contender
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    held: int | None = None
    peak: int | None = None
    agreement: float | None = None
    constant: int = 0
    error: str = ""

    @property
    def ratio(self) -> float:
        """Median ratio to the plain pass."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile of the ratio."""
        if len(self.ratios) < 2:
            return self.ratio, self.ratio
        first, _, third = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return first, third


def measure(
    task: Workload,
    contenders: Iterable[Contender],
    *,
    rounds: int,
    warmup: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Measure all contenders in one run.

    Args:
        task: model and batch; given back with its gradients cleared.
        contenders: who takes part; those that are missing or raise get a row that says so.
        rounds: how often each is timed.
        warmup: untimed runs of each, the first of which measures memory and keeps the maps.
        seed: of the order within the rounds.
        progress: called with the rounds done and their number.

    Returns:
        The plain pass first (timed like a contender, so that its spread is the run's noise), then one row
        per contender in the order given.
    """

    def plain() -> Tensor:
        with torch.no_grad():
            return task.model(task.inputs)

    rows = [Row(Contender(PLAIN, "torch", plain)), *map(Row, contenders)]
    maps: dict[str, Tensor] = {}
    for row in rows:
        _warm_up(row, task, max(warmup, 1), maps)
    running = [row for row in rows if not row.error]
    order = random.Random(seed)  # noqa: S311
    for done in range(rounds):
        order.shuffle(running)
        before = _clock(plain, task)
        for row in running:
            if len(row.ratios) >= FEW and row.ratio > SLOW:
                continue
            with row.contender.ready() as call:
                taken = _clock(call, task)
            after = _clock(plain, task)
            row.seconds.append(taken.seconds)
            row.ratios.append(2 * taken.seconds / (before.seconds + after.seconds))
            row.work.append(2 * taken.work / (before.work + after.work))
            before = after
        if progress is not None:
            progress(done + 1, rounds)
    return rows


def _warm_up(row: Row, task: Workload, runs: int, maps: dict[str, Tensor]) -> None:
    contender = row.contender
    row.error = contender.missing
    if row.error:
        return
    try:
        with contender.ready() as call:
            start = time.perf_counter()
            output = _measure_memory(row, call, task)
            for _ in range(runs - 1):
                if time.perf_counter() - start < PATIENCE:
                    call()
        if contender.name != PLAIN:
            found = torch.as_tensor(contender.maps(output)).detach().to("cpu", torch.float64)
            maps.setdefault(contender.name, found)
            if contender.like in maps:
                size = (int(task.inputs.shape[-2]), int(task.inputs.shape[-1]))
                row.agreement, row.constant = _agreement(found, maps[contender.like], size)
    except Exception as error:
        row.error = f"{type(error).__name__}: {error}".partition("\n")[0]
    _clear(task)


class _Taken(NamedTuple):
    seconds: float
    work: float


def _clock(call: Callable[[], Any], task: Workload) -> _Taken:
    """What a call takes alone: without the garbage collector and without what others left behind."""
    _clear(task)
    collecting = gc.isenabled()
    gc.disable()
    try:
        _synchronise(task)
        work = time.process_time()
        start = time.perf_counter()
        output = call()
        _synchronise(task)
        taken = _Taken(time.perf_counter() - start, time.process_time() - work)
    finally:
        if collecting:
            gc.enable()
    del output
    return taken


def _clear(task: Workload) -> None:
    task.model.zero_grad(set_to_none=True)
    gc.collect()


def _synchronise(task: Workload) -> None:
    if task.inputs.is_cuda:
        torch.cuda.synchronize(task.inputs.device)


# ---------------------------------------------------------------------------------------------- memory


def _measure_memory(row: Row, call: Callable[[], Any], task: Workload) -> Any:
    """Run once and note the memory held on the way."""
    _clear(task)
    device = task.inputs.device
    before = 0
    if device.type == "cuda":
        # Kernels' workspaces are allocated once; they are nobody's cost.
        call()
        _clear(task)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        row.peak = torch.cuda.max_memory_allocated(device) - before
        _clear(task)
    saved = Saved([*task.model.parameters(), *task.model.buffers(), task.inputs])
    with saved.watch():
        output = call()
    row.held = saved.most
    return output


class Saved:
    """Counts the bytes that autograd keeps for backward passes, each storage once, while it is kept.

    Args:
        known: tensors that do not count.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._uses: Counter[int] = Counter()
        self.now = 0
        self.most = 0

    def watch(self) -> AbstractContextManager[Any]:
        """Count what is saved inside the block."""
        return torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Keep(self, tensor), lambda kept: kept.tensor
        )

    def add(self, tensor: Tensor) -> None:
        """A graph keeps a tensor."""
        storage = tensor.untyped_storage()
        if (key := storage.data_ptr()) in self._known:
            return
        if not self._uses[key]:
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
        self._uses[key] += 1

    def drop(self, tensor: Tensor) -> None:
        """A graph lets go of a tensor."""
        storage = tensor.untyped_storage()
        if (key := storage.data_ptr()) in self._known:
            return
        self._uses[key] -= 1
        if not self._uses[key]:
            self.now -= storage.nbytes()


class _Keep:
    """What a graph holds in place of a saved tensor."""

    def __init__(self, saved: Saved, tensor: Tensor) -> None:
        self.saved, self.tensor = saved, tensor.detach()
        saved.add(self.tensor)

    def __del__(self) -> None:
        self.saved.drop(self.tensor)


# ------------------------------------------------------------------------------------------- agreement


def _agreement(found: Tensor, wanted: Tensor, size: tuple[int, int]) -> tuple[float | None, int]:
    """Mean correlation over the images of two sets of maps at the input's size; how many had none."""
    both = [
        F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False).flatten(1)
        for maps in (found, wanted)
    ]
    centred = [flat - flat.mean(1, keepdim=True) for flat in both]
    norms = [flat.norm(dim=1) for flat in centred]
    level = [flat.abs().amax(1) * flat.shape[1] ** 0.5 for flat in both]
    varied = torch.ones(len(found), dtype=torch.bool)
    for norm, scale in zip(norms, level, strict=True):
        varied &= norm > 1e-9 * scale
    if not varied.any():
        return None, len(found)
    product = (centred[0] * centred[1]).sum(1)[varied] / (norms[0] * norms[1])[varied]
    return float(product.mean()), int((~varied).sum())


def built(extractor: Any) -> AbstractContextManager[Any]:
    """An extractor that needs no cleaning up, as what ``Contender.build`` returns."""
    return nullcontext(extractor)
