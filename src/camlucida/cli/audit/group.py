"""``camlucida audit``: can this explanation be a lie?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import bars, complain, console, print_json, print_lines
from camlucida.cli.shared.model import DETAILS, NOBODY, Chosen, takes_model
from camlucida.cli.shared.opening import known_methods, photos_of
from camlucida.cli.shared.options import (
    AsJson,
    AuditOut,
    Command,
    Count,
    Device,
    ImageBatchSize,
    QuickTable,
    Seed,
    layer_option,
    methods_option,
    model_option,
    option,
    refuse_unused,
)
from camlucida.cli.shared.writing import claim, out_folder
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.audits import AuditReport
    from camlucida.data.samples import DataSet
    from camlucida.models import LoadedModel

audit = typer.Typer(
    help="Put explanation methods to the test, with a verdict in plain words for each.",
    no_args_is_help=True,
)


_OF_A_MODEL = (*DETAILS, "data", "wall", "layer", "stack", "batch_size", "device")


@audit.command(cls=Command)
@takes_model
def deadzone(
    context: typer.Context,
    model: Annotated[
        Chosen,
        model_option("(default: small networks that are trained now)"),
    ] = NOBODY,
    data: Annotated[
        str | None,
        option(
            "KIND|PATH",
            "The photos, as camlucida evaluate takes them. Of labelled photos, two of one class are put on top of each "
            "other, so that the hidden part holds the second one (STACK-MIX). (default: the pictures of this package)",
        ),
    ] = None,
    wall: Annotated[
        str | None,
        option(
            "WALL",
            "What is hidden from the model: rows:170-223, cols:0-20 or box:ROWS,COLUMNS of the input, or the same "
            "of a layer's map, as in rows:5-6@layer4.",
        ),
    ] = None,
    layer: Annotated[
        str | None, layer_option("the layer of the wall, or the last feature map")
    ] = None,
    method: Annotated[list[str] | None, methods_option("all")] = None,
    stack: Annotated[
        bool,
        typer.Option(
            "--stack/--no-stack", help="Stack pairs of labelled photos, or take them as they are."
        ),
    ] = True,
    count: Count = None,
    batch_size: ImageBatchSize = 16,
    device: Device = None,
    quick: QuickTable = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Do methods light up what the model provably cannot see?

    Without a model, three small networks are trained on digits on photos: a masked one, its unmasked twin and a
    residual one. A given model is put behind a wall, without training. What is dead is proved first.
    """
    from camlucida.audits import audit_dead_zone

    if model.name is None:
        refuse_unused(context, _OF_A_MODEL, "with --model")
    options: dict[str, Any] = {
        "methods": known_methods(method or ()) or None, "count": count, "quick": quick, "seed": seed, "out": out,
    }  # fmt: skip

    def run(say: Say) -> AuditReport:
        if model.name is None:
            return audit_dead_zone(**options, say=say)
        loaded = model.load(device)
        claim(out, loaded.name, "deadzone", "trust")
        images = _images(loaded, data, wall, count or (20 if quick else 100), seed, stack=stack)
        return audit_dead_zone(
            loaded, images, wall=wall, layers=layer, batch_size=batch_size, **options, say=say
        )

    write_report(run, out, as_json=as_json, named=method)


@audit.command(cls=Command)
def theory(
    quick: QuickTable = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Show why weights for whole channels see through walls: proposition, theorem and digits, computed and drawn."""
    from camlucida.audits import audit_theory

    write_report(
        lambda say: audit_theory(quick=quick, seed=seed, out=out, say=say), out, as_json=as_json
    )


def _images(
    loaded: LoadedModel, data: str | None, wall: str | None, count: int, seed: int, *, stack: bool
) -> Any:
    """Photos: stacked pairs where they have labels and the dead part is known, else as they are."""
    from camlucida.audits import Wall, dead_zone
    from camlucida.data.offline_photos import picture, picture_names
    from camlucida.data.stack_mix import StackMix

    if data is None:
        return [picture(name) for name in picture_names()][:count]
    photos = photos_of(data, loaded.class_names)
    if not stack or loaded.preprocess is None or not _paired(photos):
        return photos
    height, width = loaded.preprocess.size
    stands = Wall.parse(wall) if wall else None
    region = stands.region if stands and stands.layer is None else None
    if stands is None:
        region = dead_zone(loaded, (height, width), draws=2).region
    if region is None or height != width:
        return photos
    resize = loaded.preprocess.resize
    return StackMix(
        photos,
        dead=region,
        size=height,
        resize=resize if isinstance(resize, int) else None,
        count=count,
        seed=seed,
    )


def _paired(photos: DataSet) -> bool:
    """Whether some class has two photos, as STACK-MIX needs them."""
    known = Counter(s.label_name if s.label is None else s.label for s in photos)
    return any(several > 1 for label, several in known.items() if label != "")


def end(untested: Mapping[str, str], named: Sequence[str] | None) -> None:
    """Say which of the methods that the user named could not be tested; the exit code is then 2."""
    if named and untested:
        for why in dict.fromkeys(untested.values()):
            methods = ", ".join(m for m, reason in untested.items() if reason == why)
            complain(f"left out: {methods}: {why}")
        raise typer.Exit(2)


def write_report(
    run: Callable[[Say], AuditReport],
    out: Path,
    *,
    as_json: bool,
    named: Sequence[str] | None = None,
) -> None:
    """Run an audit under a bar, write its page, record and pictures, and print the verdicts or one JSON document.

    Args:
        run: The audit.
        out: The folder.
        as_json: Print one JSON document.
        named: The methods that the user named.
    """
    with out_folder(out):
        with bars(one=True) as say:
            report = run(say)
        files = report.save(out)
    if as_json:
        print_json(report.to_dict())
    else:
        console().print(report.summary, soft_wrap=True)
        if report.verdicts:
            console().print(report)
        print_lines(*files)
    end(report.untested, named)
