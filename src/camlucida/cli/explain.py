"""``camlucida explain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import console, print_json, print_lines, shown
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    Device,
    FusedLayers,
    MethodsSeed,
    Photos,
    Steps,
    TargetText,
    methods_option,
    option,
    out_option,
    refuse_unused,
)
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.version import __version__

if TYPE_CHECKING:
    from camlucida.models import LoadedModel
    from camlucida.targets import Target

SCALES = ("image", "data")
_NAME = 40  # letters of a class's name in a label


@takes_model
def explain(
    photos: Photos,
    context: typer.Context,
    model: Model = EMBEDDED,
    method: Annotated[
        list[str] | None,
        methods_option("gradcam", "Repeat the option to see several methods side by side."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="An explained class, by name or index; repeat the option for several classes. "
            "(default: the predicted class)",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="CLASS",
            help="A class, by name or index, that the explained class is compared with: the picture shows in two "
            "colours what speaks for the one and what for the other. Repeat the option for several rivals.",
        ),
    ] = None,
    layer: FusedLayers = None,
    target: TargetText = "logit",
    steps: Steps = None,
    signed: Annotated[
        bool,
        typer.Option("--signed", help="Show evidence against the target too, in a second colour."),
    ] = False,
    scale: Annotated[
        str,
        option(
            "image|data",
            "What is drawn brightest: the largest value of each map, or with data the largest of all photos, so that a "
            "photo with little evidence stays dark. This explains every photo twice.",
        ),
    ] = "image",
    colours: Annotated[
        str | None,
        option("NAME", "A colour map of matplotlib. (default: inferno, and PuOr_r with signs)"),
    ] = None,
    alpha: Annotated[float, option("0..1", "How much of the map's colour covers the photo.")] = 0.6,
    window: Annotated[
        str | None,
        option(
            "LOW:HIGH",
            "Of scans: the values that become black and white, as in -160:240. (default: the header's, or the values' "
            "own range)",
        ),
    ] = None,
    page: Annotated[
        str | None,
        option("N|all", "Of files with several pages or frames: which. (default: the first)"),
    ] = None,
    seed: MethodsSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    shards: Annotated[
        bool,
        typer.Option(
            "--shards",
            help="Write the maps of each batch of photos into one file, and no pictures: for many thousands of photos. "
            "In Python, camlucida.explanation.Stored(FOLDER) reads them one by one.",
        ),
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write report.html, one page on all photos that can be sorted by confidence, by mistakes and by "
            "what is said of the maps, and report.csv.",
        ),
    ] = False,
    labels: Annotated[
        str | None,
        option(
            "DATA",
            "With --report: the data set that knows the photos' true classes, as camlucida evaluate takes it. "
            "(default: the photos' folders, where the model knows classes of these names)",
        ),
    ] = None,
    out: Annotated[
        Path, out_option("The folder where pictures, maps and records are written.")
    ] = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Explain what a model saw in photos.

    Writes an overlay, the maps and a record for every photo, and a comparison of several methods.
    A photo that cannot be read is reported, and the others are explained; so it is with a method that cannot explain
    the model. The exit code is then 2. Photos are read as they are needed, so that any number fits in memory; the same
    command, started again, goes on where it stopped.

    [bold]camlucida explain photos/ --method gradcam --method diffgradcam:aggregator=max --class tabby[/]

    [bold]camlucida explain photo.jpg --class tabby --against "tiger cat"[/]

    [bold]camlucida explain photos/ --report[/]
    """
    from camlucida.cli.shared.job import Job, Outcome, check, run, write_shards
    from camlucida.cli.shared.opening import known_methods
    from camlucida.cli.shared.photo_report import check as check_report
    from camlucida.cli.shared.photo_report import classes_of, write_report
    from camlucida.cli.shared.photos import collect
    from camlucida.explanation import Style
    from camlucida.targets import TARGETS, build_target

    check_report(shards, report, labels)
    if shards:
        refuse_unused(
            context, ("scale", "colours", "alpha"), "without --shards, which draws nothing"
        )
    style = Style(alpha, colours)
    if scale not in SCALES:
        raise CamlucidaError(f"--scale is {' or '.join(SCALES)}, got {scale!r}")
    asking = {"--signed": signed, "--against": against, "--scale data": scale == "data"}
    presets = {"--scale data": "unscaled"}
    steps = _steps(steps, {o: presets.get(o, "signed") for o, given in asking.items() if given})
    classes: list[str | None] = [*class_] if class_ else [None]
    contrast: dict[str, Any] = {}
    if against:
        target = "margin" if target == "logit" else target
        if "rivals" not in TARGETS.read(target)[0].settable:
            raise CamlucidaError(
                f"--against compares classes, which the target {target} does not; use --target margin or finer"
            )
        contrast["rivals"] = against
    wanted = [build_target(target, name, **contrast) for name in classes]
    sides = {"both_sides": True} if against else {}
    methods = [(one, sides) for one in known_methods(method or ["gradcam"], wanted[0])]
    loaded = model.load(device, say=False)
    resolved = _by_class([check(loaded, one, layer or [], steps) for one in wanted], loaded)
    outcome = Outcome()
    files, unusable = collect(photos, out)
    for path, reason in unusable:
        outcome.fail(path, reason)
    if window or page:
        files = [place for file in files for place in _places(file, window, page)]
    job = Job(
        loaded,
        methods,
        resolved,
        layer or [],
        steps,
        seed,
        batch_size,
        out,
        style,
        scale == "data",
        report,
    )
    true_classes = classes_of(photos, labels, loaded.class_names) if report else {}
    if files:
        (write_shards if shards else run)(job, files, outcome)
    written = write_report(job, outcome, true_classes) if report and len(outcome.done) else None
    if as_json:
        print_json({
            "camlucida": __version__,
            "model": loaded.name,
            "out": shown(out),
            **({"report": shown(written)} if written else {}),
            "interrupted": outcome.interrupted,
            **({"explained": outcome.stored} if shards else {"photos": outcome.done}),
            "failed": [{"photo": shown(p), "reason": reason} for p, reason in outcome.failed],
            "skipped": [{"method": m, "reason": reason} for m, reason in outcome.skipped.items()],
        })  # fmt: skip
    elif shards:
        print_lines(
            f"{outcome.stored} photos in {shown(out)}: maps and a table row of each in shard-NUMBER.npz"
        )
    else:
        from camlucida.cli.shared.results import show

        show(outcome.done, out, console())
        if written:
            table = shown(written.with_suffix(".csv"))
            print_lines(f"\nAll photos on one page: {shown(written)}; as a table: {table}")
    raise typer.Exit(outcome.exit_code)


