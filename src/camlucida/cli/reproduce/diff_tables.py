"""``camlucida reproduce diff-table1 | diff-table2 | diff-table3``: the tables of DiffGradCAM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from camlucida.cli.reproduce.ending import finish
from camlucida.cli.shared.model import (
    DETAILS,
    NOBODY,
    AttackedModel,
    CleanModel,
    ControlModel,
    FooledModel,
    takes_model,
)
from camlucida.cli.shared.opening import compared_case
from camlucida.cli.shared.options import (
    AsJson,
    AttackedLayer,
    Device,
    PerClass,
    Seed,
    TableOut,
    count_option,
    option,
    refuse_unused,
)
from camlucida.common.progress import Say

Quick = Annotated[
    bool,
    typer.Option(
        "--quick/--full",
        help="Train the small networks for a few minutes, or as long as the table takes.",
    ),
]
Data = Annotated[
    str | None,
    option("DATA", "With --model: labelled photos, as camlucida evaluate takes them."),
]
Count = Annotated[int | None, count_option(2, "With --model: use at most this many images.")]
_OF_A_MODEL = (*DETAILS, "data", "layer", "count", "device", "per_class")


def diff_table1(
    context: typer.Context,
    data: Annotated[
        Path | None,
        option(
            "DIR",
            "Run the Iris PAD experiment on a folder with train, val and test, each with a subfolder for each class; "
            "camlucida train balance makes one. (default: digits on photos)",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        option(
            "DIR",
            "With --data: people's maps, a grey picture or .npy file for each photo to train on.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FILE",
            help="With --data: the network. (default: timm:densenet121)",
        ),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="With --data: start from random weights.")
    ] = False,
    epochs: Annotated[
        int | None, option("N", "Passes over the images. (default: 50; 5 or 10 for digits)", 1)
    ] = None,
    seeds: Annotated[
        int | None,
        option("N", "How many seeds each network is trained with. (default: 5; 3 for digits)", 1),
    ] = None,
    quick: Quick = True,
    out: TableOut = Path("camlucida-out/diff-table1"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 1: accuracy with people's salience and with SHAM.

    [bold]camlucida reproduce diff-table1 --data iris --maps iris-maps[/]
    """
    if data is None:
        refuse_unused(context, ("model", "random"), "with --data")
    else:
        refuse_unused(context, ("quick",), "without --data")
    given = {"model": model, "epochs": epochs, "random": random or None}
    how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _finish("diff-table1", out, as_json, data=data, maps=maps, seeds=seeds, quick=quick, **how)


@takes_model
def diff_table2(
    context: typer.Context,
    model: AttackedModel = NOBODY,
    data: Data = None,
    per_class: PerClass = None,
    layer: AttackedLayer = None,
    count: Count = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: TableOut = Path("camlucida-out/diff-table2"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 2: how far its maps are from Grad-CAM's.

    [bold]camlucida reproduce diff-table2 --model timm:densenet121 --data ILSVRC2012/val --per-class 5[/]
    """
    options: dict[str, Any] = {"quick": quick, "seed": seed}
    if model.name is None:
        refuse_unused(context, _OF_A_MODEL, "with --model")
    else:
        asked = compared_case(model, data, layer, count, device)
        options |= {"model": asked.pop("clean"), **asked, "per_class": per_class}
    _finish("diff-table2", out, as_json, **options)


@takes_model
def diff_table3(
    context: typer.Context,
    model: CleanModel = NOBODY,
    fooled: FooledModel = None,
    control: ControlModel = None,
    data: Data = None,
    per_class: PerClass = None,
    layer: AttackedLayer = None,
    count: Count = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: TableOut = Path("camlucida-out/diff-table3"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 3: how far SHAM fine-tuning moves the maps of five methods.

    [bold]camlucida train sham ILSVRC2012/train --model timm:densenet121 --out RUN[/]
    [bold]camlucida reproduce diff-table3 --clean timm:densenet121 --fooled RUN/fooled.pt --data ILSVRC2012/val
    --per-class 5[/]
    """
    options: dict[str, Any] = {"quick": quick, "seed": seed}
    if model.name is None:
        refuse_unused(context, (*_OF_A_MODEL, "fooled", "control"), "with --model")
    else:
        asked = compared_case(model, data, layer, count, device, fooled=fooled, control=control)
        options |= {**asked, "per_class": per_class}
    _finish("diff-table3", out, as_json, **options)


def _finish(table: str, out: Path, as_json: bool, **options: Any) -> None:
    from camlucida.studies.published import reproduce

    def run(say: Say) -> Any:
        return reproduce(table, out=out, say=say, **options)

    finish(run, out, as_json=as_json)
