"""``camlucida verify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from camlucida.cli.shared.console import print_json, print_lines, progress, shown
from camlucida.cli.shared.device import on_device
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    BACKBONES,
    PAIR_LISTS,
    Aligned,
    AsJson,
    Device,
    MethodsSeed,
    Out,
    Preset,
    layer_option,
    layout_option,
    methods_option,
    model_option,
    option,
    refuse_unused,
    split_option,
)
from camlucida.cli.shared.photos import Names
from camlucida.cli.shared.writing import out_folder
from camlucida.common.errors import CamlucidaError, ImageError

if TYPE_CHECKING:
    from camlucida.faces.embedder import Embedder
    from camlucida.faces.pair import PairExplanation
    from camlucida.faces.pair_side import WhichFace


def verify(
    context: typer.Context,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PROBE GALLERY]", help="Two photos of faces; leave them out with --pairs."
        ),
    ] = None,
    model: Annotated[str, model_option(known=BACKBONES, metavar="NAME[:FILE]")] = "dlib",
    preset: Preset = None,
    method: Annotated[
        list[str] | None,
        methods_option("fame:preset=reproducible, with --pairs fame:iterations=75"),
    ] = None,
    threshold: Annotated[
        float | None,
        option(
            "T",
            "The faces match if their cosine is at or above this, or their distance at or below for a model that "
            "compares by distance, such as dlib. (default: the model's own; with --pairs the one fitted on the pairs)",
        ),
    ] = None,
    aligned: Aligned = False,
    landmarks: Annotated[
        list[Path] | None,
        typer.Option(
            "--landmarks",
            metavar="FILE",
            help="A file with x and y of 5 or 68 points in pixels; give the option twice, the probe's file first.",
        ),
    ] = None,
    face: Annotated[
        list[str] | None,
        option(
            "WHICH",
            "Which of several faces in a photo is meant: only (there is one), largest, or a number from 0 "
            "for the largest; given twice, the probe's first. (default: only; with --pairs largest)",
        ),
    ] = None,
    layer: Annotated[
        str | None,
        layer_option("the last feature map", "With two photos: the layer of activation maps."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="FILE|FOLDER", help=f"Verify many pairs: {PAIR_LISTS}"),
    ] = None,
    layout: Annotated[str, layout_option("--pairs")] = "auto",
    split: Annotated[int | None, split_option("--pairs")] = None,
    draw: Annotated[
        int,
        option("N", "With --pairs: also draw the maps of this many pairs.", 0),
    ] = 8,
    both: Annotated[
        bool, typer.Option("--both", help="With --pairs: alter the gallery photo too.")
    ] = False,
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlays",
            help="With two photos: also write every map by itself, on the crop and on the photo.",
        ),
    ] = False,
    noise: Annotated[
        bool,
        typer.Option(
            "--noise/--no-noise",
            help="With two photos: explain the faces again with each pixel changed by at most one grey level, "
            "to tell where two maps differ by no more than that; or save the time.",
        ),
    ] = True,
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data",
            help="With --pairs: read finished photos again to check for changes. By default only file size and time "
            "are compared.",
        ),
    ] = False,
    seed: MethodsSeed = 0,
    device: Device = None,
    out: Out = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Do these two faces match, and which pixels make them similar or set them apart?

    Prints distance or cosine, threshold and decision, and draws for both faces what makes them similar and what sets
    them apart, on one scale, into a folder of the pair. With --pairs a whole list is verified, and the maps are
    judged by deleting and inserting pixels; a stopped run goes on where it was.

    Photos stay on this machine, and embeddings are not written.
    """
    from camlucida.faces.load import load_embedder
    from camlucida.methods import build

    given = photos or []
    if pairs is None and len(given) != 2:
        raise CamlucidaError(
            f"verify compares two photos, PROBE and GALLERY, or a list with --pairs; got {len(given)} photos"
        )
    if pairs is not None and given:
        raise CamlucidaError("give two photos, or --pairs, not both")
    if landmarks is not None and (pairs is not None or len(landmarks) != 2):
        raise CamlucidaError(
            "--landmarks is given twice: the probe's file, then the gallery photo's"
        )
    if pairs is None:
        refuse_unused(context, ("layout", "split", "draw", "both", "verify_data"), "with --pairs")
    else:
        refuse_unused(context, ("layer", "overlays", "noise"), "with two photos, not with --pairs")
    if aligned:
        refuse_unused(context, ("face",), "without --aligned, where nothing is searched")
    which = [_which(text) for text in face or ["only" if pairs is None else "largest"]]
    if len(which) > (2 if pairs is None else 1):
        raise CamlucidaError("--face is given once for all photos, or twice for PROBE and GALLERY")
    usual = "fame:preset=reproducible" if pairs is None else "fame:iterations=75"
    methods = known_methods(method or [usual])
    if layer is not None and not any(build(text)[0].uses_layers for text in methods):
        raise CamlucidaError("--layer goes with methods that explain layers, and none is chosen")
    embedder = load_embedder(model, preset=preset, device=on_device(device))
    threshold = _similarity(embedder, threshold)
    if pairs is not None:
        from camlucida.cli.verify_pairs import verify_list

        verify_list(
            embedder, pairs, out, as_json=as_json, methods=methods, layout=layout, split=split, face=which[0],
            aligned=aligned, threshold=threshold, draw=draw, both=both, seed=seed,
            verify_data=verify_data,
        )  # fmt: skip
        return
    with out_folder(out):
        explained = _explain(
            embedder, given, methods, landmarks, which, aligned, threshold, layer, seed, noise
        )
        own = Path(Names(out, embedder.name, "/pair").take(*given))
        files = explained.save(out / own.parent, overlays=overlays)
    record = explained.record() | {"files": {name: shown(path) for name, path in files.items()}}
    if as_json:
        print_json(record)
    else:
        _show(explained, files)


