"""``camlucida reproduce diff-table1 | diff-table2 | diff-table3``: the tables of DiffGradCAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.audit.sham import AttackedLayer, finish_with
from camlucida.cli.shared.opening import explained_layer, labelled_case
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    AttackedModel,
    Device,
    Seed,
    TableOut,
    count_option,
    refuse_unused,
)

if TYPE_CHECKING:
    from camlucida.audits.fooling.study import Case
    from camlucida.studies.published.base import Reproduced

Quick = Annotated[bool, typer.Option("--quick/--full", help="Of the small networks.")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA", help="Labelled photos, as camlucida evaluate takes them; with --model."
    ),
]
Count = Annotated[int | None, count_option(6, "Images at most; with --model.")]


_OF_A_MODEL = ("architecture", "data", "layer", "count", "device")


def diff_table1(
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="How many.")] = 3,
    quick: Quick = True,
    out: TableOut = Path("camlucida-out/diff-table1"),
    as_json: AsJson = False,
) -> None:
    """DiffGradCAM, Table 1: accuracy with true salience, with SHAM and without, on small networks."""
    from camlucida.studies.published.diff_tables import diff_table1 as work

    finish_with(
        lambda say: work(seeds=range(seeds), quick=quick, folder=out, say=say), out, as_json=as_json
    )


def diff_table2(
    context: typer.Context,
    model: AttackedModel = None,
    architecture: Architecture = None,
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
    from camlucida.studies.published.diff_tables import diff_table2 as work

    if model is None:
        refuse_unused(context, _OF_A_MODEL, "with --model")

    def run(say: Callable[[str, float, float], object]) -> Reproduced:
        case = _case(model, architecture, data, layer, count, device, quick)
        return work(case, quick=quick, seed=seed, folder=out, say=say)

    finish_with(run, out, as_json=as_json)


def diff_table3(
    context: typer.Context,
    model: AttackedModel = None,
    architecture: Architecture = None,
    data: Data = None,
    layer: AttackedLayer = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of SHAM.")] = None,
    lr: Annotated[float | None, typer.Option(metavar="X", help="Learning rate of SHAM.")] = None,
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
    from camlucida.studies.published.diff_tables import diff_table3 as work

    if model is None:
        refuse_unused(context, _OF_A_MODEL, "with --model")
    changed: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    changed |= {} if lr is None else {"learning_rate": lr}
    attack = replace(QUICK_ATTACK if model is None else Attack(), **changed)

    def run(say: Callable[[str, float, float], object]) -> Reproduced:
        case = _case(model, architecture, data, layer, count, device, quick)
        return work(case, attack=attack, quick=quick, seed=seed, folder=out, say=say)

    finish_with(run, out, as_json=as_json)


def _case(
    model: str | None,
    architecture: str | None,
    data: str | None,
    layer: str | None,
    count: int | None,
    device: str | None,
    quick: bool,
) -> Case | None:
    """Half of the photos to fool the model with, half to explain; ``None`` for the small network."""
    if model is None:
        return None
    from camlucida.studies.published.diff_tables import case_of

    loaded, inputs, labels, name = labelled_case(
        model, architecture, data, count, device, quick=quick
    )
    chosen = explained_layer(loaded, inputs, layer)
    taught, shown = (inputs[::2], labels[::2]), (inputs[1::2], labels[1::2])
    return case_of(loaded.module, taught, shown, chosen, name=name, preprocess=loaded.preprocess)