def _places(file: Path, window: str | None, page: str | None) -> list[Path]:
    """A file's pages as they are asked for, each as the path that names it."""
    from camlucida.data.images import pages_of
    from camlucida.data.place import Place, page_of, window_of

    place = Place.of(file)
    if window:
        place = replace(place, window=window_of(window))
    if not page:
        return [Path(str(place))]
    if page != "all":
        return [Path(str(replace(place, page=page_of(page))))]
    try:
        count = pages_of(file)
    except ImageError:  # said of this file when it is read
        count = 1
    pages = range(1, count + 1) if count > 1 else [place.page]
    return [Path(str(replace(place, page=number))) for number in pages]


def _steps(given: str | None, asked: Mapping[str, str]) -> str | None:
    """The preset that other options ask for.

    Args:
        given: What the user chose.
        asked: Presets by the option that needs them; the first one holds.

    Raises:
        CamlucidaError: Another preset is given as well.
    """
    for name, preset in asked.items():
        if given not in (None, preset, "signed"):
            raise CamlucidaError(
                f"{name} scales the maps in a way of its own; leave out --steps {given}"
            )
        return given or preset
    return given


def _by_class(targets: Sequence[Target], loaded: LoadedModel) -> dict[str, Target]:
    """Each class's target once, by a short name of the class."""
    found: dict[int | None, Target] = {}
    for target in targets:
        found.setdefault(getattr(target, "classes", None), target)
    names = loaded.class_names or ()
    named: dict[str, Target] = {}
    for index, target in found.items():
        name = f"class {index}"
        if index is not None and index in range(len(names)):
            name = names[index].partition(",")[0][:_NAME]
        named[name if name not in named else f"{name} {index}"] = target
    return named
