"""``camlucida reproduce fame-table1``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.reproduce.ending import finish
from camlucida.cli.shared.console import complain
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
        typer.Option(metavar="FOLDER|FILE", help=f"{PAIR_LISTS[0].upper()}{PAIR_LISTS[1:]}"),
    ] = None,
    layout: Annotated[str, layout_option("--data")] = "auto",
    split: Annotated[int | None, split_option("--data")] = None,
    standin: Annotated[
        bool,
        typer.Option(
            "--standin",
            help="Run it offline: photos of people against computed variations of them (glasses, scarf, low "
            "resolution, turned, other light).",
        ),
    ] = False,
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --standin: a folder IDENTITY/photo.jpg, or the folder that packages with photos were fetched "
            "into. (default: the 4 people in this package)",
        ),
    ] = None,
    people: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="With --standin: that many at most.")
    ] = None,
    per_person: Annotated[
        int, typer.Option(min=1, metavar="N", help="With --standin: genuine pairs per person.")
    ] = 2,
    backbone: Annotated[str, typer.Option(metavar="NAME[:FILE]", help=BACKBONES)] = "dlib",
    preset: Preset = None,
    method: Annotated[
        list[str] | None,
        methods_option("the five of the table"),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Of FAME. (default: 500 as published; 20 with --standin)"),
    ] = None,
    aligned: Aligned = False,
    limit: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Pairs, half of them genuine.")
    ] = None,
    round_theta: Annotated[
        bool,
        typer.Option("--round-theta", help="Round the threshold as the authors' scripts did."),
    ] = False,
    grid: Annotated[
        bool, typer.Option("--grid/--no-grid", help="Also their figure 3: methods and variations.")
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
    from camlucida.methods import build
    from camlucida.studies.published.fame_table1 import MANY
    from camlucida.studies.published.fame_table1 import fame_table1 as again

    if standin and data is None:
        refuse_unused(context, ("layout", "split", "aligned"), "with --data")
    elif data is not None and not standin:
        refuse_unused(context, ("photos", "people", "per_person"), "with --standin")
    for text in method or ():
        build(text)  # now, so that no model is loaded for a wrong word
    embedder = load_embedder(backbone, preset=preset, device=device)

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
            already_aligned=aligned,
            limit=limit,
            out=out / "run",
            seed=seed,
            round_theta=round_theta,
            with_grid=grid,
            progress=part(say, "explaining pairs"),
        )
        if found.data == "standin" and found.facts["people"] < MANY and photos is None:
            complain(
                f"for more people fetch packages with photos: {'; '.join(how_to_get().splitlines())}"
            )
        return found

    finish(run, out, as_json=as_json)
