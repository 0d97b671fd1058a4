"""``camlucida demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import console, print_lines, progress, shown
from camlucida.cli.shared.options import out_option
from camlucida.cli.shared.writing import write

if TYPE_CHECKING:
    from PIL import Image

    from camlucida.audits.report import AuditReport
    from camlucida.cli.shared.results import Records
    from camlucida.models import LoadedModel

_CELL = 400  # pixels of a photo's longer side in the overview
_PHOTOS = ("chelsea", "cheetah", "rocket")
_METHODS = ("gradcam", "fame:iterations=40", "icam:n_perturb=4")
_ABSENT = ("chelsea", "keeshond")  # a photo, and a class that nothing in it speaks for
_WALL = "rows:168-223"


def demo(
    out: Annotated[
        Path, out_option("The folder where pictures, maps and records are written.")
    ] = Path("camlucida-demo"),
) -> None:
    """Explain pictures of this package, and judge two methods on them; this needs no network.

    Shown are Grad-CAM, FAME and I-CAM; why one class and not the next one; a map that means nothing; and which of two
    methods lights up a part of the photos that the model provably cannot see.
    """
    from camlucida.cli.shared.job import Job, Outcome, check, run
    from camlucida.cli.shared.results import show
    from camlucida.data import picture
    from camlucida.models import load_model
    from camlucida.targets import Logit

    loaded = load_model("embedded")
    targets = {"predicted": check(loaded, Logit(), [], None)}
    job = Job(loaded, _METHODS, targets, [], None, 0, len(_PHOTOS), out)
    outcome = Outcome()
    run(job, [picture(name).path for name in _PHOTOS], outcome)
    show(outcome.done, out, console())
    if outcome.done and not outcome.interrupted:
        print_lines(f"\nAll in one: {shown(_overview(loaded, outcome.done, out))}")
        report = _behind_a_wall(loaded)
        page = report.save(out)[0]
        console().print(f"\n{report.title}", style="bold")
        print_lines(*(f"  {v.subject}: {v.outcome}. {v.text}" for v in report.verdicts))
        print_lines(f"The proof, with pictures: {shown(page)}")
    raise typer.Exit(outcome.exit_code)


def _overview(loaded: LoadedModel, records: Records, out: Path) -> Path:
    """One picture: of each photo the methods, and why its class and not the next one; and a map that means nothing."""
    from camlucida.data import picture, read_image
    from camlucida.explanation import explain, overlays
    from camlucida.targets import Logit, LogitMargin

    pictures, rows = [], []
    for record in records:
        first, second = record["predictions"][:2]
        margin = LogitMargin(first["index"], rivals=[second["index"]])
        why = explain(loaded, record["path"], target=margin, both_sides=True)
        drawn = [read_image(method["files"]["overlay"]) for method in record["methods"]]
        pictures.append([read_image(record["path"]), *drawn, why.overlay()])
        rows.append(f"{_short(first)}\nand not {_short(second)}")
    photo, absent = _ABSENT
    nothing = explain(loaded, picture(photo).path, target=Logit(absent))
    pictures.append([nothing.views[0].picture, nothing.overlay()])
    rows.append(f"asked for: {absent}")
    figure = overlays.grid(
        [[_small(one) for one in row] for row in pictures],
        columns=["photo", *(m["label"] for m in records[0]["methods"]), "why this, not that"],
        rows=rows,
        note="The model did not see the dark frame: it was cropped away. In the last column orange speaks for the "
        "first class, violet for the second.",
    )
    return write(out / "demo.png", lambda path: path.write_bytes(overlays.png(figure)))


def _behind_a_wall(loaded: LoadedModel) -> AuditReport:
    """Two methods on the model with the lower quarter of every photo hidden from it."""
    from camlucida.audits import audit_dead_zone
    from camlucida.data import picture
    from camlucida.data.offline_photos import picture_names

    photos = [picture(name).path for name in picture_names()]
    with progress("auditing") as bar:
        return audit_dead_zone(
            loaded,
            photos,
            wall=_WALL,
            methods=["gradcam++", "saliency"],
            say=lambda _, done, total: bar(done, total),
        )


def _short(prediction: dict[str, Any]) -> str:
    return f"{prediction['name'].partition(',')[0]} {prediction['probability']:.0%}"


def _small(picture: Image.Image) -> Image.Image:
    from PIL import Image

    share = _CELL / max(picture.size)
    size = (round(picture.width * share), round(picture.height * share))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
