"""``camlucida evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from camlucida.cli.shared.console import complain, console, print_json, shown
from camlucida.cli.shared.device import on_device
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    Device,
    FusedLayers,
    Steps,
    TargetText,
    methods_option,
    option,
    out_option,
    refuse_unused,
    seed_option,
)
from camlucida.common.errors import CamlucidaError

if TYPE_CHECKING:
    from camlucida.benchmark.local import Finished
    from camlucida.benchmark.plan import Bench


@takes_model
def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="The photos: a folder with one subfolder per class, a table, a COCO file, or "
            "kind:path,option=value with the kinds folder, imagenet, csv, coco, voc, hf, digits and photos.",
        ),
    ],
    context: typer.Context,
    model: Model = EMBEDDED,
    method: Annotated[list[str] | None, methods_option("gradcam")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="METRIC",
            help="A metric of camlucida metrics, as NAME or NAME:key=value,key=value, or a group of them: "
            "localisation, faithfulness, stability, agreement, concentration or all. Repeat the option for several. "
            "(default: the metrics of localisation and faithfulness that the data allow)",
        ),
    ] = None,
    target: TargetText = "logit",
    explain: Annotated[
        str,
        option(
            "CLASS", "The class that is explained: predicted, label, or one class by name or index."
        ),
    ] = "predicted",
    layer: FusedLayers = None,
    steps: Steps = None,
    seed: Annotated[int, seed_option("methods and metrics that draw random numbers")] = 0,
    limit: Annotated[
        int | None,
        option("N", "Use at most this many photos, spread evenly over the data.", 1),
    ] = None,
    legacy_boxes: Annotated[
        bool, typer.Option("--legacy-boxes", help="Map boxes as the published scripts did.")
    ] = False,
    shard_size: Annotated[
        int | None,
        option(
            "N",
            "The number of photos whose results are written together. (default: 64; 8 for up to 512 photos)",
            1,
        ),
    ] = None,
    batch_size: BatchSize = 8,
    threads: Annotated[int, option("N", "How many threads of each worker read photos.", 1)] = 2,
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data",
            help="Read finished photos again to check for changes. By default only file size and time are compared.",
        ),
    ] = False,
    device: Device = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where the work is done: local is this process, ray has workers here or on a cluster."
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        option(
            "N",
            "The number of workers, with --engine ray (default: one per GPU or two processors) or with "
            "--estimate (default: 1).",
            1,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        option(
            "ADDRESS",
            "With --engine ray: the address of a running cluster. (default: a cluster is started here)",
        ),
    ] = None,
    estimate: Annotated[
        int | None,
        option(
            "N",
            "Time this many photos, write nothing, and work out how long larger runs would take on --workers.",
            1,
        ),
    ] = None,
    price: Annotated[
        float | None,
        option("PRICE", "With --estimate: the price of one worker for an hour.", 0),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write the report at the end; with --json no report is written.")
    ] = True,
    out: Annotated[
        Path, out_option("The folder of the run, where the results are written.", "RUN")
    ] = Path("camlucida-run"),
    as_json: AsJson = False,
) -> None:
    """Measure methods on a data set, and learn which is best on your model.

    A method that cannot explain the model is left out and named, and the exit code is then 2.
    Whatever ends a run, its results are kept, and the same command goes on from there. A RUN holds the results of one
    plan: one model, one data set, and the same methods, metrics and settings. Another plan is refused there.
    With --engine ray several machines write into one RUN, which must lie on storage that they share.

    [bold]camlucida evaluate photos/ --method gradcam --method diffgradcam --metric iou --metric road[/]
    """
    from camlucida.benchmark.one_call import run_bench
    from camlucida.benchmark.plan import DEFAULT, open_bench
    from camlucida.targets import build_target

    if estimate is not None:
        refuse_unused(
            context, ("engine", "ray_address"), "without --estimate, which times this process"
        )
    else:
        refuse_unused(context, ("price",), "with --estimate")
        if engine != "ray":
            refuse_unused(context, ("workers", "ray_address"), "with --engine ray")

    def say(note: str) -> None:
        complain(f"note: {note}")

    bench = open_bench(
        model.name or "embedded",
        data,
        method or ["gradcam"],
        metric or DEFAULT,
        device=on_device(device),
        **model.how,
        target=build_target(target),
        explain=explain,
        layers=layer,
        steps=steps,
        seed=seed,
        limit=limit,
        shard_size=shard_size,
        legacy_boxes=legacy_boxes,
        say=say,
    )
    for path, reason in bench.data.skipped:
        complain(f"left out: '{shown(path)}': {reason}")
    if estimate is not None:
        from camlucida.cli.estimate import estimate as time

        time(bench, estimate, batch_size, threads, workers or 1, price, as_json)
        return
    with _progress(bench.images) as progress:
        ended = run_bench(
            bench,
            out,
            engine=engine,
            batch_size=batch_size,
            threads=threads,
            verify_data=verify_data,
            workers=workers,
            ray_address=ray_address,
            device=device,
            progress=progress,
            say=say,
        )
    _tell(ended, bench, report and not as_json, as_json)
    raise typer.Exit(130 if ended.interrupted else 2 if ended.skipped else 0)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], object]]:
    """A bar that also shows the rate."""
    from rich.progress import TextColumn

    from camlucida.cli.shared.console import progress_bar

    bar = progress_bar()
    bar.columns = (*bar.columns, TextColumn("{task.fields[rate]}"))
    first: list[int] = []
    with bar:
        task = bar.add_task("evaluating", total=total, rate="")

        def advance(done: int, _: int) -> None:
            first.append(done)
            rate = (done - first[0]) / (bar.tasks[0].elapsed or 1.0)
            bar.update(task, completed=done, rate=f"{rate:.3g} a second" if rate else "")

        yield advance


def _tell(ended: Finished, bench: Bench, report: bool, as_json: bool) -> None:
    from camlucida.benchmark.summary import summarise
    from camlucida.cli.summary import document, photos, show

    run = ended.run.path
    new, seconds = ended.images - ended.before, ended.seconds
    if ended.interrupted:
        complain(
            f"stopped; {ended.images} of {ended.total} photos are done and kept in '{shown(run)}': the same "
            "command goes on from there"
        )
    if not ended.images:
        if as_json:
            print_json({"run": shown(run), "images": 0, "total": ended.total, "interrupted": True})
        return
    summary = summarise(run)
    if as_json:
        print_json({
            "run": shown(run),
            "interrupted": ended.interrupted,
            "evaluated_now": new,
            "skipped": [{"method": m, "reason": why} for m, why in ended.skipped.items()],
            "seconds": seconds,
            **document(summary),
        })  # fmt: skip
        return
    show(summary)
    terminal = console()
    if new:
        terminal.print(f"\n{photos(new)} in {seconds:.3g} s, {new / seconds:.3g} a second")
    else:
        terminal.print("\nnothing was left to do")
    terminal.print(f"results: {shown(run)}", soft_wrap=True)
    if report and not ended.interrupted:
        _report(run, bench)


def _report(run: Path, bench: Bench) -> None:
    """The report, where it can be written; its failure spoils nothing."""
    try:
        from camlucida.benchmark.report.run_report import write_report

        page = write_report(run, model=bench.model, data=bench.data)
    except (ImportError, CamlucidaError) as error:
        complain(f"note: no report was written: {error}")
    else:
        console().print(f"report: {shown(page)}", soft_wrap=True)
