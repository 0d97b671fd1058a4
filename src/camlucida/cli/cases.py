"""``camlucida cases``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import print_result, progress, shown
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    ClassFolder,
    Device,
    FusedLayers,
    MethodsSeed,
    OneMethod,
    Out,
    option,
)
from camlucida.cli.shared.writing import claim, out_folder, write_figure, write_json, write_text


@takes_model
def cases(
    folder: ClassFolder,
    model: Model = EMBEDDED,
    method: OneMethod = "gradcam",
    explain: Annotated[
        str,
        option(
            "CLASS", "The class that is explained: predicted, label, or one class by name or index."
        ),
    ] = "predicted",
    layer: FusedLayers = None,
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
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="For research, with --method icam: also study what I-CAM's numerics do to its maps, and change "
            "the confidence of so many photos by a constant added to the explained logit. (default: no study)",
        ),
    ] = None,
    seed: MethodsSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Where did the model go wrong? Photos in four cases: sure or unsure, right or wrong, each with its map.

    The page is cases.html, and the numbers are in cases.json. Ctrl-C keeps what is done, in parts/; the same command
    goes on from there.

    [bold]camlucida cases photos/ --method gradcam --explain label[/]
    """
    from camlucida.studies.icam import cases as sorted_cases

    (method,) = known_methods([method])
    loaded = model.load(device)
    claim(out, loaded.name, "cases")
    with out_folder(out), progress("explaining") as advance:
        study = sorted_cases(
            loaded,
            folder,
            boxes=boxes,
            threshold=threshold,
            method=method,
            explain=explain,
            layers=layer or None,
            seed=seed,
            dial=dial,
            batch_size=batch_size,
            cache=out,
            progress=advance,
        )
        document = {"folder": shown(folder), **study.to_dict()}
        files = [write_text(out / "cases.html", study.html(most))]
        if study.has_numerics:
            files.append(write_figure(out / "cases.patchiness.png", study.figure()))
        files.append(write_json(out / "cases.json", document))
    print_result(study, document, files, as_json=as_json, skipped=study.skipped)
