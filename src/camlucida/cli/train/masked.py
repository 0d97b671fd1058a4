"""``camlucida train masked-vgg``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from camlucida.cli.shared.console import bars, complain, print_json, print_lines, shown
from camlucida.cli.shared.options import AsJson, RunOut, option, refuse_unused, seed_option
from camlucida.cli.shared.writing import out_folder


def masked_vgg(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="ImageNet's folder, one with train/CLASS and val/CLASS, or folders by class, of which a fifth is "
            "held out.",
        ),
    ],
    masked: Annotated[
        bool,
        typer.Option(
            "--masked/--unmasked",
            help="Train the masked network, or its twin without a mask, which sees the whole image.",
        ),
    ] = True,
    seen_rows: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rows of the last map that the head sees. (default: 5)"),
    ] = None,
    width: Annotated[
        float, typer.Option(metavar="X", min=0.001, help="Factor on the channels of all layers; small for a trial.")
    ] = 1.0,
    size: Annotated[
        int, typer.Option(metavar="PX", min=16, help="Height and width of the images, a multiple of 16.")
    ] = 224,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Passes over the training photos.")] = 90,
    batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Photos per step, over all devices together.")
    ] = 256,
    lr: Annotated[float, typer.Option(metavar="X", help="Learning rate at the start.")] = 0.03,
    lr_every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Epochs after which the learning rate falls to a tenth.")
    ] = 30,
    init: Annotated[
        Literal["torchvision", "authors"],
        typer.Option(
            help="First weights: those of VGG in all layers, or, as the authors do, PyTorch's own in the two layers "
            "that they replace."
        ),
    ] = "torchvision",
    keep: Annotated[
        Literal["best", "last"],
        typer.Option(help="Whose weights are written: the best epoch's, or the last one's, as the authors do."),
    ] = "best",
    steps_per_epoch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Steps per epoch, for a trial. (default: all photos)")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(metavar="P", help="Number format: 32-true, 16-mixed, bf16-mixed, or auto (16-mixed on a GPU)."),
    ] = "auto",
    accelerator: Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="Where to train.")] = "auto",
    devices: Annotated[
        str, typer.Option(metavar="N|LIST", help="Devices of each machine: how many, or which, as in 0,1.")
    ] = "auto",
    nodes: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many machines train together; run the command once on each.")
    ] = 1,
    strategy: Annotated[
        str,
        option("NAME", "The strategy of Lightning Fabric: auto, ddp or another that does not split the weights."),
    ] = "auto",
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, help="How many processes read photos for each device.")
    ] = 8,
    seed: Annotated[int, seed_option("weights, order, crops and dropout")] = 3,
    out: RunOut = Path("camlucida-out/masked-vgg"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train the masked VGG of the dead-zone paper, which provably sees a part of the image only.

    The defaults are the published training on ImageNet, but for the first weights and the epoch that is kept:
    --init authors --keep last are theirs. After every epoch the checkpoint, the record and the weights, RUN/best.pt or
    RUN/last.pt, are written. Several machines must share the folder RUN.

    [bold]camlucida train masked-vgg ILSVRC2012 --out RUN[/]
    [bold]camlucida audit deadzone --model masked-vgg:RUN/best.pt --data imagenet:ILSVRC2012[/]
    """
    from camlucida.models.masked_vgg import RECORD
    from camlucida.training.masked import WEIGHTS, MaskedRecipe, is_first_process, train_masked_vgg

    if not masked:
        refuse_unused(context, ("seen_rows",), "without --unmasked")
    recipe = MaskedRecipe(
        epochs=epochs, batch_size=batch_size, learning_rate=lr, step_size=lr_every, size=size,
        precision=precision, seed=seed, workers=workers, steps=steps_per_epoch,  # type: ignore[arg-type]
        initialisation=init, keep=keep,
    )  # fmt: skip
    with out_folder(out), bars(one=True) as say:
        record = train_masked_vgg(
            data,
            out,
            masked=masked,
            recipe=recipe,
            width=width,
            seen_rows=seen_rows,
            accelerator=accelerator,
            devices=int(devices) if devices.isdecimal() else devices,
            nodes=nodes,
            strategy=strategy,
            say=say,
            note=lambda text: complain(f"note: {text}"),
        )
    if not is_first_process():
        return
    files = [shown(out / name) for name in (WEIGHTS[keep], RECORD)]
    if as_json:
        print_json({**record, "files": files})
        return
    print_lines(_said(record), *files)


def _said(record: dict[str, Any]) -> str:
    plan, kept = record["plan"], record["kept"]
    kind = "masked" if plan["masked"] else "unmasked"
    text = (
        f"top-1 {kept['top1']:.1%}, top-5 {kept['top5']:.1%} on the validation photos after epoch "
        f"{kept['epoch'] + 1:.0f} of {len(record['curve'])}, the {plan['keep']}; trained on {plan['photos']:,} photos "
        f"of {plan['classes']} classes"
    )
    published = record["published"][kind]
    if plan["classes"] != 1000:
        return text
    return (
        f"{text}. Published, {kind}: top-1 {published['top1']:.1%}, top-5 {published['top5']:.1%}"
    )
