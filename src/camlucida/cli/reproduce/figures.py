"""``camlucida reproduce``: figures and analyses of FAME and of Integrative CAM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from camlucida.cli.reproduce.ending import finish
from camlucida.cli.shared.console import complain
from camlucida.cli.shared.model import EMBEDDED, Chosen, Model, takes_model
from camlucida.cli.shared.options import (
    AsJson,
    BatchSize,
    ClassFolder,
    ClassName,
    CopiesSeed,
    Device,
    IcamMethod,
    Layers,
    Photo,
    Photos,
    Seed,
    TableOut,
    option,
)
from camlucida.cli.shared.photos import collect
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say, part

FameMethod = Annotated[
    str, option("METHOD", "FAME with its other options, as in fame:preset=reference_code.")
]


@takes_model
def fame_figure1(
    photo: Photo,
    model: Model = EMBEDDED,
    class_: ClassName = None,
    iterations: Annotated[
        list[int] | None,
        typer.Option(
            "--iterations", metavar="N", min=1,
            help="A count of iterations; repeat the option for several. (default: 75, 200 and 500)",
        ),
    ] = None,
    sigma: Annotated[
        list[float] | None,
        typer.Option(
            "--sigma", metavar="PIXELS", min=0,
            help="A width of the blur; repeat the option for several. (default: 0, 2, 4, 7.7 and 15)",
        ),
    ] = None,
    method: FameMethod = "fame",
    seed: Seed = 0,
    device: Device = None,
    out: TableOut = Path("camlucida-out/fame-figure1"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """FAME, Figure 1: what iterations and blur do to the map of a photo.

    [bold]camlucida reproduce fame-figure1 photo.jpg --iterations 75 --iterations 500[/]
    """
    given = {"iterations": iterations, "sigmas": sigma}
    _finish(
        "fame-figure1", model, device, photo, out, as_json=as_json, method=method, target=class_, seed=seed,
        **{name: value for name, value in given.items() if value},
    )  # fmt: skip


@takes_model
def fame_starts(
    photos: Photos,
    model: Model = EMBEDDED,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--setting", metavar="STARTSxITERATIONS",
            help="Starts and iterations of each, as in 8x62; repeat the option for several. (default: 1x500, 2x250, "
            "4x125, 8x62 and 16x31)",
        ),
    ] = None,
    method: FameMethod = "fame",
    paths: Annotated[
        int, option("N", "The mean of how many long paths the maps are held against.", 2)
    ] = 4,
    length: Annotated[int, option("N", "How many steps each of these takes.", 1)] = 500,
    seed: Seed = 0,
    device: Device = None,
    out: TableOut = Path("camlucida-out/fame-starts"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Which FAME maps come out again? Starts by iterations, on the model and photos at hand.

    [bold]camlucida reproduce fame-starts photos/ --setting 1x500 --setting 8x62[/]
    """
    settings = {"settings": [_setting(text) for text in setting]} if setting else {}
    _finish(
        "fame-starts", model, device, _all_of(photos, out), out, as_json=as_json, method=method, paths=paths,
        steps=length, seed=seed, **settings,
    )  # fmt: skip


@takes_model
def icam_figure1(
    photo: Photo,
    model: Model = EMBEDDED,
    class_: ClassName = None,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    out: TableOut = Path("camlucida-out/icam-figure1"),
    as_json: AsJson = False,
) -> None:
    """Integrative CAM, Figure 1: the perturbed copies of a photo, and how much each counts.

    [bold]camlucida reproduce icam-figure1 photo.jpg[/]
    """
    _finish(
        "icam-figure1", model, device, photo, out, as_json=as_json, method=method, target=class_, seed=seed
    )  # fmt: skip


@takes_model
def icam_layers(
    folder: ClassFolder,
    model: Model = EMBEDDED,
    label: Annotated[
        bool,
        typer.Option(
            "--label/--predicted", help="Explain the class of the subfolder, or the predicted one."
        ),
    ] = False,
    layer: Layers = None,
    method: IcamMethod = "icam",
    seed: Seed = 0,
    device: Device = None,
    batch_size: BatchSize = 8,
    out: TableOut = Path("camlucida-out/icam-layers"),
    as_json: AsJson = False,
) -> None:
    """Integrative CAM: which layers matter for which class, and do classes differ in that?

    [bold]camlucida reproduce icam-layers photos/[/]
    """
    _finish(
        "icam-layers", model, device, folder, out, as_json=as_json, method=_icam(method), explain_label=label,
        layers=layer or None, seed=seed, batch_size=batch_size,
    )  # fmt: skip


@takes_model
def icam_ablation(
    photos: Photos,
    model: Model = EMBEDDED,
    class_: ClassName = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="PART",
            help="A part that is changed: bias, alpha, filter, weights, copies or noise; repeat the option for "
            "several. (default: all)",
        ),
    ] = None,
    layer: Layers = None,
    method: IcamMethod = "icam",
    seed: CopiesSeed = 0,
    device: Device = None,
    out: TableOut = Path("camlucida-out/icam-ablation"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Integrative CAM, part by part: what does each part of the method do to the map?

    [bold]camlucida reproduce icam-ablation photos/ --part bias --part alpha[/]
    """
    _finish(
        "icam-ablation", model, device, _all_of(photos, out), out, as_json=as_json, method=_icam(method),
        target=class_, layers=layer or None, seed=seed, **({"parts": part} if part else {}),
    )  # fmt: skip


def _finish(
    name: str, model: Chosen, device: str | None, images: Any, out: Path, *, as_json: bool, **options: Any
) -> None:  # fmt: skip
    from camlucida.studies.published import reproduce

    loaded = model.load(device)

    def run(say: Say) -> Any:
        return reproduce(name, loaded, images, progress=part(say, "explaining"), **options)

    finish(run, out, as_json=as_json)


def _all_of(photos: list[Path], out: Path) -> list[str]:
    """The photos of files and folders; those that are none are named."""
    found, failed = collect(photos, out)
    for _, why in failed:
        complain(f"left out: {why}")
    if not found:
        raise CamlucidaError("none of what was given is a photo")
    return [str(photo) for photo in found]


def _icam(method: str) -> Any:
    from camlucida.methods import ICAM, build_as

    return build_as(ICAM, method)


def _setting(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,5})", text)):
        raise CamlucidaError(f"--setting is STARTSxITERATIONS, such as 8x62, got {text!r}")
    return int(found[1]), int(found[2])
