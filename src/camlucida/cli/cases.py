"""``camlucida cases``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from camlucida.cli.shared.console import print_result, progress, shown
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    ClassFolder,
    CopiesSeed,
    Device,
    IcamMethod,
    Out,
    option,
)
from camlucida.cli.shared.writing import claim, out_folder, write_figure, write_json, write_text


@takes_model
def cases(
    folder: ClassFolder,
    model: Model = EMBEDDED,
    boxes: Annotated[
        Path | None,
        option(
            "CSV",
            "A table of boxes with the columns file, xmin, ymin, xmax, ymax, in pixels of the photo.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        option("P", "A prediction is confident if its probability is at or above this."),
    ] = 0.5,
    most: Annotated[int, option("N", "Show at most this many photos per case.", 1)] = 24,
    dial: Annotated[
        int,
        option(
            "N",
            "For how many photos the confidence is raised and lowered, by a constant added to the explained logit.",
            0,
        ),
    ] = 8,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Sort photos into four cases, confident or unsure and right or wrong, each with its I-CAM maps.

    The page (cases.html) also plots how patchy the maps are against confidence, with I-CAM's numerics varied. The
    numbers are in cases.json. Ctrl-C keeps what is done, in parts/; the same command goes on from there.
    """
    from camlucida.methods import ICAM, build_as
    from camlucida.studies.icam import cases as study_cases

    wanted = build_as(ICAM, method)
    loaded = model.load(device)
    claim(out, loaded.name, "cases")
    with out_folder(out), progress("explaining") as advance:
        study = study_cases(
            loaded,
            folder,
            boxes=boxes,
            threshold=threshold,
            method=wanted,
            seed=seed,
            dial=dial,
            batch_size=batch_size,
            cache=out,
            progress=advance,
        )
        document = {"folder": shown(folder), **study.to_dict()}
        files = [
            write_text(out / "cases.html", study.html(most)),
            write_figure(out / "cases.patchiness.png", study.figure()),
            write_json(out / "cases.json", document),
        ]
    print_result(study, document, files, as_json=as_json, skipped=study.skipped)
