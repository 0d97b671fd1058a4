"""``camlucida cells``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import print_result, progress, shown
from camlucida.cli.shared.model import EMBEDDED, Chosen, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    Device,
    Out,
    Photo,
    batch_option,
    layer_option,
    option,
    refuse_unused,
)
from camlucida.cli.shared.photos import Names, exact
from camlucida.cli.shared.writing import out_folder, write, write_figure, write_json
from camlucida.common.printable import distinct


@takes_model
def cells(
    context: typer.Context,
    photo: Photo,
    layer: Annotated[
        str | None,
        layer_option(
            "the last feature map",
            "The layer whose cells are explained; with --depth several layers, as in A,B.",
        ),
    ] = None,
    model: Model = EMBEDDED,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="NAME",
            help="Without --depth: another network, whose last feature map is drawn beside; repeat the option for "
            "several.",
        ),
    ] = None,
    method: Annotated[
        str, option("METHOD", "FAME with its options, as in fame:iterations=200.")
    ] = "fame:iterations=75",
    depth: Annotated[
        bool,
        typer.Option(
            "--depth",
            help="Draw the depth curve instead: a few cells of one layer of every resolution.",
        ),
    ] = False,
    most: Annotated[
        int,
        option("N", "With --depth: explain at most this many cells per layer, spread evenly.", 1),
    ] = 16,
    batch_size: Annotated[int, batch_option("cells (without --depth)")] = 49,
    device: Device = None,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Does a cell of a feature map look at the patch under it? Draw one FAME map per cell, of one network or several.

    Class activation maps are enlarged as if each cell saw only the patch under it. Writes the tiled picture with the
    patches framed in white, the maps (.npz) and the numbers (.json): how much of a cell's attribution lies on its
    patch, how far away and how wide the rest is, and the receptive field.
    """
    import numpy as np

    from camlucida.methods import FAME, build_as
    from camlucida.studies.fame import beside as side_by_side
    from camlucida.studies.fame import cells as analyse_cells
    from camlucida.studies.fame import cells_table, depth_curve, depth_figure

    if depth:
        refuse_unused(context, ("batch_size", "beside"), "without --depth")
    else:
        refuse_unused(context, ("most",), "with --depth")
    loaded, *others = (one.load(device) for one in (model, *map(Chosen, beside or ())))
    source, fame, networks = str(photo), build_as(FAME, method), list[str]()
    with out_folder(out), progress("layers" if depth else "cells") as advance:
        if depth:
            layers = None if layer is None else layer.split(",")
            found = depth_curve(loaded, source, layers, method=fame, most=most, progress=advance)
            figure = depth_figure(found)
        else:
            networks = distinct([loaded.name, *(one.name for one in others)]) if others else []
            found = [
                analyse_cells(net, source, at, method=fame, batch_size=batch_size, progress=advance)
                for net, at in zip((loaded, *others), (layer, *(None for _ in others)), strict=True)
            ]
            figure = side_by_side(dict(zip(networks or [""], found, strict=True)))
        stem = Names(out, loaded.name, ".depth" if depth else ".cells").take(photo)
        document = {
            "path": exact(photo),
            "photo": shown(photo),
            "model": loaded.name,
            "beside": [other.name for other in others],
            "layers": [a.to_dict() for a in found],
        }
        names = distinct([a.layer for a in found])
        maps = {name: a.maps.numpy() for name, a in zip(names, found, strict=True)}
        files = [
            write_figure(out / f"{stem}.png", figure),
            write(out / f"{stem}.npz", lambda p: np.savez_compressed(p, **maps)),  # type: ignore[arg-type]
            write_json(out / f"{stem}.json", document),
        ]
    print_result(cells_table(found, networks), document, files, as_json=as_json)
