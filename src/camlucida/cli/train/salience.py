"""``camlucida train salience``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import bars, complain, console, print_json, print_table, shown
from camlucida.cli.shared.options import (
    Architecture,
    AsJson,
    layer_option,
    model_option,
    out_option,
    refuse_unused,
    seed_option,
)
from camlucida.cli.shared.writing import out_folder
from camlucida.common.errors import CamlucidaError

if TYPE_CHECKING:
    from camlucida.training.salience.recipe import Arm, Recipe, Sets

_DIGITS = "digits"


def salience(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder with a subfolder for each class, or with train, val and test that hold such; or digits. "
            "(default: the stand-in)",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Guide by people's maps: a grey picture or .npy file for each photo."),
    ] = None,
    sham: Annotated[bool, typer.Option("--sham", help="Guide by a SHAM mask, which lies.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Guide by the true masks; digits only.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Cross-entropy alone, to compare.")] = False,
    entropy: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="An entropy loss instead: droid, fmmce or hb-cam; may be repeated."),
    ] = None,
    standin: Annotated[
        bool, typer.Option("--standin", help="Digits on photos, true masks against SHAM, in minutes.")
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Validation photos. (default: DATA/val, or a fifth of each class)"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Test photos. (default: DATA/test)")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave photos without a map out.")
    ] = False,
    model: Annotated[
        str | None,
        model_option(
            "(default: timm:densenet121; small for digits)",
            known="timm:NAME, torchvision:NAME, embedded, small or a checkpoint file.",
        ),
    ] = None,
    architecture: Architecture = None,
    random: Annotated[bool, typer.Option("--random", help="Start from random weights.")] = False,
    size: Annotated[
        int | None, typer.Option(metavar="PX", help="Photos are resized to this square. (default: 224)")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="(default: 50)")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", min=1, help="Repetitions. (default: 5)")] = None,
    seed: Annotated[int, seed_option("the first repetition")] = 0,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=2, help="(default: 20)")] = None,
    lr: Annotated[float | None, typer.Option(metavar="X", help="Learning rate. (default: 0.002)")] = None,
    weight: Annotated[
        float, typer.Option(metavar="A", help="Of the cross-entropy; the maps have 1 - A.")
    ] = 0.5,
    entropy_weight: Annotated[
        float, typer.Option(metavar="X", help="Of an entropy loss beside the cross-entropy.")
    ] = 1.0,
    cam: Annotated[
        str, typer.Option(metavar="METHOD", help="The map: weights, or a method such as gradcam.")
    ] = "weights",
    cam_class: Annotated[str, typer.Option(metavar="label|pred", help="The map's class.")] = "label",
    layer: Annotated[str | None, layer_option("the last feature map", "The map's layer.")] = None,
    layout: Annotated[str, typer.Option(metavar="NAME", help="SHAM: rounded, midpoints or rows.")] = "rounded",
    precision: Annotated[
        str | None, typer.Option(metavar="P", help="32-true, 16-mixed or bf16-mixed. (default: 32-true)")
    ] = None,
    accelerator: Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="Where to train.")] = "auto",
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="That read photos.")] = 8,
    images: Annotated[int, typer.Option(metavar="N", min=100, help="Digits to learn from.")] = 4000,
    out: Annotated[Path, out_option("The run; the same command goes on where it was stopped.")] = Path(
        "camlucida-out/salience"
    ),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train with salience in the loss: people's maps, a SHAM mask or none, over several seeds.

    With photos the defaults are the published Iris PAD experiment: DenseNet-121 from ImageNet's weights, half
    cross-entropy and half distance of the class-weight map, 50 epochs, 5 seeds. Without DATA a stand-in is run:
    digits on photos, true masks against SHAM against cross-entropy alone, 3 seeds, a few minutes.

    [bold]camlucida train salience iris/ --maps annotations/ --sham --plain --out RUN[/]
    """
    from camlucida.training.salience.experiment import train_salience
    from camlucida.training.salience.recipe import IRIS_PAD, STAND_IN
    from camlucida.training.salience.report import salience_report

    if standin and data is not None:
        raise CamlucidaError("--standin brings its own images; leave DATA out")
    digits = data is None or data == _DIGITS
    arms = _arms(digits=digits, maps=maps, sham=sham, masks=masks, plain=plain, entropy=entropy)
    if data is None and not (standin or _all_defaults(maps, masks, sham, plain, entropy)):
        raise CamlucidaError(
            "say what to train on: a folder of photos, or digits; without DATA and options the stand-in is run"
        )
    _refuse_unused(context, arms, digits=digits, model=model, maps=maps)
    base = STAND_IN if digits else IRIS_PAD
    count = seeds or (3 if digits else 5)
    recipe = _recipe(
        base, model=model, architecture=architecture, random=random, size=size, epochs=epochs,
        batch_size=batch_size, lr=lr, weight=weight, entropy_weight=entropy_weight, cam=cam, cam_class=cam_class,
        layer=layer, layout=layout, precision=precision, accelerator=accelerator,
    )  # fmt: skip
    with out_folder(out), bars() as say:
        sets = (
            _digit_sets(recipe, images)
            if digits
            else _photo_sets(
                recipe, Path(str(data)), maps, val, test, skip=skip_missing, threads=threads
            )
        )
        found = train_salience(recipe, arms, range(seed, seed + count), sets, out, say=say)
        if not found.trained:
            raise KeyboardInterrupt
        report = salience_report(found, sets)
        files = report.save(out)
    if as_json:
        print_json({**report.to_dict(), "files": [shown(file) for file in files]})
    else:
        place = console()
        for table in report.tables:
            print_table(place, table)
        for verdict in report.verdicts:
            place.print(f"{verdict.claim}: {verdict.outcome}. {verdict.text}", markup=False)
        for sentence in report.remarks:
            place.print(sentence, markup=False)
        place.print(shown(files[0]), markup=False, soft_wrap=True)
    if not found.complete:
        raise typer.Exit(130)


