"""``camlucida reproduce fame-table1``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.reproduce.ending import finish
from camlucida.cli.shared.console import complain
from camlucida.cli.shared.device import on_device
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    BACKBONES,
    PAIR_LISTS,
    Aligned,
    AsJson,
    Device,
    Preset,
    Seed,
    TableOut,
    layout_option,
    methods_option,
    option,
    refuse_unused,
    split_option,
)
from camlucida.common.progress import Say, part

if TYPE_CHECKING:
    from camlucida.studies.published import FameTable1


def fame_table1(
    context: typer.Context,
    data: Annotated[
        Path | None,
        option("FOLDER|FILE", f"The pairs: {PAIR_LISTS}"),
    ] = None,
    layout: Annotated[str, layout_option("--data")] = "auto",
    split: Annotated[int | None, split_option("--data")] = None,
    standin: Annotated[
        bool,
        typer.Option(
            "--standin",
            help="Run it offline: compare photos of people with computed variations of them (glasses, scarf, low "
            "resolution, turned, other light).",
        ),
    ] = False,
    photos: Annotated[
        Path | None,
        option(
            "DIR",
            "With --standin: a folder with photos IDENTITY/photo.jpg, or the folder that packages with photos "
            "were fetched into. (default: the 4 people in this package)",
        ),
    ] = None,
    people: Annotated[
        int | None, option("N", "With --standin: use at most this many people.", 2)
    ] = None,
    per_person: Annotated[
        int, option("N", "With --standin: make this many genuine pairs per person.", 1)
    ] = 2,
    backbone: Annotated[str, option("NAME[:FILE]", BACKBONES)] = "dlib",
    preset: Preset = None,
    method: Annotated[
        list[str] | None,
        methods_option("the five of the table"),
    ] = None,
    iterations: Annotated[
        int | None,
        option(
            "N", "How many steps FAME takes. (default: 500, as published; 20 with --standin)", 1
        ),
    ] = None,
    aligned: Aligned = False,
    limit: Annotated[
        int | None, option("N", "Use at most this many pairs, half of them genuine.", 2)
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option(
            "--legacy",
            help="Stop FAME at a loss of 0.01 on the batch's mean, scale its maps and round the threshold as the "
            "authors' scripts did.",
        ),
    ] = False,
    grid: Annotated[
        bool,
        typer.Option("--grid/--no-grid", help="Also draw FAME's figure 3: methods and variations."),
    ] = True,
    seed: Seed = 0,
    device: Device = None,
    out: TableOut = Path("camlucida-out/fame-table1"),
    as_json: AsJson = False,
) -> None:
    """FAME, Table 1: which maps of face pairs name the pixels that decide.

    [bold]camlucida reproduce fame-table1 --data CFP --backbone iresnet101:adaface.ckpt --split 1[/]
    """
    from camlucida.faces.load import load_embedder
    from camlucida.faces.photos import how_to_get
    from camlucida.studies.published.fame_table1 import MANY
    from camlucida.studies.published.fame_table1 import fame_table1 as again

    if standin and data is None:
        refuse_unused(context, ("layout", "split", "aligned"), "with --data")
    elif data is not None and not standin:
        refuse_unused(context, ("photos", "people", "per_person"), "with --standin")
    known_methods(method or ())
    embedder = load_embedder(backbone, preset=preset, device=on_device(device))

    def run(say: Say) -> FameTable1:
        found = again(
            data,
            embedder,
            standin=standin,
            photos=photos,
            layout=layout,
            split=split,
            methods=method,
            iterations=iterations,
            people=people,
            per_person=per_person,
            aligned=aligned,
            limit=limit,
            out=out / "run",
            seed=seed,
            legacy=legacy,
            with_grid=grid,
            progress=part(say, "explaining pairs"),
        )
        if found.data == "standin" and found.facts["people"] < MANY and photos is None:
            complain(
                f"for more people fetch packages with photos: {'; '.join(how_to_get().splitlines())}"
            )
        return found

    finish(run, out, as_json=as_json)
