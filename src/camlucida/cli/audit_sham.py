"""``camlucida audit sham`` and its neighbours: attacks on explanations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.audit import finish, telling
from camlucida.cli.console import console, print_json, shown
from camlucida.cli.writing import out_folder
from camlucida.errors import CamlucidaError

if TYPE_CHECKING:
    from torch import Tensor

    from camlucida.models import LoadedModel
    from camlucida.reproduce.base import Reproduced

Quick = Annotated[
    bool,
    typer.Option(
        "--quick/--full",
        help="Some minutes on two cores, or the whole table. Both go on where they stopped.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where report and finished parts go.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything that is drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="NAME|FILE",
        help="As for camlucida explain; a copy is attacked. (default: a small network that is trained now)",
    ),
]  # fmt: skip
Architecture = Annotated[str | None, typer.Option(metavar="NAME", help="Of a checkpoint file.")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="As camlucida evaluate takes it. Photos without labels get the classes that the model predicts.",
    ),
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="The attacked and explained layer. (default: the last map)")
]  # fmt: skip
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="Evaluate only these; repeat it for several."),
]
Device = Annotated[str | None, typer.Option(metavar="D", help="Such as cuda.")]


def sham(
    model: Model = None,
    architecture: Architecture = None,
    data: Data = None,
    layer: Layer = None,
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
    lr: Annotated[float | None, typer.Option(metavar="X", help="Learning rate of the fine-tuning.")] = None,
    layout: Annotated[
        str, typer.Option(metavar="rounded|midpoints|rows", help="Of the mask.")
    ] = "rounded",
    classes: Annotated[int, typer.Option(metavar="10|45", help="Of the small network.")] = 10,
    long_tail: Annotated[
        float,
        typer.Option(metavar="X", help="Small network: the first class has X times the images of the last."),
    ] = 1.0,
    count: Annotated[int | None, typer.Option(metavar="N", min=6, help="Images at most.")] = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Can maps be made to lie without changing what the model decides?

    A copy is fine-tuned so that its maps light up the border (SHAM); then every method, on the logit and on margins,
    explains the same images before and after.
    """
    from camlucida.audits.fooling.audit import QUICK_ATTACK, audit_sham, audit_sham_stand_ins
    from camlucida.audits.fooling.nets import Plan
    from camlucida.audits.fooling.tune import Attack

    main = Attack(epochs=5) if model is not None else QUICK_ATTACK
    changed: dict[str, Any] = {"trainable": trainable, "layout": layout}
    changed |= {"epochs": epochs} if epochs is not None else {}
    changed |= {"learning_rate": lr} if lr is not None else {}
    if attack and attack[0] == "location":
        main = replace(main, kind="location")
    elif attack and attack[0] not in {"sham", "none"}:
        main = main.adaptive(attack[0])
    main = replace(main, **changed)
    attackers = None if attack is None else ("none", *(a for a in attack if a != "none"))
    with out_folder(out), telling() as say:
        if model is None:
            if data is not None or layer is not None or architecture is not None:
                raise CamlucidaError("--data, --layer and --architecture go with --model")
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
    model: Model = None,
    architecture: Architecture = None,
    data: Data = None,
    layer: Layer = None,
    method: Methods = None,
    strength: Annotated[
        float, typer.Option(metavar="X", help="How many times wider the added maps are than the model's own.")
    ] = 30.0,
    count: Annotated[int | None, typer.Option(metavar="N", min=2, help="Images at most.")] = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Which maps move when all logits rise alike? An attack without training; no probability changes."""
    from camlucida.audits.logit_shift import audit_logit_shift

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
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """How steady is what a margin subtracts? Lemmas on residual logits, simulated and drawn."""
    from camlucida.audits.residual_logits import audit_residual_logits

    with out_folder(out):
        report = audit_residual_logits(draws=draws, seed=seed, folder=out)
    finish(report, out, as_json=as_json)


def labelled_case(
    model: str,
    architecture: str | None,
    data: str | None,
    count: int | None,
    device: str | None,
    *,
    quick: bool,
    say: Callable[[str, float, float], object] | None = None,
) -> tuple[LoadedModel, Tensor, Tensor, str]:
    """The model, inputs, their classes, and what the two are called."""
    import torch

    from camlucida.data.open import open_data
    from camlucida.models import load_model
    from camlucida.reproduce.standin import stand_ins
    from camlucida.subject import prepare

    if model == "digits" and data is None and architecture is None:
        loaded = stand_ins(say)["digits on photos"][0]
    else:
        loaded = load_model(model, architecture=architecture, device=device)
    if data is None and model != "digits":
        raise CamlucidaError(
            "give --data with photos too: folders by class, ImageNet, a CSV list, or plain photos"
        )
    opened = open_data(data or "digits", class_names=loaded.class_names)
    most = min(len(opened), count or (60 if quick else 600))
    samples = [opened[i] for i in range(most)]
    _, inputs, _, _ = prepare(loaded, [s.picture() for s in samples])
    known = [s.label for s in samples]
    if any(label is None for label in known):
        with torch.no_grad():
            predicted = torch.cat(
                [loaded.module(part).argmax(1) for part in torch.split(inputs, 16)]
            )
        return loaded, inputs, predicted, f"{loaded.name} on {opened.name}, predicted classes"
    labels = torch.tensor([int(label or 0) for label in known], device=inputs.device)
    return loaded, inputs, labels, f"{loaded.name} on {opened.name}"


def explained_layer(loaded: LoadedModel, inputs: Tensor, layer: str | None) -> str:
    """The layer that was named, or the model's last feature map."""
    from camlucida.layers import default_layer

    return layer or default_layer(loaded.module, inputs[:1])


def finish_with(
    run: Callable[[Callable[[str, float, float], object]], Reproduced], out: Path, *, as_json: bool
) -> None:
    """Make a published table anew under a progress bar, write it and print it."""
    with out_folder(out), telling() as say:
        found = run(say)
    files = found.save(out)
    if as_json:
        print_json({**found.to_dict(), "files": [shown(file) for file in files]})
        return
    place = console()
    place.print(found)
    for sentence in found.lead:
        place.print(sentence, markup=False)
    place.print(shown(files[0]), markup=False, soft_wrap=True)
