"""The benchmark in one call: what ``camlucida evaluate`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from camlucida.benchmark import local
from camlucida.benchmark.local import Finished, Progress
from camlucida.benchmark.plan import DEFAULT, Bench, MetricLike, Settings, open_bench
from camlucida.benchmark.report.run_report import write_report
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.summary import Summary, summarise
from camlucida.benchmark.work import fitting
from camlucida.common.ahead import THREADS
from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import refuse_arguments
from camlucida.data.samples import DataSet
from camlucida.engine.reading import OutputsLike
from camlucida.explanation.explain import MethodLike
from camlucida.explanation.subject import ModelLike, PreprocessGiven
from camlucida.metrics.base import Metric
from camlucida.models.factory import ArchitectureLike

Engine: TypeAlias = Literal["local", "ray"]


def evaluate(
    model: ModelLike,
    data: DataSet | str | os.PathLike[str],
    methods: Sequence[MethodLike] | MethodLike = ("gradcam",),
    metrics: Sequence[MetricLike] | str | Metric = DEFAULT,
    out: str | Path = "camlucida-run",
    *,
    architecture: ArchitectureLike | None = None,
    class_names: str | os.PathLike[str] | None = None,
    outputs: OutputsLike = None,
    preprocess: PreprocessGiven | None = None,
    device: str | None = None,
    batch_size: int = 8,
    threads: int = THREADS,
    verify_data: bool = False,
    engine: Engine = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    report: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], object] = lambda _: None,
    **settings: Any,
) -> Summary:
    """Measure methods on a data set, keep what is done in a run folder, and sum it up.

    The same call goes on where a stopped one ended. A run folder holds the results of one plan, which is all
    that decides the numbers: model, data, methods, metrics and settings; another plan is refused.

    Args:
        model: a module, a loaded model, or what :func:`camlucida.load_model` takes.
        data: an open data set, or what :func:`camlucida.data.open_data` takes.
        methods: one or several: names, also as ``"fame:iterations=20"``, pairs of a name and its options, or method
            objects.
        metrics: the same of metrics; or groups of :func:`camlucida.metrics.metric_groups`, of which those are left
            out that the data do not allow. Localisation and faithfulness by default.
        out: the run folder.
        architecture: of a checkpoint file, such as ``"timm:resnet18"``.
        class_names: a file with the model's class names, one per line or a JSON list.
        outputs: what the model's outputs are, as for :func:`camlucida.explain`; found by default.
        preprocess: how photos become inputs, where the model does not say so itself: a
            :class:`camlucida.Preprocess`, any function of a photo, or some of a ``Preprocess``'s values by name.
        device: the device that computes, such as ``"cuda"``; by default the one on which the model is.
        batch_size: photos explained at a time; it does not decide the numbers.
        threads: how many threads of each worker read photos.
        verify_data: read finished photos again to check for changes; by default only file size and time are compared.
            What was computed from a photo that has changed is computed again in any case.
        engine: ``"local"``: this process; ``"ray"``: workers, here or on a cluster, which open model and data by
            themselves, so that both have to be named as text.
        workers: how many workers Ray has; by default one per GPU or two processors.
        ray_address: the address of a running Ray cluster; by default one is started here.
        report: also write ``report.html`` into the run folder.
        progress: called with the photos done, and their total.
        say: called with each note, such as which metrics and methods were left out.
        **settings: the fields of :class:`Settings`: target, explain, layers, steps, seed, limit, shard_size,
            legacy_boxes.

    Returns:
        The summary of the run.

    Raises:
        CamlucidaError: something does not exist or does not fit, or the folder holds the results of another plan.
        KeyboardInterrupt: Ctrl-C; what is done is kept.

    Example:
        >>> found = camlucida.benchmark.evaluate(
        ...     model, ".", ["gradcam", "hirescam"], ["sparseness"], "evaluated",
        ...     preprocess=camlucida.Preprocess((32, 32), 32),
        ... )
        >>> found.images, sorted(set(found.table["method"]))
        (1, ['gradcam', 'hirescam'])
    """
    refuse_arguments(evaluate, settings, [f.name for f in fields(Settings)])
    bench = open_bench(
        model, data, methods, metrics, device=device, architecture=architecture, class_names=class_names,
        outputs=outputs, preprocess=preprocess, say=say, **settings,
    )  # fmt: skip
    ended = run_bench(
        bench, out, engine=engine, batch_size=batch_size, threads=threads, verify_data=verify_data,
        workers=workers, ray_address=ray_address, device=device, progress=progress, say=say,
    )  # fmt: skip
    if ended.interrupted:
        raise KeyboardInterrupt
    if report:
        write_report(out, model=bench.model, data=bench.data)
    return summarise(out)


def run_bench(
    bench: Bench,
    out: str | Path,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    say: Callable[[str], object] = lambda _: None,
    **how: Any,
) -> Finished:
    """Do all shards of a benchmark that are not done yet, by an engine; arguments as for :func:`evaluate`.

    One of several methods that cannot explain the first photo is left out, and named in what is returned.
    """
    if len(bench.labels) > 1:
        bench = _as_kept(bench, RunFolder(Path(out))) or fitting(bench)
    for label, why in bench.skipped.items():
        say(f"left out: {label}: {why}")
    if engine == "local":
        return local.run(bench, out, **how)
    from camlucida.benchmark import ray_engine

    return ray_engine.run(bench, out, address=ray_address, workers=workers, device=device, **how)


def _as_kept(bench: Bench, run: RunFolder) -> Bench | None:
    """The bench without what an earlier start of the same command has left out; ``None`` where there was none."""
    try:
        plan = run.plan()
    except CamlucidaError:
        return None
    skipped = plan.get("how", {}).get("skipped", {})
    if {*bench.labels} != {*skipped, *(method["label"] for method in plan["methods"])}:
        return None
    return bench.without(skipped) if skipped else bench