def _refuse_unused(
    context: typer.Context, arms: list[Arm], *, digits: bool, model: str | None, maps: Path | None
) -> None:
    """Each option needs the images, the model or the loss that it is about."""
    if digits:
        refuse_unused(context, ("val", "test", "skip_missing", "threads"), "with photos")
        if model is None:
            refuse_unused(context, ("architecture", "random"), "with --model")
    else:
        refuse_unused(context, ("images",), "with digits")
        if maps is None:
            refuse_unused(context, ("skip_missing",), "with --maps")
    if "sham" not in arms:
        refuse_unused(context, ("layout",), "with --sham")
    if not {"human", "mask", "sham"} & set(arms):
        refuse_unused(context, ("weight",), "with --maps, --masks or --sham")
    if not {"droid", "fmmce", "hb-cam"} & set(arms):
        refuse_unused(context, ("entropy_weight",), "with --entropy")


def _all_defaults(*given: Any) -> bool:
    return not any(given)


def _arms(
    *,
    digits: bool,
    maps: Path | None,
    sham: bool,
    masks: bool,
    plain: bool,
    entropy: list[str] | None,
) -> list[Arm]:
    """What is asked for, in the order of the tables."""
    from camlucida.training.salience.recipe import ARMS

    kinds = ("droid", "fmmce", "hb-cam")
    if unknown := sorted(set(entropy or ()) - set(kinds)):
        raise CamlucidaError(f"--entropy takes {', '.join(kinds)}, got {', '.join(unknown)}")
    if digits and maps is not None:
        raise CamlucidaError("digits have exact masks of their own: --masks instead of --maps")
    if masks and not digits:
        raise CamlucidaError("--masks goes with digits; for photos give --maps FOLDER")
    chosen: dict[str, bool] = {
        "human": maps is not None,
        "mask": masks,
        "sham": sham,
        "plain": plain,
        **{kind: kind in (entropy or ()) for kind in kinds},
    }
    if not any(chosen.values()):
        if not digits:
            raise CamlucidaError(
                "say what guides the training: --maps FOLDER, --sham, --plain or --entropy KIND; several are compared"
            )
        chosen |= {"mask": True, "sham": True, "plain": True}
    return [arm for arm in ARMS if chosen[arm]]  # type: ignore[misc]


