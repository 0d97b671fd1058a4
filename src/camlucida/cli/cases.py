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
    refuse_unused,
)
from camlucida.cli.shared.writing import claim, out_folder, write_figure, write_json, write_text


@takes_model
def cases(
    context: typer.Context,
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
    train: Annotated[
        Path | None,
        option(
            "FOLDER",
            "A folder of training photos, FOLDER/CLASS/photo.jpg: beside each wrong prediction the nearest ones of the "
            "predicted and of the true class are shown, as camlucida examples finds them.",
        ),
    ] = None,
    nearest: Annotated[
        int, option("N", "With --train: how many training photos of either class.", 1)
    ] = 3,
    selection: Annotated[
        str,
        option(
            "all|paper",
            "Which photos: all, or those of the five classes of highest F1, the ten most confident of each.",
        ),
    ] = "all",
    seed: MethodsSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Where did the model go wrong? Photos in four cases: sure or unsure, right or wrong, each with its map.

    A wrong prediction has two maps, of the predicted and of the true class. The page is cases.html, and the numbers
    are in cases.json. Ctrl-C keeps what is done, in parts/; the same command goes on from there.

    [bold]camlucida cases photos/ --method gradcam --explain label[/]
    """
    from camlucida.studies.icam import cases as sorted_cases

    if train is None:
        refuse_unused(context, ("nearest",), "with --train")
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
            train=train,
            nearest=nearest,
            selection=selection,  # type: ignore[arg-type]
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
