"""``camlucida examples``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.layers_report import icam_method
from camlucida.cli.shared.console import complain, console, print_json, progress_bar, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    CopiesSeed,
    Device,
    IcamMethod,
    Layers,
    Model,
    Photo,
    batch_option,
    out_option,
)
from camlucida.cli.shared.photos import Names
from camlucida.cli.shared.writing import out_folder, write


def examples(
    photo: Photo,
    train: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Training photos: FOLDER/CLASS/photo.jpg."),
    ],
    model: Model = "embedded",
    architecture: Architecture = None,
    true: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The photo's true class, name or index.")
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Neighbours per class.")] = 5,
    layer: Layers = None,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    batch_size: Annotated[int, batch_option("Training photos")] = 8,
    out: Annotated[Path, out_option("Where results go, and the cache of features.")] = Path(
        "camlucida-out"
    ),
    as_json: AsJson = False,
) -> None:
    """Explain a prediction by the training images that are most alike where I-CAM looks.

    For the predicted class and, if given, the true one: the nearest training photos of that class, drawn
    with their maps beside the photo. The features of the training photos are kept beside the results, so
    that a second photo is fast; Ctrl-C keeps what is done.
    """
    from camlucida.common.jsonable import to_json
    from camlucida.models import load_model
    from camlucida.studies.icam import examples as nearest_examples

    wanted = icam_method(method)
    loaded = load_model(model, architecture=architecture, device=device)
    with out_folder(out), progress_bar() as bar:
        task = bar.add_task("training photos", total=None)
        found = nearest_examples(
            loaded,
            photo,
            train,
            true=true,
            k=k,
            method=wanted,
            layers=layer or None,
            seed=seed,
            cache=out,
            batch_size=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        document = {"path": shown(photo.resolve()), "model": loaded.name, **found.to_dict()}
        stem = Names(out, ".examples").take(photo)
        figure = found.figure()
        files = [
            write(out / f"{stem}.png", lambda p: figure.savefig(p, dpi=130)),
            write(
                out / f"{stem}.json", lambda p: p.write_text(to_json(document), encoding="utf-8")
            ),
        ]
    for _, reason in found.skipped:
        complain(f"left out: {reason}")
    if as_json:
        print_json(document)
        return
    console().print(found)
    for file in files:
        console().print(shown(file), markup=False, soft_wrap=True)
