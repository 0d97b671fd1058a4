"""``camlucida cases``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.layers_report import icam_method
from camlucida.cli.shared.console import complain, console, print_json, progress_bar, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    BatchSize,
    CopiesSeed,
    Device,
    IcamMethod,
    Model,
    Out,
)
from camlucida.cli.shared.writing import out_folder, write


def cases(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Labelled photos: FOLDER/CLASS/photo.jpg.")
    ],
    model: Model = "embedded",
    architecture: Architecture = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Columns file, xmin, ymin, xmax, ymax, in pixels of the photo."
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="P", help="Confident from this probability on.")
    ] = 0.5,
    most: Annotated[int, typer.Option(metavar="N", min=1, help="Photos shown per case.")] = 24,
    dial: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Photos whose confidence is dialled up and down."),
    ] = 8,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Four cases: confident or unsure, right or wrong, each with its photos and I-CAM maps on one page.

    The page (cases.html) also plots how patchy the maps are against confidence, with I-CAM's numerics varied;
    the numbers are in cases.json. Ctrl-C keeps what is done, in parts/; the same command goes on from there.
    """
    from camlucida.common.jsonable import to_json
    from camlucida.models import load_model
    from camlucida.studies.icam import cases as four_cases

    wanted = icam_method(method)
    loaded = load_model(model, architecture=architecture, device=device)
    with out_folder(out), progress_bar() as bar:
        task = bar.add_task("explaining", total=None)
        study = four_cases(
            loaded,
            folder,
            boxes=boxes,
            threshold=threshold,
            method=wanted,
            seed=seed,
            dial=dial,
            batch_size=batch_size,
            cache=out,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        document = {"folder": shown(folder), **study.to_dict()}
        page, figure = study.html(most), study.figure()
        files = [
            write(out / "cases.html", lambda p: p.write_text(page, encoding="utf-8")),
            write(out / "cases.patchiness.png", lambda p: figure.savefig(p, dpi=130)),
            write(out / "cases.json", lambda p: p.write_text(to_json(document), encoding="utf-8")),
        ]
    for _, reason in study.skipped:
        complain(f"left out: {reason}")
    if as_json:
        print_json(document)
        return
    console().print(study)
    for file in files:
        console().print(shown(file), markup=False, soft_wrap=True)
