"""``camlucida evaluate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camlucida.cli.shared.console import complain, console, print_json, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    ClassNames,
    Device,
    FusedLayers,
    Model,
    Steps,
    TargetText,
    batch_option,
    methods_option,
    out_option,
    refuse_unused,
    seed_option,
)
from camlucida.common.errors import CamlucidaError

if TYPE_CHECKING:
    from camlucida.benchmark.local import Finished
    from camlucida.benchmark.plan import Bench, Recipe

Engine = Literal["local", "ray"]


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder with one folder per class, a table, a COCO file, or kind:path,option=value "
            "with the kinds folder, imagenet, csv, coco, voc, hf, digits and photos.",
        ),
    ],
    context: typer.Context,
    model: Model = "embedded",
    architecture: Architecture = None,
    class_names: ClassNames = None,
    method: Annotated[list[str] | None, methods_option("gradcam")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="METRIC",
            help="NAME or NAME:key=value,key=value, several times; or a group: localisation, faithfulness, "
            "stability, agreement, concentration, all. "
            "See camlucida metrics. (default: those of localisation and faithfulness that the data allow)",
        ),
    ] = None,
    target: TargetText = "logit",
    explain: Annotated[
        str,
        typer.Option(
            metavar="CLASS",
            help="Whose class is explained: predicted, label, or one class by name or index.",
        ),
    ] = "predicted",
    layer: FusedLayers = None,
    steps: Steps = None,
    seed: Annotated[int, seed_option("methods and metrics that draw")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="So many photos, spread evenly over the data."),
    ] = None,
    legacy_boxes: Annotated[
        bool, typer.Option("--legacy-boxes", help="Map boxes as the published scripts did.")
    ] = False,
    shard_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Photos whose results are written together. (default: 64; 8 for up to 512 photos)",
        ),
    ] = None,
    batch_size: Annotated[int, batch_option("Photos explained")] = 8,
    threads: Annotated[
        int, typer.Option(metavar="N", min=1, help="That read photos, in each worker.")
    ] = 2,
    device: Device = None,
    engine: Annotated[
        Engine, typer.Option(help="local: this process; ray: workers, here or on a cluster.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --engine ray (default: one per GPU or two processors), or --estimate (default: 1).",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine ray: of a running cluster. (default: one is started here)",
        ),
    ] = None,
    estimate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Only time N photos, write nothing, and work out how long larger runs take on --workers.",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(metavar="PRICE", min=0, help="With --estimate: of a worker for an hour."),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write the report at the end; with --json none is written.")
    ] = True,
    out: Annotated[Path, out_option("Where the results go.", "RUN")] = Path("camlucida-run"),
    as_json: AsJson = False,
) -> None:
    """Measure methods on a data set, and learn which is best on your model.

    What is done is kept, whatever ends it; the same command goes on from there. Results of another plan are
    never mixed. With --engine ray several machines write into one RUN, which then lies on storage they share.

    [bold]camlucida evaluate photos/ --method gradcam --method diffgradcam --metric iou --metric road[/]
    """
    from camlucida.benchmark.plan import SHARD, Recipe, Settings
    from camlucida.data.open import namesake
    from camlucida.methods import read_method
    from camlucida.metrics import metric_groups
    from camlucida.targets import build_target

    if estimate is not None:
        refuse_unused(
            context, ("engine", "ray_address"), "without --estimate, which times this process"
        )
    else:
        refuse_unused(context, ("price",), "with --estimate")
        if engine != "ray":
            refuse_unused(context, ("workers", "ray_address"), "with --engine ray")
    wanted = build_target(target)
    default: list[str] = [
        name for name in ("localisation", "faithfulness") if name in metric_groups()
    ]
    recipe = Recipe(
        data,
        model,
        tuple(read_method(text, wanted) for text in method or ["gradcam"]),
        tuple(metrics_of(metric or default)),
        Settings(
            target=wanted,
            explain=explain,
            layers=tuple(layer or ()),
            steps=steps,
            seed=seed,
            limit=limit,
            shard_size=shard_size or SHARD,
            legacy=legacy_boxes,
        ),
        architecture,
        class_names,
    )
    if said := namesake(data):
        complain(f"note: {said}")
    bench = _fitting(
        recipe, device, [name for name in metric or default if name in metric_groups()]
    )
    if shard_size is None and bench.images <= _FEW:
        bench = _with_shards(bench, _SMALL_SHARD)
    for path, reason in bench.data.skipped:
        complain(f"left out: '{shown(path)}': {reason}")
    if estimate is not None:
        from camlucida.cli.estimate import estimate as time

        time(bench, estimate, batch_size, threads, workers or 1, price, as_json)
        return
    ended = _run(bench, out, engine, batch_size, threads, workers, ray_address, device)
    _tell(ended, bench, report and not as_json, as_json)
    raise typer.Exit(130 if ended.interrupted else 0)


# ---- what is measured -------------------------------------------------------------------------------


def metrics_of(texts: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Metrics and their options from ``name:key=value,...`` or the names of groups, each once.

    Raises:
        CamlucidaError: a name or an option is unknown, or a value does not fit.
    """
    from camlucida.metrics import metric_groups, read_metric

    known = metric_groups()
    found: list[tuple[str, dict[str, Any]]] = []
    for text in texts:
        group = [(name, dict[str, Any]()) for name in known.get(text, ())]
        several = group or [read_metric(text)]
        found += [one for one in several if one not in found]
    return found


