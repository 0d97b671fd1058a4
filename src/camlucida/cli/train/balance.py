"""``camlucida train balance``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import print_json, print_lines, shown
from camlucida.cli.shared.options import AsJson, option, out_option, seed_option


def balance(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder with train, val and test, each with a subfolder for each class; or with subfolders for "
            "classes, whose photos are dealt to the three.",
        ),
    ],
    out: Annotated[Path, out_option("The new folder, with train, val, test and maps.")],
    maps: Annotated[
        Path | None,
        option("DIR", "People's maps: a grey picture or .npy file for each photo to train on."),
    ] = None,
    train: Annotated[int, option("N", "Photos of each class to train on.", 1)] = 193,
    val: Annotated[int, option("N", "Photos of each class to choose the epoch by.", 1)] = 500,
    test: Annotated[int, option("N", "Photos of each class to test on.", 1)] = 11_592,
    seed: Annotated[int, seed_option("the draw")] = 0,
    as_json: AsJson = False,
) -> None:
    """Resample photos to equal classes, with the sizes of the published Iris PAD experiment.

    A class with fewer photos than asked for gives some of them several times. Files are linked, not copied, where the
    disk allows it.

    [bold]camlucida train balance iris-all --maps annotations --out iris[/]
    [bold]camlucida reproduce diff-table1 --data iris --maps iris/maps[/]
    """
    from camlucida.data.balance import balance as resample

    found = resample(data, out, {"train": train, "val": val, "test": test}, maps=maps, seed=seed)
    if as_json:
        print_json({"folder": shown(out), "photos": found})
        return
    for part, classes in found.items():
        different = ", ".join(f"{name} {several:,}" for name, (_, several) in classes.items())
        each = next(iter(classes.values()))[0]
        print_lines(
            f"{part}: {each:,} photos of each of {len(classes)} classes; different ones: {different}"
        )
    print_lines(out)
