"""``camlucida reproduce``: published tables, and ours beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.reproduce.faces import fame_table1
from camlucida.cli.shared.console import bars, console, print_json, print_table, shown
from camlucida.cli.shared.opening import photos_of
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    BatchSize,
    Command,
    Device,
    Seed,
    TableOut,
    count_option,
    model_option,
    refuse_unused,
)
from camlucida.cli.shared.writing import out_folder
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.data.samples import DataSet
    from camlucida.models import LoadedModel
    from camlucida.studies.published.base import Reproduced

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
Model = Annotated[str | None, model_option("(default: torchvision:resnet50)")]
StandIn = Annotated[
    bool,
    typer.Option(
        "--standin",
        help="Run it on what is at hand offline: the embedded model on labelled photos with boxes drawn by hand, "
        "and a small network on digits on photos.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Photos of each data set.")]

_IMAGENET = 1000

Sets = dict[str, "tuple[LoadedModel, DataSet]"]


@reproduce.command("fame-table2", cls=Command)
def fame_table2(
    context: typer.Context,
    data: Data = None,
    model: Model = None,
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
    out: TableOut = Path("camlucida-out/fame-table2"),
    as_json: AsJson = False,
) -> None:
    """FAME, Table 2: IoU and ROAD-Delete of five methods.

    [bold]camlucida reproduce fame-table2 --data imagenet:ILSVRC2012 --model torchvision:resnet50[/]
    """
    from camlucida.studies.published.fame_table2 import fame_table2 as work

    def run(sets: Sets, say: Say) -> Reproduced:
        return work(
            sets, out, iterations=iterations or (50 if standin else 500), legacy=legacy, limit=limit,
            seed=seed, batch_size=batch_size, compare=not standin, say=say,
        )  # fmt: skip

    _reproduce(context, run, data, model, architecture, standin, device, out, as_json)


@reproduce.command("icam-table1", cls=Command)
def icam_table1(
    context: typer.Context,
    data: Data = None,
    model: Model = None,
    architecture: Architecture = None,
    standin: StandIn = False,
    runs: Annotated[int, typer.Option(min=1, help="Of I-CAM, which draws perturbations.")] = 10,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="Beside I-CAM; repeat it for several. (default: gradcam, gradcam++, layercam)",
        ),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: TableOut = Path("camlucida-out/icam-table1"),
    as_json: AsJson = False,
) -> None:
    """Integrative CAM, Table 1: average IoU on correctly predicted photos.

    [bold]camlucida reproduce icam-table1 --data voc:VOCdevkit --model timm:vgg16[/]
    """
    from camlucida.studies.published.icam_table1 import BASELINES
    from camlucida.studies.published.icam_table1 import icam_table1 as work

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

    _reproduce(context, run, data, model, architecture, standin, device, out, as_json)


@reproduce.command("wall-table1", cls=Command)
def wall_table1(
    context: typer.Context,
    model: Annotated[
        str | None,
        model_option(
            "(default: a small stand-in)", known="A masked VGG, as masked-vgg:FILE.", metavar="FILE"
        ),
    ] = None,
    stack_mix: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Photos that STACK-MIX is made of, such as imagenet:PATH or folders by class; of ImageNet's classes "
            "the animals, as published.",
        ),
    ] = None,
    stack_gen: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The pictures of STACK-GEN.")
    ] = None,
    count: Annotated[
        int, count_option(what="Images of each set; the quick stand-in has 20.")
    ] = 100,
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 10,
    quick: Annotated[
        bool,
        typer.Option("--quick/--full", help="Of the stand-in: 20 images and a short training."),
    ] = True,
    out: TableOut = Path("camlucida-out/wall-table1"),
    as_json: AsJson = False,
) -> None:
    """Through walls, Table 1: how much of a map lies where the model provably cannot see.

    Without a model a small masked network is trained on digits on photos.
    """
    from camlucida.models import load_model
    from camlucida.studies.published.wall_table1 import wall_table1 as work

    if model is None:
        refuse_unused(context, ("stack_mix", "stack_gen", "device"), "with --model")
        if quick:
            refuse_unused(context, ("count",), "with --model or --full")
    elif stack_mix is None and stack_gen is None:
        raise CamlucidaError("give the images too: --stack-mix DATA, --stack-gen FOLDER, or both")
    loaded = None if model is None else load_model(model, device=device)

    def run(say: Say) -> Reproduced:
        sets = None if loaded is None else _stacks(loaded, stack_mix, stack_gen, count, seed, say)
        return work(
            loaded, sets, count=count, seed=seed, batch_size=batch_size, quick=quick, folder=out, say=say
        )  # fmt: skip

    _finish(run, out, as_json)


def _stacks(
    loaded: LoadedModel,
    stack_mix: str | None,
    stack_gen: Path | None,
    count: int,
    seed: int,
    say: Say,
) -> dict[str, DataSet]:
    """The images of the table, of the model's size, the seam where its dead part begins."""
    from camlucida.audits.deadzone.audit import dead_zone, region_of
    from camlucida.data.stack_mix import ANIMALS, StackGen, StackMix

    if loaded.preprocess is None or len(set(loaded.preprocess.size)) > 1:
        known = (
            "unknown" if loaded.preprocess is None else "{} x {}".format(*loaded.preprocess.size)
        )
        raise CamlucidaError(
            f"the images are stacked for a model of square inputs, but the input size of {loaded.name} is {known}"
        )
    size = loaded.preprocess.size[0]
    sets: dict[str, DataSet] = {}
    if stack_mix is not None:
        photos = photos_of(stack_mix, loaded.class_names)

        def proving(done: float, total: float) -> None:
            say("proving what is dead", done, total)

        zone = dead_zone(loaded, (size, size), draws=2, progress=proving)
        dead = region_of(zone)
        if dead is None:
            raise CamlucidaError(
                f"STACK-MIX fills whole dead rows at the lower edge, which {loaded.name} has not: {zone}"
            )
        # 1000 classes are taken to be ImageNet's, as everywhere.
        animals = ANIMALS if zone.proof["outputs"] == _IMAGENET else None
        try:
            sets["STACK-MIX"] = StackMix(
                photos, dead=dead, size=size, count=count, classes=animals, seed=seed
            )
        except CamlucidaError as error:
            if animals is None:
                raise
            raise CamlucidaError(
                f"{error}; drawn from are ImageNet's animals, labels 0 to {ANIMALS[-1]}, as published"
            ) from error
    if stack_gen is not None:
        # Published: 256 on the shorter side, of which 224 are left.
        sets["STACK-GEN"] = StackGen(stack_gen, size=size, resize=round(size * 256 / 224))
    return sets


def _reproduce(
    context: typer.Context,
    run: Callable[[Sets, Say], Reproduced],
    data: str | None,
    model: str | None,
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
    if standin:
        refuse_unused(context, ("model", "architecture", "device"), "with --data")
    chosen = model or "torchvision:resnet50"
    _finish(lambda say: run(_sets(data, chosen, architecture, device, say), say), out, as_json)


def _finish(run: Callable[[Say], Reproduced], out: Path, as_json: bool) -> None:
    with out_folder(out):
        with bars() as say:
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
        from camlucida.studies.published.standin import stand_ins

        return stand_ins(say)
    from camlucida.data.open import open_data
    from camlucida.models import load_model

    loaded = load_model(model, architecture=architecture, device=device)
    opened = open_data(data, class_names=loaded.class_names)
    return {opened.name: (loaded, opened)}


reproduce.command("fame-table1", cls=Command)(fame_table1)
