"""``camlucida cells``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import console, print_json, print_table, progress_bar, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    Device,
    Model,
    Out,
    Photo,
    batch_option,
    layer_option,
    refuse_unused,
)
from camlucida.cli.shared.photos import Names
from camlucida.cli.shared.writing import out_folder, write
from camlucida.common.jsonable import to_json

if TYPE_CHECKING:
    from camlucida.studies.fame import CellAnalysis


def cells(
    context: typer.Context,
    photo: Photo,
    layer: Annotated[
        str | None, layer_option("the last feature map", "With --depth several, as in A,B.")
    ] = None,
    model: Model = "embedded",
    architecture: Architecture = None,
    iterations: Annotated[int, typer.Option(metavar="N", min=1, help="FAME steps per cell.")] = 75,
    depth: Annotated[
        bool,
        typer.Option("--depth", help="A few cells of every resolution instead: the depth curve."),
    ] = False,
    most: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --depth: cells per layer, spread evenly.")
    ] = 16,
    batch_size: Annotated[int, batch_option("Without --depth: cells")] = 49,
    device: Device = None,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Does a cell of a feature map look at the patch under it? One FAME map per cell.

    Class activation maps are enlarged as if it did. Written are the tiled picture with the patches framed
    in white, the maps (.npz) and the numbers (.json): how much of a cell's attribution lies on its patch, how
    far away and how wide the rest is, and the receptive field.
    """
    from camlucida.methods import FAME
    from camlucida.models import load_model
    from camlucida.studies.fame import cells as analyse_cells
    from camlucida.studies.fame import cells_table, depth_curve, depth_figure

    if depth:
        refuse_unused(context, ("batch_size",), "without --depth")
    else:
        refuse_unused(context, ("most",), "with --depth")
    loaded = load_model(model, architecture=architecture, device=device)
    fame = FAME(iterations=iterations)
    with out_folder(out), progress_bar() as bar:
        task = bar.add_task("layers" if depth else "cells", total=None)

        def progress(done: float, total: float) -> None:
            bar.update(task, completed=int(done), total=int(total))

        source = str(photo)
        names = Names(out, ".depth" if depth else ".cells")
        if depth:
            found = depth_curve(
                loaded,
                source,
                None if layer is None else layer.split(","),
                method=fame,
                most=most,
                progress=progress,
            )
            figure = depth_figure(found)
        else:
            found = [
                analyse_cells(
                    loaded, source, layer, method=fame, batch_size=batch_size, progress=progress
                )
            ]
            figure = found[0].figure()
        stem = names.take(photo)
        document = {
            "path": shown(photo.resolve()),
            "photo": shown(photo),
            "model": loaded.name,
            "layers": [a.to_dict() for a in found],
        }
        files = [
            write(out / f"{stem}.png", lambda p: figure.savefig(p, dpi=130)),
            write(out / f"{stem}.npz", lambda p: _save_maps(p, found)),
            write(
                out / f"{stem}.json", lambda p: p.write_text(to_json(document), encoding="utf-8")
            ),
        ]
    if as_json:
        print_json(document)
        return
    print_table(console(), cells_table(found))
    for file in files:
        console().print(shown(file), markup=False, soft_wrap=True)


def _save_maps(path: Path, analyses: list[CellAnalysis]) -> None:
    import numpy as np

    arrays: dict[str, Any] = {a.layer: a.maps.numpy() for a in analyses}
    np.savez_compressed(path, **arrays)
