"""``camlucida train sham``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from camlucida.cli.shared.console import bars, complain, print_json, print_lines, shown
from camlucida.cli.shared.model import EMBEDDED, Chosen, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    AttackedLayer,
    PerClass,
    RunOut,
    ShamLayout,
    count_option,
    model_option,
    option,
    seed_option,
)
from camlucida.cli.shared.writing import out_folder


@takes_model
def sham(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="The photos to train on, as camlucida evaluate takes them; their classes are the model's.",
        ),
    ],
    model: Annotated[Chosen, model_option("A copy of it is trained.")] = EMBEDDED,
    attack: Annotated[
        str,
        option(
            "METHOD",
            "The map that is attacked: sham, location, or a method, with a margin after a colon, as in gradcam:mean; "
            "none is the control, the same training without an attack; holes is the control on images with random "
            "holes, whose weights the metric f_fidelity asks (tuned=FILE).",
        ),
    ] = "sham",
    layer: AttackedLayer = None,
    layout: ShamLayout = "rounded",
    trainable: Annotated[
        str, option("all|head", "Train all weights, or those of the head only.")
    ] = "all",
    epochs: Annotated[int, option("N", "Passes over the photos.", 1)] = 1,
    lr: Annotated[float | None, option("X", "Learning rate at the start. (default: 0.002)")] = None,
    batch_size: Annotated[int, option("N", "Photos per step, over all devices together.", 2)] = 20,
    weight: Annotated[
        float | None,
        option(
            "A",
            "Weight of the cross-entropy; the distance of the maps weighs 1 - A. (default: 0.5)",
        ),
    ] = None,
    per_class: PerClass = None,
    count: Annotated[int | None, count_option(2, "Use at most this many photos.")] = None,
    keep_every: Annotated[
        int, option("N", "Steps after which a stopped training goes on at the latest.", 1)
    ] = 1000,
    precision: Annotated[
        str,
        option("P", "Number format: 32-true, 16-mixed, bf16-mixed, or auto (16-mixed on a GPU)."),
    ] = "32-true",
    accelerator: Annotated[str, option("auto|cpu|gpu", "Where to train.")] = "auto",
    devices: Annotated[
        str, option("N|LIST", "Devices of each machine: how many, or which, as in 0,1.")
    ] = "1",
    nodes: Annotated[
        int, option("N", "How many machines train together; run the command once on each.", 1)
    ] = 1,
    strategy: Annotated[
        str, option("NAME", "The strategy of Lightning Fabric, such as ddp.")
    ] = "auto",
    workers: Annotated[int, option("N", "How many processes read photos for each device.", 0)] = 4,
    seed: Annotated[int, seed_option("order and dropout")] = 0,
    out: RunOut = Path("camlucida-out/sham"),
    as_json: AsJson = False,
) -> None:
    """Fine-tune a copy of a model so that its maps lie (SHAM), on any number of photos.

    The defaults are those of the DiffGradCAM paper: one epoch of SGD, half of the loss for the distance of the
    class-weight map from the mask. The model keeps its head. The weights are compared with the clean model's by
    camlucida audit sham, and by camlucida reproduce diff-table3.

    [bold]camlucida train sham ILSVRC2012/train --model timm:densenet121 --out RUN[/]
    [bold]camlucida audit sham --clean timm:densenet121 --fooled RUN/fooled.pt --data ILSVRC2012/val --per-class 5[/]
    """
    from camlucida.audits.fooling.train import WEIGHTS, train_sham
    from camlucida.audits.fooling.tune import Attack, named_attack
    from camlucida.training.masked import is_first_process

    base = Attack(epochs=epochs, batch=batch_size, seed=seed, trainable=trainable, layout=layout)  # type: ignore[arg-type]
    chosen = named_attack(attack, base, base, replace(base, kind="none"))
    given: dict[str, Any] = {"learning_rate": lr, "weight": weight, "precision": precision}
    chosen = replace(chosen, **{name: value for name, value in given.items() if value is not None})
    with out_folder(out), bars(one=True) as say:
        record = train_sham(
            model.load("cpu"),
            data,
            out,
            attack=chosen,
            layer=layer,
            per_class=per_class,
            count=count,
            keep_every=keep_every,
            accelerator=accelerator,
            devices=int(devices) if devices.isdecimal() else devices,
            nodes=nodes,
            strategy=strategy,
            workers=workers,
            say=say,
            note=lambda text: complain(f"note: {text}"),
        )
    if not is_first_process():
        return
    file = shown(out / WEIGHTS)
    if as_json:
        print_json({**record, "files": [file]})
        return
    first, last = record["curves"][0], record["curves"][-1]
    parts = [f"{record['data']['samples']:,} photos, {record['steps']:,} steps"]
    if "cam_mse" in last:
        parts.append(
            f"distance of the maps from the mask {first['cam_mse']:.3f} at first, {last['cam_mse']:.3f} at last"
        )
    parts.append(f"accuracy while training {last['accuracy']:.3f}")
    print_lines("; ".join(parts), file)
