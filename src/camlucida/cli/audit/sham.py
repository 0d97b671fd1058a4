"""``camlucida audit sham`` and its neighbours: attacks on explanations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.audit.group import write_report
from camlucida.cli.shared.model import (
    DETAILS,
    NOBODY,
    AttackedModel,
    Chosen,
    CleanModel,
    ControlModel,
    FooledModel,
    takes_model,
)
from camlucida.cli.shared.opening import compared_case, labelled_case
from camlucida.cli.shared.options import (
    AsJson,
    AttackedLayer,
    AuditOut,
    Device,
    OnlyMethods,
    PerClass,
    QuickTable,
    Seed,
    ShamLayout,
    count_option,
    option,
    refuse_unused,
)
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.audits import AuditReport

Data = Annotated[
    str | None,
    option(
        "DATA",
        "The photos, as camlucida evaluate takes them. Those without labels get the classes that the model "
        "predicts.",
    ),
]


@takes_model
def sham(
    context: typer.Context,
    model: CleanModel = NOBODY,
    data: Data = None,
    fooled: FooledModel = None,
    control: ControlModel = None,
    per_class: PerClass = None,
    layer: AttackedLayer = None,
    attack: Annotated[
        list[str] | None,
        option(
            "METHOD",
            "The map that the fine-tuning attacks: sham, location, or a method, with a margin after a colon, as in "
            "gradcam:mean. The first is the main attack; repeat the option for the table of attackers.",
        ),
    ] = None,
    method: OnlyMethods = None,
    trainable: Annotated[
        str, option("all|head", "Train all weights, or those of the head only.")
    ] = "all",
    epochs: Annotated[int | None, option("N", "How many epochs the fine-tuning takes.", 1)] = None,
    lr: Annotated[
        float | None,
        option("X", "The learning rate of the fine-tuning. (default: chosen by what is trained)"),
    ] = None,
    layout: ShamLayout = "rounded",
    classes: Annotated[int, option("10|45", "How many classes the small network has.")] = 10,
    long_tail: Annotated[
        float,
        option(
            "X",
            "For the small network: the first class has this many times the images of the last.",
        ),
    ] = 1.0,
    count: Annotated[int | None, count_option(6)] = None,
    device: Device = None,
    quick: QuickTable = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Can maps be made to lie without changing what the model decides?

    A copy is fine-tuned so that its maps light up the border (SHAM); then every method, on the logit and on margins,
    explains the same images before and after. With --fooled nothing is trained: the two given models are compared, on
    any number of photos.

    [bold]camlucida audit sham --clean timm:densenet121 --fooled RUN/fooled.pt --data ILSVRC2012/val[/]
    """
    from camlucida.audits import Attack, audit_fooled, audit_sham
    from camlucida.audits.fooling.audit import HEAD_RATE, QUICK_ATTACK
    from camlucida.audits.fooling.nets import DigitPlan

    if model.name is None:
        refuse_unused(context, (*DETAILS, "data", "layer", "device", "fooled"), "with --model")
    if fooled is None:
        refuse_unused(context, ("control", "per_class"), "with --fooled")
    else:
        refuse_unused(
            context,
            ("attack", "trainable", "epochs", "lr", "classes", "long_tail"),
            "without --fooled, as it is about a training",
        )
        asked = compared_case(model, data, layer, count, device, fooled=fooled, control=control)
        asked |= {"methods": method, "layout": layout, "quick": quick, "seed": seed, "out": out}
        write_report(
            lambda say: audit_fooled(**asked, per_class=per_class, say=say),
            out,
            as_json=as_json,
            named=method,
        )
        return
    if model.name is not None:
        refuse_unused(context, ("classes", "long_tail"), "with the small network, not with --model")
    main = Attack(epochs=5) if model.name is not None else QUICK_ATTACK
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
    options: dict[str, Any] = {
        "attack": main, "methods": method, "quick": quick, "seed": seed, "out": out,
        "attackers": None if attack is None else ("none", *(a for a in attack if a != "none")),
    }  # fmt: skip

    def run(say: Say) -> AuditReport:
        if model.name is not None:
            case = _case(model, data, layer, count, device, quick)
            return audit_sham(**case, **options, say=say)
        plan = DigitPlan.of(quick=quick, seed=seed, classes=classes, long_tail=long_tail)
        return audit_sham(plan=plan, count=count, **options, say=say)

    write_report(run, out, as_json=as_json)


@takes_model
def logit_shift(
    model: AttackedModel = NOBODY,
    data: Data = None,
    layer: AttackedLayer = None,
    method: OnlyMethods = None,
    strength: Annotated[
        float, option("X", "How many times wider the added maps are than the model's own.")
    ] = 30.0,
    count: Annotated[int | None, count_option(2)] = None,
    device: Device = None,
    quick: QuickTable = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Which maps move when all logits rise alike? This attack trains nothing and changes no probability."""
    from camlucida.audits import audit_logit_shift

    def run(say: Say) -> AuditReport:
        case = _case(model, data, layer, count, device, quick, say)
        return audit_logit_shift(
            **case, strength=strength, methods=method, quick=quick, seed=seed, out=out, say=say
        )

    write_report(run, out, as_json=as_json)


def residual_logits(
    draws: Annotated[int, option("N", "How many draws each setting gets.", 100)] = 20_000,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Simulate and draw how much what a margin subtracts from the logit varies (lemmas on residual logits)."""
    from camlucida.audits import audit_residual_logits

    write_report(
        lambda _: audit_residual_logits(draws=draws, seed=seed, out=out), out, as_json=as_json
    )


def _case(
    model: Chosen,
    data: str | None,
    layer: str | None,
    count: int | None,
    device: str | None,
    quick: bool,
    say: Say | None = None,
) -> dict[str, Any]:
    """The model and its labelled images, as the audits take them."""
    loaded, inputs, labels, name = labelled_case(model, data, count, device, quick=quick, say=say)
    return {"model": loaded, "data": (inputs, labels), "layers": layer, "name": name}
