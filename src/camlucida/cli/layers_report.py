"""``camlucida layers-report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.shared.console import console, print_json, progress_bar, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    ClassName,
    CopiesSeed,
    Device,
    IcamMethod,
    Layers,
    Model,
    Out,
    Photo,
)
from camlucida.cli.shared.photos import Names
from camlucida.cli.shared.writing import out_folder, write
from camlucida.common.errors import MethodError

if TYPE_CHECKING:
    from camlucida.methods.icam import ICAM


def layers_report(
    photo: Photo,
    model: Model = "embedded",
    architecture: Architecture = None,
    class_: ClassName = None,
    layer: Layers = None,
    runs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Draws of the perturbed copies; gives spreads.")
    ] = 1,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Which layers a prediction comes from, by Integrative CAM: scores, weights and maps.

    Written are the maps of all layers with their weights (.layers.png), the bar chart (.layers-bars.png), the maps
    (.npz) and the numbers (.json).
    """
    from dataclasses import replace

    from camlucida.common.jsonable import to_json
    from camlucida.explanation.explain import explain
    from camlucida.models import load_model
    from camlucida.studies.icam import LayerReport

    wanted = icam_method(method)
    if runs > 1:
        wanted = replace(wanted, runs=runs)
    loaded = load_model(model, architecture=architecture, device=device)
    with out_folder(out), progress_bar() as bar:
        task = bar.add_task("explaining", total=None)
        explanation = explain(
            loaded,
            str(photo),
            method=wanted,
            target=class_,
            layers=layer or None,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        report = LayerReport.of(explanation)
        document = {
            "path": shown(photo.resolve()),
            "photo": shown(photo),
            "model": loaded.name,
            **explanation.record(),
            **report.to_dict(),
        }
        stem = Names(out, ".layers").take(photo)
        figure, bars = report.figure(), report.bars()
        files = [
            write(out / f"{stem}.png", lambda p: figure.savefig(p, dpi=130)),
            write(out / f"{stem}-bars.png", lambda p: bars.savefig(p, dpi=130)),
            write(out / f"{stem}.npz", explanation.save),
            write(
                out / f"{stem}.json", lambda p: p.write_text(to_json(document), encoding="utf-8")
            ),
        ]
    if as_json:
        print_json(document)
        return
    console().print(report)
    for message in document["messages"]:
        console().print(message, markup=False)
    for file in files:
        console().print(shown(file), markup=False, soft_wrap=True)


def icam_method(text: str) -> ICAM:
    """I-CAM with its options from ``icam:key=value,...``.

    Raises:
        MethodError: It is another method, or an option is wrong.
    """
    from camlucida.methods import ICAM, build

    method, _ = build(text)
    if not isinstance(method, ICAM):
        raise MethodError(f"layers are weighed by I-CAM only; write icam:key=value, got {text!r}")
    return method
