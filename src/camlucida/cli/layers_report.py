"""``camlucida layers-report``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from rich.console import Group
from rich.text import Text

from camlucida.cli.shared.console import print_result, progress, shown
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    ClassName,
    CopiesSeed,
    Device,
    IcamMethod,
    Layers,
    Out,
    Photo,
    option,
)
from camlucida.cli.shared.photos import Names, exact
from camlucida.cli.shared.writing import out_folder, write, write_figure, write_json


@takes_model
def layers_report(
    photo: Photo,
    model: Model = EMBEDDED,
    class_: ClassName = None,
    layer: Layers = None,
    runs: Annotated[
        int,
        option("N", "How often the perturbed copies are drawn; more than once gives spreads.", 1),
    ] = 1,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Say which layers a prediction comes from, by Integrative CAM: scores, weights and maps.

    Writes the maps of all layers with their weights (.layers.png), the bar chart (.layers-bars.png), the maps
    (.npz) and the numbers (.json).
    """
    from camlucida.methods import ICAM, build_as
    from camlucida.studies.icam import layer_report

    wanted = build_as(ICAM, method)
    if runs > 1:
        wanted = replace(wanted, runs=runs)
    loaded = model.load(device)
    with out_folder(out), progress("explaining") as advance:
        report = layer_report(
            loaded,
            str(photo),
            class_,
            method=wanted,
            layers=layer or None,
            seed=seed,
            progress=advance,
        )
        document = {
            "path": exact(photo),
            "photo": shown(photo),
            "model": loaded.name,
            **report.explanation.record(),
            **report.to_dict(),
        }
        stem = Names(out, loaded.name, ".layers").take(photo)
        files = [
            write_figure(out / f"{stem}.png", report.figure()),
            write_figure(out / f"{stem}-bars.png", report.bars()),
            write(out / f"{stem}.npz", report.explanation.save),
            write_json(out / f"{stem}.json", document),
        ]
    found = Group(report, *map(Text, document["messages"]))
    print_result(found, document, files, as_json=as_json)
