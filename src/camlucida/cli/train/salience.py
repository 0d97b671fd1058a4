"""``camlucida train salience``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import (
    bars,
    complain,
    console,
    print_json,
    print_lines,
    print_table,
    shown,
)
from camlucida.cli.shared.model import Architecture
from camlucida.cli.shared.options import (
    AsJson,
    RunOut,
    ShamLayout,
    layer_option,
    model_option,
    refuse_unused,
    seed_option,
)
from camlucida.cli.shared.writing import out_folder


def salience(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder with a subfolder for each class, or with train, val and test that hold such; or digits. "
            "(default: the stand-in)",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Guide by people's maps: a grey picture or .npy file for each photo."),
    ] = None,
    sham: Annotated[
        bool, typer.Option("--sham", help="Guide by a false mask, the border (SHAM), as a control.")
    ] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Guide by the true masks; with digits only.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Train with the cross-entropy alone, to compare.")
    ] = False,
    entropy: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Train with an entropy loss: droid, fmmce or hb-cam. Repeat it for several."),
    ] = None,
    standin: Annotated[
        bool,
        typer.Option("--standin", help="Train on digits on photos: true masks against SHAM, in a few minutes."),
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Validation photos. (default: DATA/val, or a fifth of each class)"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Test photos. (default: DATA/test)")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave photos without a map out.")
    ] = False,
    model: Annotated[
        str | None,
        model_option(
            "(default: timm:densenet121; small for digits)",
            known="timm:NAME, torchvision:NAME, embedded, small or a checkpoint file.",
        ),
    ] = None,
    architecture: Architecture = None,
    random: Annotated[bool, typer.Option("--random", help="Start from random weights.")] = False,
    size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Height and width of the images. (default: 224; 56 for digits)"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the images. (default: 50; 8 for digits)")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How often each training is repeated. (default: 5; 3 for digits)"),
    ] = None,
    seed: Annotated[int, seed_option("the first repetition")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Images per step. (default: 20)")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(metavar="X", help="Learning rate at the start. (default: 0.002; 0.004 for digits)"),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(
            metavar="A", help="Weight of the cross-entropy in the loss; the distance of the maps weighs 1 - A."
        ),
    ] = 0.5,
    entropy_weight: Annotated[
        float, typer.Option(metavar="X", help="Weight of an entropy loss beside a cross-entropy of weight 1.")
    ] = 1.0,
    cam: Annotated[
        str,
        typer.Option(metavar="METHOD", help="Map that is trained: weights, or a method such as gradcam."),
    ] = "weights",
    cam_class: Annotated[
        str,
        typer.Option(
            metavar="label|pred", help="Class whose map is trained: the label's or the predicted one."
        ),
    ] = "label",
    layer: Annotated[str | None, layer_option("the last feature map", "Layer whose map is trained.")] = None,
    layout: ShamLayout = "rounded",
    precision: Annotated[
        str | None,
        typer.Option(metavar="P", help="Number format: 32-true, 16-mixed or bf16-mixed. (default: 32-true)"),
    ] = None,
    accelerator: Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="Where to train.")] = "auto",
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="How many threads read photos.")] = 8,
    images: Annotated[int, typer.Option(metavar="N", min=100, help="Digits to learn from.")] = 4000,
    out: RunOut = Path("camlucida-out/salience"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train with salience in the loss: people's maps, a SHAM mask or none, over several seeds.

    With photos the defaults are the published Iris PAD experiment: DenseNet-121 from ImageNet's weights, half
    cross-entropy and half distance of the class-weight map, 50 epochs, 5 seeds. Without DATA a stand-in is run:
    digits on photos, true masks against SHAM against cross-entropy alone, 3 seeds, a few minutes.

    [bold]camlucida train salience iris/ --maps annotations/ --sham --plain --out RUN[/]
    """
    words = {k: v for k, v in locals().items() if k not in {"context", "as_json"}}
    from camlucida.training import train_salience
    from camlucida.training.salience.one_call import DIGITS, choose_arms
    from camlucida.training.salience.recipe import ENTROPY_ARMS

    digits = data in {None, DIGITS}
    arms = {
        *choose_arms(
            data, standin=standin, maps=maps, sham=sham, masks=masks, plain=plain, entropy=entropy
        )
    }
    # Each option needs the images, the model or the loss that it is about.
    for needless, names, reason in (
        (digits, ("val", "test", "skip_missing", "threads"), "with photos"),
        (digits and model is None, ("architecture", "random"), "with --model"),
        (not digits, ("images",), "with digits"),
        (maps is None, ("skip_missing",), "with --maps"),
        ("sham" not in arms, ("layout",), "with --sham"),
        (not {"human", "mask", "sham"} & arms, ("weight",), "with --maps, --masks or --sham"),
        (not {*ENTROPY_ARMS} & arms, ("entropy_weight",), "with --entropy"),
    ):
        if needless:
            refuse_unused(context, names, reason)
    with out_folder(out), bars() as say:
        report = train_salience(**words, say=say, note=lambda text: complain(f"note: {text}"))
    if as_json:
        print_json({**report.to_dict(), "files": [shown(file) for file in report.files]})
    else:
        for table in report.tables:
            print_table(console(), table)
        claims = [f"{c.claim}: {c.outcome}. {c.text}" for c in report.verdicts]
        print_lines(*claims, *report.remarks, report.files[0])
    if not report.experiment.complete:
        raise typer.Exit(130)