def _explain(
    embedder: Embedder,
    photos: Sequence[Path],
    methods: Sequence[str],
    landmarks: Sequence[Path] | None,
    which: Sequence[WhichFace],
    aligned: bool,
    threshold: float | None,
    layer: str | None,
    seed: int,
    noise: bool,
) -> PairExplanation:
    from camlucida.faces.pair import explain_pair
    from camlucida.faces.pair_side import face_photo, read_landmarks

    sides = []
    for index, (photo, name) in enumerate(zip(photos, ("probe", "gallery"), strict=True)):
        points = None if landmarks is None else read_landmarks(landmarks[index])
        try:
            sides.append(
                face_photo(
                    embedder,
                    photo,
                    face=which[index % len(which)],
                    aligned=aligned,
                    landmarks=points,
                )
            )
        except ImageError as error:
            hint = " (--face largest, or --face N)" if "faces were found" in str(error) else ""
            if "there is no face" in str(error) and len(which) == 1:
                hint = " (--face twice: the probe's, then the gallery photo's)"
            named = name if repr(str(photo)) in str(error) else f"{name} '{shown(photo)}'"
            raise ImageError(f"{named}: {error}{hint}") from error
    with progress("explaining") as advance:
        return explain_pair(
            embedder,
            sides[0],
            sides[1],
            method=list(methods),
            threshold=threshold,
            layers=layer,
            noise=noise,
            seed=seed,
            progress=advance,
        )


def _similarity(embedder: Embedder, threshold: float | None) -> float | None:
    """The similarity that a threshold stands for, which is a distance for models that compare by distance."""
    from camlucida.faces.protocol import as_said

    if threshold is None:
        return None
    if embedder.compare == "distance" and threshold < 0:
        raise CamlucidaError(
            f"{embedder.name} compares by distance, which is never below 0, but --threshold is {threshold:g}"
        )
    return as_said(threshold, embedder.compare)


def _which(text: str) -> WhichFace:
    if text.isdecimal():
        return int(text)
    if text not in ("only", "largest"):
        raise CamlucidaError(f"--face is only, largest or a number from 0, got {text!r}")
    return cast("WhichFace", text)


def _show(explained: PairExplanation, files: dict[str, Path]) -> None:
    print_lines(f"{explained.embedder}: {explained.verdict}", style="bold")
    by_text: dict[str, list[str]] = {}
    for text in explained.messages:
        by_text.setdefault(text, [])
    for one in explained.methods:
        for side, messages in zip(("probe", "gallery"), one.messages, strict=True):
            for text in messages:
                by_text.setdefault(text, []).append(f"{one.label} {side}")
    for text, about in by_text.items():
        where = f"{', '.join(dict.fromkeys(about))}: " if about else ""
        print_lines(f"  {where}{text}")
    for one in explained.methods:
        print_lines(*(f"  {line}" for line in one.apart))
    print_lines("\nWritten:", style="bold")
    print_lines(*(f"  {shown(file)}" for file in files.values()))
