"""``camlucida demo``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from camlucida.cli.shared.console import console, print_lines, shown
from camlucida.cli.shared.options import out_option
from camlucida.cli.shared.writing import write

_CELL = 400  # pixels of a photo's longer side in the overview
_METHODS = ("gradcam", "gradcam++", "layercam", "eigencam", "fullgrad", "diffgradcam")


def demo(
    out: Annotated[
        Path, out_option("The folder where pictures, maps and records are written.")
    ] = Path("camlucida-demo"),
) -> None:
    """Explain the pictures of this package with several methods; this needs no network."""
    from camlucida.cli.shared.job import Job, Outcome, check, run
    from camlucida.cli.shared.results import show
    from camlucida.data import picture
    from camlucida.data.offline_photos import picture_names
    from camlucida.models import load_model
    from camlucida.targets import Logit

    loaded = load_model("embedded")
    targets = {"predicted": check(loaded, Logit(), [], None)}
    job = Job(loaded, _METHODS, targets, [], None, 0, 3, out)
    outcome = Outcome()
    photos = [picture(name).path for name in picture_names()]
    run(job, photos, outcome)
    terminal = console()
    show(outcome.done, out, terminal)
    if outcome.done and not outcome.interrupted:
        print_lines(f"All in one: {shown(_overview(outcome.done, out))}")
    raise typer.Exit(outcome.exit_code)


def _overview(records: Sequence[dict[str, Any]], out: Path) -> Path:
    """One picture of all photos and methods, made of the overlays."""
    from PIL import Image

    from camlucida.data import read_image
    from camlucida.explanation import overlays

    pictures, rows = [], []
    for record in records:
        photo = read_image(record["path"])
        photo.thumbnail((_CELL, _CELL))
        drawn = [read_image(method["files"]["overlay"]) for method in record["methods"]]
        pictures.append([photo, *(o.resize(photo.size, Image.Resampling.LANCZOS) for o in drawn)])
        top = record["predictions"][0]
        rows.append(f"{top['name'].partition(',')[0]} {top['probability']:.0%}")
    columns = ["photo", *(method["label"] for method in records[0]["methods"])]
    figure = overlays.grid(pictures, columns=columns, rows=rows)
    picture = overlays.png(figure)
    return write(out / "demo.png", lambda path: path.write_bytes(picture))
