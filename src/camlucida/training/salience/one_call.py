"""Salience-guided training in one call: what ``camlucida train salience`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.data.salience import hold_out, salient_folder
from camlucida.training.cam_loss import WEIGHTS, CAMClass, CAMOptions
from camlucida.training.salience.data import PhotoSet
from camlucida.training.salience.experiment import train_arms
from camlucida.training.salience.models import SMALL
from camlucida.training.salience.recipe import (
    ARMS,
    ENTROPY_ARMS,
    IRIS_PAD,
    STAND_IN,
    Arm,
    ImageSets,
    SalienceRecipe,
    stand_in_sets,
)
from camlucida.training.salience.report import SalienceReport, salience_report

DIGITS = "digits"
_Path = str | os.PathLike[str]


def train_salience(
    data: _Path | None = None,
    out: _Path = "camlucida-out/salience",
    *,
    maps: _Path | None = None,
    sham: bool = False,
    masks: bool = False,
    plain: bool = False,
    entropy: Sequence[str] | None = None,
    standin: bool = False,
    val: _Path | None = None,
    test: _Path | None = None,
    skip_missing: bool = False,
    images: int = 4000,
    threads: int = 8,
    seeds: int | None = None,
    seed: int = 0,
    say: Say | None = None,
    note: Callable[[str], object] = lambda _: None,
    **how: Any,
) -> SalienceReport:
    """Train a network with salience in its loss, several times and in several ways, and compare them.

    What is done is kept; the same call goes on where a stopped one ended.

    Args:
        data: a folder with a subfolder for each class, or with train, val and test that hold such; or ``"digits"``.
            By default the stand-in: digits on photos, true masks against SHAM against cross-entropy alone.
        out: the run's folder, with every trained network and the report.
        maps: a folder with a grey picture or ``.npy`` file for each photo: guide by people's maps.
        sham: guide by a false mask, the border (SHAM), as a control.
        masks: guide by the true masks of digits.
        plain: train with the cross-entropy alone, to compare.
        entropy: entropy losses to train with: ``"droid"``, ``"fmmce"``, ``"hb-cam"``.
        standin: the stand-in, said aloud.
        val: validation photos; by default ``data/val``, or a fifth of each class.
        test: test photos; by default ``data/test``.
        skip_missing: leave photos without a map out.
        images: digits to learn from.
        threads: how many threads read photos.
        seeds: repetitions; 5, or 3 with digits.
        seed: of the first repetition.
        say: told about the progress.
        note: told what was left out.
        **how: the words of :func:`recipe_of`, such as ``model="timm:resnet18"``, ``epochs=20``, ``lr=0.01``.

    Returns:
        The report, which is also written; its experiment is not complete where it was stopped by Ctrl-C.

    Raises:
        CamlucidaError: the photos or options do not fit, or the folder holds the results of another plan.
        KeyboardInterrupt: Ctrl-C before the first training was done.

    Example:
        >>> report = camlucida.training.train_salience("iris/", maps="maps/", sham=True)  # doctest: +SKIP
        >>> camlucida.training.train_salience("no-such-folder", sham=True)
        Traceback (most recent call last):
        camlucida.common.errors.ImageError: ...
    """
    arms = choose_arms(
        data, standin=standin, maps=maps, sham=sham, masks=masks, plain=plain, entropy=entropy
    )
    digits = data in {None, DIGITS}
    recipe = recipe_of(STAND_IN if digits else IRIS_PAD, **how)
    if digits:
        sets = stand_in_sets(images, size=recipe.size)
    else:
        sets = _photo_sets(recipe, Path(str(data)), maps, val, test, skip_missing, threads, note)
    repetitions = range(seed, seed + (seeds or (3 if digits else 5)))
    found = train_arms(recipe, arms, repetitions, sets, Path(out), say=say)
    if not found.trained:
        raise KeyboardInterrupt
    report = salience_report(found, sets)
    return replace(report, files=report.save(out))


def recipe_of(
    base: SalienceRecipe,
    *,
    random: bool = False,
    epochs: int | None = None,
    lr: float | None = None,
    precision: str | None = None,
    accelerator: str = "auto",
    cam: str = WEIGHTS,
    cam_class: CAMClass = "label",
    layer: str | None = None,
    **others: Any,
) -> SalienceRecipe:
    """A recipe with some words changed.

    Args:
        base: what is not told.
        random: start from random weights.
        epochs: passes over the images.
        lr: learning rate at the start.
        precision: ``"32-true"``, ``"16-mixed"`` or ``"bf16-mixed"``.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        cam: the map: ``"weights"``, or a method such as ``"gradcam"``.
        cam_class: the map's class, ``"label"`` or ``"pred"``.
        layer: the map's layer; by default the last feature map.
        **others: fields of :class:`SalienceRecipe`: model, architecture, size, batch_size, weight, entropy_weight,
            layout. ``None`` leaves them as they are.

    Raises:
        CamlucidaError: one is out of range.
    """
    others |= {"epochs": epochs, "learning_rate": lr, "precision": precision}
    others |= {"accelerator": accelerator}
    given = {name: value for name, value in others.items() if value is not None}
    model = given.get("model", base.model)
    return replace(
        base,
        **given,
        pretrained=not random and model != SMALL,
        # A map that is differentiated twice is better learned with norms that stand still.
        cam=CAMOptions(
            cam, cam_class=cam_class, cam_layer=layer, mode="train" if cam == WEIGHTS else "norms"
        ),
    )


def choose_arms(
    data: _Path | None,
    *,
    standin: bool,
    maps: _Path | None,
    sham: bool,
    masks: bool,
    plain: bool,
    entropy: Sequence[str] | None,
) -> list[Arm]:
    """What a training is to be guided by, in the order of the tables; arguments as for :func:`train_salience`.

    Raises:
        CamlucidaError: it does not go with the images, or nothing guides the training.
    """
    digits = data in {None, DIGITS}
    if standin and data is not None:
        raise CamlucidaError("--standin brings its own images; leave DATA out")
    if unknown := sorted({*(entropy or ())} - {*ENTROPY_ARMS}):
        raise CamlucidaError(f"--entropy takes {', '.join(ENTROPY_ARMS)}, got {', '.join(unknown)}")
    if digits and maps is not None:
        raise CamlucidaError("digits have exact masks of their own: --masks instead of --maps")
    if masks and not digits:
        raise CamlucidaError("--masks goes with digits; for photos give --maps FOLDER")
    chosen: dict[Arm, bool] = {
        "human": maps is not None,
        "mask": masks,
        "sham": sham,
        "plain": plain,
    }
    chosen |= {kind: kind in (entropy or ()) for kind in ENTROPY_ARMS}
    if data is None and not standin and any(chosen.values()):
        raise CamlucidaError(
            "say what to train on: a folder of photos, or digits; without DATA and options the stand-in is run"
        )
    if not any(chosen.values()):
        if not digits:
            raise CamlucidaError(
                "say what guides the training: --maps FOLDER, --sham, --plain or --entropy KIND; several are compared"
            )
        chosen |= {"mask": True, "sham": True, "plain": True}
    return [arm for arm in ARMS if chosen[arm]]


def _photo_sets(
    recipe: SalienceRecipe,
    data: Path,
    maps: _Path | None,
    val: _Path | None,
    test: _Path | None,
    skip_missing: bool,
    threads: int,
    note: Callable[[str], object],
) -> ImageSets:
    """The photos of each part; only those to learn from need maps."""
    root = data
    if (data / "train").is_dir():
        root = data / "train"
        val, test = (
            given or (folder if (folder := data / name).is_dir() else None)
            for given, name in ((val, "val"), (test, "test"))
        )
        if maps is not None and (Path(maps) / "train").is_dir():
            maps = Path(maps) / "train"
    training = salient_folder(root, maps, skip_missing=skip_missing)
    if len(training.class_names) < 2:
        raise CamlucidaError(
            f"{str(root)!r} holds one class only, {training.class_names[0]!r}; expected a subfolder for each class"
        )
    for _, reason in training.skipped[:1]:
        note(f"{len(training.skipped)} files left out, such as {reason}")
    if val is None:
        training, held = hold_out(training)
    else:
        held = salient_folder(val, class_names=training.class_names)
    # Built once before, so that a name or weights that cannot be had are told at once.
    preprocess = recipe.start(len(training.class_names)).preprocess
    read = partial(PhotoSet, preprocess=preprocess, threads=threads)
    validation = read(held)
    others = test and read(salient_folder(test, class_names=training.class_names))
    return ImageSets(read(training), validation, others or validation)