def _recipe(
    base: Recipe,
    *,
    model: str | None,
    architecture: str | None,
    random: bool,
    size: int | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    weight: float,
    entropy_weight: float,
    cam: str,
    cam_class: str,
    layer: str | None,
    layout: str,
    precision: str | None,
    accelerator: str,
) -> Recipe:
    from typing import get_args

    from camlucida.training.cam_loss import WEIGHTS, CAMOptions
    from camlucida.training.salience.models import SMALL
    from camlucida.training.sham import Layout

    if layout not in get_args(Layout):
        raise CamlucidaError(
            f"--layout must be one of {', '.join(get_args(Layout))}, got {layout!r}"
        )
    changed = {"epochs": epochs, "learning_rate": lr, "precision": precision}
    options: dict[str, Any] = {k: v for k, v in changed.items() if v is not None}
    fitting = replace(base.fit, **options, accelerator=accelerator)  # type: ignore[arg-type]
    chosen = model or base.model
    return replace(
        base,
        model=chosen,
        architecture=architecture,
        pretrained=not random and chosen != SMALL,
        size=size or base.size,
        fit=fitting,
        batch_size=batch_size or base.batch_size,
        weight=weight,
        entropy_weight=entropy_weight,
        # A map that is differentiated twice is better learned with norms that stand still.
        cam=CAMOptions(
            cam,
            cam_class=cam_class,  # type: ignore[arg-type]
            cam_layer=layer,
            mode="train" if cam == WEIGHTS else "norms",
        ),
        layout=layout,  # type: ignore[arg-type]
    )


def _digit_sets(recipe: Recipe, images: int) -> Sets:
    from camlucida.training.salience.recipe import stand_in_sets

    return stand_in_sets(images, size=recipe.size)


def _photo_sets(
    recipe: Recipe,
    data: Path,
    maps: Path | None,
    val: Path | None,
    test: Path | None,
    *,
    skip: bool,
    threads: int,
) -> Sets:
    """The photos of each part; only those to learn from need maps."""
    from camlucida.data.salience import hold_out, salient_folder
    from camlucida.training.salience.data import PhotoSet
    from camlucida.training.salience.models import build_start
    from camlucida.training.salience.recipe import Sets

    parted = (data / "train").is_dir()
    root = data / "train" if parted else data
    if parted:
        val = val or _there(data / "val")
        test = test or _there(data / "test")
        if maps is not None and (maps / "train").is_dir():
            maps = maps / "train"
    training = salient_folder(root, maps, skip_missing=skip)
    if len(training.class_names) < 2:
        raise CamlucidaError(
            f"{str(root)!r} holds one class only, {training.class_names[0]!r}; expected a subfolder for each class"
        )
    for _, reason in training.skipped[:1]:
        complain(f"note: {len(training.skipped)} files left out, such as {reason}")
    if val is None:
        training, held = hold_out(training)
    else:
        held = salient_folder(val, class_names=training.class_names)
    # Built once before, so that a name or weights that cannot be had are told at once.
    start = build_start(
        recipe.model, len(training.class_names), architecture=recipe.architecture, pretrained=recipe.pretrained,
        size=recipe.size, layer=None if recipe.cam.cam_layer is None else str(recipe.cam.cam_layer),
    )  # fmt: skip
    validation = PhotoSet(held, start.preprocess, threads=threads)
    others = validation
    if test is not None:
        folder = salient_folder(test, class_names=training.class_names)
        others = PhotoSet(folder, start.preprocess, threads=threads)
    return Sets(PhotoSet(training, start.preprocess, threads=threads), validation, others)


def _there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
