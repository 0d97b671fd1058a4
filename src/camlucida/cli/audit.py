"""``camlucida audit``: can this explanation be a lie?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.console import console, print_json, progress_bar, shown
from camlucida.cli.writing import out_folder
from camlucida.errors import CamlucidaError

if TYPE_CHECKING:
    from camlucida.audits.base import AuditReport
    from camlucida.models import LoadedModel

audit = typer.Typer(
    help="Put explanation methods to the test: a verdict in plain words for each.",
    no_args_is_help=True,
)

Quick = Annotated[
    bool,
    typer.Option(
        "--quick/--full",
        help="A few minutes on two cores, or the whole table. Both go on where they stopped.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where report and finished parts go.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything that is drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@audit.callback()
def _audit() -> None:
    """Put explanation methods to the test: a verdict in plain words for each."""


@audit.command()
def deadzone(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME|FILE",
            help="As for camlucida explain, or masked-vgg:FILE. (default: small networks that are trained now)",
        ),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a checkpoint file.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Photos; with a folder for each class, pairs of a class are stacked (STACK-MIX).",
        ),
    ] = None,
    wall: Annotated[
        str | None,
        typer.Option(
            metavar="WALL",
            help="What is hidden: rows:170-223, cols:0-20 or box:ROWS,COLUMNS of the input, or of a layer's map: "
            "rows:5-6@layer4.",
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="The explained layer. (default: the wall's, or the last)")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME", help="Only these; all by default.")
    ] = None,
    stack: Annotated[
        bool, typer.Option("--stack/--no-stack", help="Whether class folders are stacked.")
    ] = True,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Images at most.")] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images at a time.")] = 16,
    device: Annotated[str | None, typer.Option(metavar="D", help="Such as cuda.")] = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Do methods light up what the model provably cannot see?

    Without a model, three small networks are trained on digits on photos (a masked one, its unmasked twin, a
    residual one). With one, it is put behind a wall, without training. What is dead is proved first.
    """
    from camlucida.audits.deadzone.audit import audit_dead_zone, audit_dead_zone_stand_ins

    with out_folder(out), telling() as say:
        if model is None:
            if data is not None or wall is not None or layer is not None:
                raise CamlucidaError("--data, --wall and --layer go with --model")
            report = audit_dead_zone_stand_ins(
                methods=method, count=count, quick=quick, seed=seed, folder=out, say=say
            )
        else:
            loaded = _load(model, architecture, device)
            report = audit_dead_zone(
                loaded,
                _images(loaded, data, wall, count or (20 if quick else 100), seed, stack=stack),
                wall=wall,
                layer=layer,
                methods=method,
                count=count,
                quick=quick,
                seed=seed,
                batch_size=batch_size,
                folder=out,
                say=say,
            )
    finish(report, out, as_json=as_json)


@audit.command()
def theory(
    quick: Quick = True,
    seed: Seed = 0,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Why weights for whole channels see through walls: proposition, theorem and digits, computed and drawn."""
    from camlucida.audits.theory_audit import audit_theory

    with out_folder(out), telling() as say:
        report = audit_theory(quick=quick, seed=seed, folder=out, say=say)
    finish(report, out, as_json=as_json)


def _load(model: str, architecture: str | None, device: str | None) -> LoadedModel:
    from camlucida.models import load_model
    from camlucida.models.masked_vgg import load_masked_vgg

    kind, _, file = model.partition(":")
    if kind != "masked-vgg":
        return load_model(model, architecture=architecture, device=device)
    loaded = load_masked_vgg(file)
    if device is not None:
        loaded.module.to(device)
    return loaded


def _images(
    loaded: LoadedModel, data: Path | None, wall: str | None, count: int, seed: int, *, stack: bool
) -> Any:
    """Photos: stacked pairs where the data have class folders and the dead part is known, else as they are."""
    from camlucida.audits.deadzone.audit import dead_zone, region_of
    from camlucida.data import find_images
    from camlucida.data.pictures import names, picture
    from camlucida.data.stack_mix import StackMix
    from camlucida.models.walls import Wall

    if data is None:
        return [picture(name) for name in names()][:count]
    photos = find_images(data)
    labelled = stack and data.is_dir() and all(path.parent != data for path in photos)
    if not labelled or loaded.preprocess is None:
        return list(photos)[:count]
    height, width = loaded.preprocess.size
    stands = Wall.parse(wall) if wall else None
    region = stands.region if stands and stands.layer is None else None
    if stands is None:
        region = region_of(dead_zone(loaded, (height, width), draws=2))
    if region is None or height != width:
        return list(photos)[:count]
    resize = loaded.preprocess.resize
    return StackMix(
        data,
        loaded.class_names,
        dead=region,
        size=height,
        resize=resize if isinstance(resize, int) else None,
        count=count,
        seed=seed,
    )


@contextmanager
def telling() -> Iterator[Callable[[str, float, float], None]]:
    """A bar whose text and length follow what an audit says of its progress."""
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)

        def say(what: str, done: float, total: float) -> None:
            bar.update(task, description=what, completed=int(done), total=int(total) or 1)

        yield say


def finish(report: AuditReport, out: Path, *, as_json: bool) -> None:
    """Write an audit's page, record and pictures, and print the verdicts or one JSON document."""
    files = report.save(out)
    if as_json:
        print_json(report.to_dict())
        return
    place = console()
    place.print(report.summary, soft_wrap=True)
    if report.verdicts:
        place.print(report)
    for file in files:
        place.print(shown(file), markup=False, soft_wrap=True)
