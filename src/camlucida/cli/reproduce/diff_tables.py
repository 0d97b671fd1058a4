"""``camlucida reproduce diff-table1 | diff-table2 | diff-table3``: the tables of DiffGradCAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.reproduce.ending import finish
from camlucida.cli.shared.model import DETAILS, NOBODY, AttackedModel, Chosen, takes_model
from camlucida.cli.shared.opening import explained_layer, labelled_case
from camlucida.cli.shared.options import (
    AsJson,
    AttackedLayer,
    Device,
    Seed,
    TableOut,
    count_option,
    option,
    refuse_unused,
)
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.audits.fooling.study import FoolingCase

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
Count = Annotated[int | None, count_option(6, "With --model: use at most this many images.")]


def diff_table1(
    seeds: Annotated[int, option("N", "How many seeds each network is trained with.", 1)] = 3,
    quick: Quick = True,
    out: TableOut = Path("camlucida-out/diff-table1"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 1: accuracy with true salience, with SHAM and without, on small networks."""
    _finish("diff-table1", out, as_json, seeds=range(seeds), quick=quick)


@takes_model
def diff_table2(
    context: typer.Context,
    model: AttackedModel = NOBODY,
    data: Data = None,
    layer: AttackedLayer = None,
    count: Count = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: TableOut = Path("camlucida-out/diff-table2"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 2: how far its maps are from Grad-CAM's."""
    case = _case(context, model, data, layer, count, device, quick)
    _finish("diff-table2", out, as_json, case, quick=quick, seed=seed)


@takes_model
def diff_table3(
    context: typer.Context,
    model: AttackedModel = NOBODY,
    data: Data = None,
    layer: AttackedLayer = None,
    epochs: Annotated[
        int | None, option("N", "How many epochs the fine-tuning with SHAM takes.", 1)
    ] = None,
    lr: Annotated[
        float | None, option("X", "The learning rate of the fine-tuning with SHAM.")
    ] = None,
    count: Count = None,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: TableOut = Path("camlucida-out/diff-table3"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 3: how far SHAM fine-tuning moves the maps of five methods."""
    from camlucida.audits.fooling.audit import QUICK_ATTACK
    from camlucida.audits.fooling.tune import Attack

    case = _case(context, model, data, layer, count, device, quick)
    given = {"epochs": epochs, "learning_rate": lr}
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    attack = replace(QUICK_ATTACK if model.name is None else Attack(), **changed)
    _finish("diff-table3", out, as_json, case, attack=attack, quick=quick, seed=seed)


def _finish(
    table: str,
    out: Path,
    as_json: bool,
    case: Callable[[], FoolingCase | None] | None = None,
    **options: Any,
) -> None:
    from camlucida.studies.published import reproduce

    def run(say: Say) -> Any:
        inputs = () if case is None else (case(),)
        return reproduce(table, *inputs, out=out, say=say, **options)

    finish(run, out, as_json=as_json)


def _case(
    context: typer.Context,
    model: Chosen,
    data: str | None,
    layer: str | None,
    count: int | None,
    device: str | None,
    quick: bool,
) -> Callable[[], FoolingCase | None]:
    """Opens half of the photos to fool the model with, half to explain; ``None`` is the small network."""
    if model.name is None:
        refuse_unused(context, (*DETAILS, "data", "layer", "count", "device"), "with --model")

    def opened() -> FoolingCase | None:
        from camlucida.studies.published.diff_tables import case_of

        if model.name is None:
            return None
        loaded, inputs, labels, name = labelled_case(model, data, count, device, quick=quick)
        chosen = explained_layer(loaded, inputs, layer)
        taught, shown = (inputs[::2], labels[::2]), (inputs[1::2], labels[1::2])
        return case_of(
            loaded.module, taught, shown, chosen, name=name, preprocess=loaded.preprocess
        )

    return opened