def _fitting(recipe: Recipe, device: str | None, chosen: list[str]) -> Bench:
    """The bench, without the metrics of a chosen group that these data do not allow."""
    from camlucida.benchmark.work import in_words, lacking
    from camlucida.metrics import metric_groups

    bench = recipe.open(device)
    known = metric_groups()
    from_group = {name for group in chosen for name in known[group]}
    missing = {name: what for name, what in lacking(bench).items() if name in from_group}
    if not missing:
        return bench
    kept = tuple(one for one in recipe.metrics if one[0] not in missing)
    if not kept:
        raise CamlucidaError(
            f"none of these metrics can be measured: {', '.join(missing)}: {in_words(bench, missing)}"
        )
    complain(f"note: left out: {', '.join(missing)}: {in_words(bench, missing)}")
    return replace(recipe, metrics=kept).around(bench.model, bench.data)


_FEW = 512  # photos
_SMALL_SHARD = 8  # a batch, so that a short run that is stopped loses little


def _with_shards(bench: Bench, size: int) -> Bench:
    recipe = bench.recipe
    assert recipe is not None  # noqa: S101 - this command opens benches from recipes only
    settings = replace(recipe.settings, shard_size=size)
    return replace(recipe, settings=settings).around(bench.model, bench.data)


# ---- running ----------------------------------------------------------------------------------------


def _run(
    bench: Bench,
    out: Path,
    engine: Engine,
    batch_size: int,
    threads: int,
    workers: int | None,
    address: str | None,
    device: str | None,
) -> Finished:
    from camlucida.benchmark import local

    with _bar() as bar:
        task = bar.add_task("evaluating", total=bench.images, rate="")
        first: list[float] = []

        def progress(done: int, total: int) -> None:
            first.append(done)
            spent = bar.tasks[0].elapsed or 0.0
            rate = (done - first[0]) / spent if spent else 0.0
            bar.update(
                task, completed=done, total=total, rate=f"{rate:.3g} a second" if rate else ""
            )

        if engine == "local":
            return local.run(bench, out, batch_size=batch_size, threads=threads, progress=progress)
        from camlucida.benchmark import ray_engine

        return ray_engine.run(
            bench,
            out,
            address=address,
            workers=workers,
            batch_size=batch_size,
            threads=threads,
            device=device,
            progress=progress,
        )


def _bar() -> Any:
    """A progress bar that also shows the rate."""
    from rich.progress import TextColumn

    from camlucida.cli.shared.console import progress_bar

    bar = progress_bar()
    bar.columns = (*bar.columns, TextColumn("{task.fields[rate]}"))
    return bar


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
    terminal.print(f"results: {shown(run)}", markup=False, soft_wrap=True)
    if report and not ended.interrupted:
        _report(run, bench)


def _report(run: Path, bench: Bench) -> None:
    """The report, where it can be written; its failure spoils nothing."""
    try:
        from camlucida.benchmark.report.run_report import write

        page = write(run, model=bench.model, data=bench.data)
    except (ImportError, CamlucidaError) as error:
        complain(f"note: no report was written: {error}")
    else:
        console().print(f"report: {shown(page)}", markup=False, soft_wrap=True)
