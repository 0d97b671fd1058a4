"""``camlucida examples``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import print_result, progress
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    AsJson,
    Device,
    FusedLayers,
    MethodsSeed,
    OneMethod,
    Photo,
    batch_option,
    option,
    out_option,
)
from camlucida.cli.shared.photos import Names, exact
from camlucida.cli.shared.writing import out_folder, write_figure, write_json


@takes_model
def examples(
    photo: Photo,
    train: Annotated[
        Path,
        option(
            "FOLDER", "The training photos, in one subfolder per class: FOLDER/CLASS/photo.jpg."
        ),
    ],
    model: Model = EMBEDDED,
    true: Annotated[
        str | None,
        option("CLASS", "The true class of the photo, by name or index."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="A further class to find neighbours in, by name or index; repeat the option for several.",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("-k", metavar="N", min=1, help="How many neighbours to show per class.")
    ] = 5,
    layer: FusedLayers = None,
    method: OneMethod = "gradcam",
    seed: MethodsSeed = 0,
    device: Device = None,
    batch_size: Annotated[int, batch_option("training photos")] = 8,
    out: Annotated[
        Path,
        out_option("The folder where the results and the features of the training photos go."),
    ] = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Explain a prediction by the training photos that are most alike where the map lights up.

    For the predicted class and others that are given, such as the true one, the nearest training photos of that class
    are drawn with their maps beside the photo. The features of the training photos are kept beside the results, so
    that a second photo is fast. Ctrl-C keeps what is done.
    """
    from camlucida.studies.icam import examples as nearest_examples

    (method,) = known_methods([method])
    loaded = model.load(device)
    with out_folder(out), progress("training photos") as advance:
        found = nearest_examples(
            loaded,
            photo,
            train,
            true=true,
            classes=class_ or (),
            k=k,
            method=method,
            layers=layer or None,
            seed=seed,
            cache=out,
            batch_size=batch_size,
            progress=advance,
        )
        document = {"path": exact(photo), "model": loaded.name, **found.to_dict()}
        stem = Names(out, loaded.name, ".examples").take(photo)
        files = [
            write_figure(out / f"{stem}.png", found.figure()),
            write_json(out / f"{stem}.json", document),
        ]
    print_result(found, document, files, as_json=as_json, skipped=found.skipped)
