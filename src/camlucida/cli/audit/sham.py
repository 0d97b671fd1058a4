"""``camlucida audit sham`` and its neighbours: attacks on explanations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.audit.group import finish, telling
from camlucida.cli.shared.opening import explained_layer, labelled_case
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    AttackedModel,
    AuditOut,
    Device,
    Seed,
    count_option,
    layer_option,
    quick_option,
    refuse_unused,
)
from camlucida.cli.shared.writing import out_folder

if TYPE_CHECKING:
    pass

Quick = Annotated[bool, quick_option("Some minutes on two cores", "the whole table")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="As camlucida evaluate takes it. Photos without labels get the classes that the model predicts.",
    ),
]
AttackedLayer = Annotated[
    str | None, layer_option("the last feature map", "The attacked and explained layer.")
]
Methods = Annotated[
    list[str] | None, typer.Option("--method", metavar="NAME", help="Evaluate only these; repeat it for several.")
]  # fmt: skip


def sham(
    context: typer.Context,
    model: AttackedModel = None,
    architecture: Architecture = None,
    data: Data = None,
    layer: AttackedLayer = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="Fine-tune against this map: sham, location, or a method, with a margin after a colon, such as "
            "gradcam:mean. The first is the main attack; repeat it for the table of attackers.",
        ),
    ] = None,
    method: Methods = None,
    trainable: Annotated[str, typer.Option(metavar="all|head", help="What may be trained.")] = "all",
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of the fine-tuning.")] = None,
    lr: Annotated[
        float | None,
        typer.Option(metavar="X", help="Learning rate of the fine-tuning. (default: by what is trained)"),
    ] = None,
    layout: Annotated[
        str, typer.Option(metavar="rounded|midpoints|rows", help="Of the mask.")
    ] = "rounded",
    classes: Annotated[int, typer.Option(metavar="10|45", help="Of the small network.")] = 10,
    long_tail: Annotated[
        float,
        typer.Option(metavar="X", help="Small network: the first class has X times the images of the last."),
    ] = 1.0,
    count: Annotated[int | None, count_option(6)] = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Can maps be made to lie without changing what the model decides?

    A copy is fine-tuned so that its maps light up the border (SHAM); then every method, on the logit and on margins,
    explains the same images before and after.
    """
    from camlucida.audits.fooling.audit import (
        HEAD_RATE,
        QUICK_ATTACK,
        audit_sham,
        audit_sham_stand_ins,
    )
    from camlucida.audits.fooling.nets import Plan
    from camlucida.audits.fooling.tune import Attack

    if model is None:
        refuse_unused(context, ("architecture", "data", "layer", "device"), "with --model")
    else:
        refuse_unused(context, ("classes", "long_tail"), "with the small network, not with --model")
    main = Attack(epochs=5) if model is not None else QUICK_ATTACK
    changed: dict[str, Any] = {"trainable": trainable, "layout": layout}
    changed |= {"epochs": epochs} if epochs is not None else {}
    changed |= {"learning_rate": lr} if lr is not None else {}
    if attack and attack[0] == "location":
        main = replace(main, kind="location")
    elif attack and attack[0] not in {"sham", "none"}:
        main = main.adaptive(attack[0])
    main = replace(main, **changed)
    if trainable == "head" and lr is None:
        main = replace(main, learning_rate=main.learning_rate * HEAD_RATE)
    attackers = None if attack is None else ("none", *(a for a in attack if a != "none"))
    with out_folder(out), telling() as say:
        if model is None:
            given: dict[str, Any] = {"classes": classes, "long_tail": long_tail, "seed": seed}
            plan = (
                Plan(train=3000, epochs=7, **given)
                if quick
                else Plan(train=10_000, test=1000, **given)
            )
            report = audit_sham_stand_ins(
                attack=main, attackers=attackers, methods=method, count=count, quick=quick, plan=plan, seed=seed,
                folder=out, say=say,
            )  # fmt: skip
        else:
            loaded, inputs, labels, name = labelled_case(
                model, architecture, data, count, device, quick=quick
            )
            report = audit_sham(
                loaded.module, inputs, labels, layer=explained_layer(loaded, inputs, layer), attack=main,
                attackers=attackers, methods=method, quick=quick, preprocess=loaded.preprocess, name=name, seed=seed,
                folder=out, say=say,
            )  # fmt: skip
    finish(report, out, as_json=as_json)


def logit_shift(
    model: AttackedModel = None,
    architecture: Architecture = None,
    data: Data = None,
    layer: AttackedLayer = None,
    method: Methods = None,
    strength: Annotated[
        float, typer.Option(metavar="X", help="How many times wider the added maps are than the model's own.")
    ] = 30.0,
    count: Annotated[int | None, count_option(2)] = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Which maps move when all logits rise alike? An attack without training; no probability changes."""
    from camlucida.audits.fooling.logit_shift import audit_logit_shift

    with out_folder(out), telling() as say:
        loaded, inputs, labels, name = labelled_case(
            model or "digits", architecture, data, count, device, quick=quick, say=say
        )
        report = audit_logit_shift(
            loaded.module, inputs, labels, layer=explained_layer(loaded, inputs, layer), strength=strength,
            methods=method, quick=quick, preprocess=loaded.preprocess, name=name, seed=seed, folder=out, say=say,
        )  # fmt: skip
    finish(report, out, as_json=as_json)


def residual_logits(
    draws: Annotated[int, typer.Option(metavar="N", min=100, help="Per setting.")] = 20_000,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """How steady is what a margin subtracts? Lemmas on residual logits, simulated and drawn."""
    from camlucida.audits.fooling.residual_logits import audit_residual_logits

    with out_folder(out):
        report = audit_residual_logits(draws=draws, seed=seed, folder=out)
    finish(report, out, as_json=as_json)
