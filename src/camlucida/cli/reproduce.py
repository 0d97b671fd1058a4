"""``camlucida reproduce``: published tables, and ours beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.console import console, print_json, print_table, progress_bar, shown
from camlucida.cli.reproduce_faces import fame_table1
from camlucida.errors import CamlucidaError

if TYPE_CHECKING:
    from camlucida.data.samples import DataSet
    from camlucida.models import LoadedModel
    from camlucida.reproduce.base import Reproduced

reproduce = typer.Typer(
    help="Run the protocol behind a published table, and print ours beside it.",
    no_args_is_help=True,
)

Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DATA", help="As camlucida evaluate takes it: labelled photos with boxes."
    ),
]
Model = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|FILE", help="As camlucida explain takes it.")
]
Architecture = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a checkpoint file, such as timm:resnet50.")
]
StandIn = Annotated[
    bool,
    typer.Option(
        "--standin",
        help="Run it on what is at hand offline: the embedded model on labelled photos with boxes drawn by hand, "
        "and a small network on digits on photos.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Photos of each data set.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="Such as cuda. (default: cpu)")]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos at a time.")]
Out = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        help="Rows, tables and page; the same command goes on where it was stopped.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

Sets = dict[str, "tuple[LoadedModel, DataSet]"]
Say = Callable[[str, float, float], object]


@reproduce.command("fame-table2")
def fame_table2(
    data: Data = None,
    model: Model = "torchvision:resnet50",
    architecture: Architecture = None,
    standin: StandIn = False,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Of FAME. (default: 500, as published; 50 with --standin)"),
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option("--legacy", help="Map boxes and normalise maps as the authors' scripts did."),
    ] = False,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Out = Path("camlucida-out/fame-table2"),
    as_json: AsJson = False,
) -> None:
    """FAME, Table 2: IoU and ROAD-Delete of five methods.

    [bold]camlucida reproduce fame-table2 --data imagenet:ILSVRC2012 --model torchvision:resnet50[/]
    """
    from camlucida.reproduce.fame_table2 import fame_table2 as work

    def run(sets: Sets, say: Say) -> Reproduced:
        return work(
            sets, out, iterations=iterations or (50 if standin else 500), legacy=legacy, limit=limit,
            seed=seed, batch_size=batch_size, compare=not standin, say=say,
        )  # fmt: skip

    _reproduce(run, data, model, architecture, standin, device, out, as_json)


@reproduce.command("icam-table1")
def icam_table1(
    data: Data = None,
    model: Model = "torchvision:resnet50",
    architecture: Architecture = None,
    standin: StandIn = False,
    runs: Annotated[int, typer.Option(min=1, help="Of I-CAM, which draws perturbations.")] = 10,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", metavar="NAME", help="Beside I-CAM. (default: gradcam, gradcam++, layercam)"
        ),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Out = Path("camlucida-out/icam-table1"),
    as_json: AsJson = False,
) -> None:
    """Integrative CAM, Table 1: average IoU on correctly predicted photos.

    [bold]camlucida reproduce icam-table1 --data voc:VOCdevkit --model timm:vgg16[/]
    """
    from camlucida.reproduce.icam_table1 import BASELINES
    from camlucida.reproduce.icam_table1 import icam_table1 as work

    def run(sets: Sets, say: Say) -> Reproduced:
        return work(
            sets,
            out,
            baselines=method or BASELINES,
            runs=runs,
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            say=say,
        )

    _reproduce(run, data, model, architecture, standin, device, out, as_json)


@reproduce.command("wall-table1")
def wall_table1(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FILE",
            help="A masked VGG, as masked-vgg:FILE. (default: a small stand-in)",
        ),
    ] = None,
    stack_mix: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Labelled photos that STACK-MIX is made of, such as imagenet:PATH."
        ),
    ] = None,
    stack_gen: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The pictures of STACK-GEN.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Images of each set.")] = 100,
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 10,
    quick: Annotated[
        bool,
        typer.Option("--quick/--full", help="Of the stand-in: 20 images and a short training."),
    ] = True,
    out: Out = Path("camlucida-out/wall-table1"),
    as_json: AsJson = False,
) -> None:
    """Through walls, Table 1: how much of a map lies where the model provably cannot see.

    Without a model a small masked network is trained on digits on photos.
    """
    from camlucida.data.open import open_data
    from camlucida.data.stack_mix import StackGen, StackMix
    from camlucida.models import load_model
    from camlucida.reproduce.wall_table1 import wall_table1 as work

    loaded = None if model is None else load_model(model, device=device)
    sets: dict[str, DataSet] = {}
    if loaded is not None:
        if stack_mix is not None:
            photos = open_data(stack_mix, class_names=loaded.class_names)
            sets["STACK-MIX"] = StackMix(photos, loaded.class_names, count=count, seed=seed)
        if stack_gen is not None:
            sets["STACK-GEN"] = StackGen(stack_gen)
    elif stack_mix is not None or stack_gen is not None:
        raise CamlucidaError("--stack-mix and --stack-gen go with --model")

    def run(say: Say) -> Reproduced:
        return work(
            loaded, sets or None, count=count, seed=seed, batch_size=batch_size, quick=quick, folder=out,
            say=say,
        )  # fmt: skip

    _finish(run, out, as_json)


def _reproduce(
    run: Callable[[Sets, Say], Reproduced],
    data: str | None,
    model: str,
    architecture: str | None,
    standin: bool,
    device: str | None,
    out: Path,
    as_json: bool,
) -> None:
    if standin == (data is not None):
        raise CamlucidaError(
            "say what to run it on: --data with labelled photos and their boxes, or --standin for what is at hand "
            "offline"
        )
    _finish(lambda say: run(_sets(data, model, architecture, device, say), say), out, as_json)


def _finish(run: Callable[[Say], Reproduced], out: Path, as_json: bool) -> None:
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def say(what: str, done: float, total: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        found = run(say)
    files = found.save(out)
    if as_json:
        print_json({**found.to_dict(), "files": [shown(file) for file in files]})
    else:
        place = console()
        for table in found.tables:
            print_table(place, table)
        for sentence in found.lead:
            place.print(sentence, markup=False)
        place.print(shown(files[0]), markup=False, soft_wrap=True)
    if not found.complete:
        raise typer.Exit(130)


def _sets(
    data: str | None, model: str, architecture: str | None, device: str | None, say: Say
) -> Sets:
    if data is None:
        from camlucida.reproduce.standin import stand_ins

        return stand_ins(say)
    from camlucida.data.open import open_data
    from camlucida.models import load_model

    loaded = load_model(model, architecture=architecture, device=device)
    opened = open_data(data, class_names=loaded.class_names)
    return {opened.name: (loaded, opened)}


reproduce.command("fame-table1")(fame_table1)
