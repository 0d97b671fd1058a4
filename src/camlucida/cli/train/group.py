"""``camlucida train``: networks for the offline benchmarks, a masked one, and training with maps in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import bars, print_json, print_lines, shown
from camlucida.cli.shared.options import AsJson, Command, out_option, seed_option
from camlucida.cli.train.balance import balance
from camlucida.cli.train.masked import masked_vgg
from camlucida.cli.train.salience import salience
from camlucida.cli.train.sham import sham
from camlucida.common.errors import CamlucidaError

train = typer.Typer(
    help="Train networks: small ones for the offline benchmarks, the masked VGG, and any with maps in the loss.",
    no_args_is_help=True,
)


@train.callback()
def _train() -> None:
    """Train networks: small ones for the offline benchmarks, the masked VGG, and any with maps in the loss."""


train.command(cls=Command)(salience)
train.command(cls=Command)(sham)
train.command(cls=Command)(balance)
train.command("masked-vgg", cls=Command)(masked_vgg)


@train.command(cls=Command)
def digits(
    seed: Annotated[int, seed_option("images, weights and order")] = 0,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the training images.")] = 7,
    size: Annotated[int, typer.Option(metavar="PX", help="Height and width of the images.")] = 64,
    images: Annotated[int, typer.Option(metavar="N", help="Images to train on.")] = 10_000,
    out: Annotated[
        Path | None,
        out_option(
            "Where weights and record go. (default: the cache, in which --model digits looks)"
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace the model of the cache, also by one that was trained otherwise.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the model 'digits': a small network that tells digits on photos apart.

    The pixels of each digit are known, so that maps can be judged exactly. Takes one or two minutes on two cores.
    """
    from camlucida.models.small import RECORD
    from camlucida.training import train_digits

    if not replace:
        _keep(out, {"seed": seed, "epochs": epochs, "size": size, "images": images})
    with bars() as progress:
        found = train_digits(
            seed, epochs=epochs, size=size, images=images, out=out, progress=progress
        )
    record = {**found.record, "folder": shown(found.weights.parent)}
    if as_json:
        print_json(record)
        return
    name = "digits" if out is None else f"digits:{shown(out)}"
    print_lines(
        f"accuracy {found.accuracy:.1%} on {record['test']['samples']} test images with other digits on "
        f"other photos (guessing one of ten digits gives 10 %); {record['parameters']:,} parameters, "
        f"{record['seconds']:.0f} s",
        *([_WEAK] if found.accuracy < _LEARNED else []),
        found.weights,
        found.weights.parent / RECORD,
        f"It is the model {name}: camlucida audit all --model {name}, or camlucida evaluate digits --model {name} "
        "--method gradcam --metric pointing_game",
    )


_LEARNED = 0.5
_WEAK = "It has learned little, and maps of it say little: train it longer, with --epochs 7, which are the usual ones."


def _keep(out: Path | None, asked: Mapping[str, int]) -> None:
    """Refuse to replace a model that was trained otherwise.

    Raises:
        CamlucidaError: naming both, and what to do.
    """
    from camlucida.models.cache import cache_folder
    from camlucida.models.small import read_record

    try:
        held = read_record(out or cache_folder())
    except CamlucidaError:
        return  # a damaged one is replaced
    if held is None:
        return
    had = {
        "seed": held.get("seed"),
        "epochs": held.get("epochs"),
        "size": held.get("config", {}).get("size"),
        "images": held.get("training", {}).get("samples"),
    }
    changed = [
        f"{name} {had[name]} and not {value}" for name, value in asked.items() if had[name] != value
    ]
    if changed:
        right = held.get("accuracy")
        known = f", with an accuracy of {right:.1%}" if isinstance(right, float) else ""
        raise CamlucidaError(
            f"there is a model digits already that was trained otherwise ({', '.join(changed)}{known}); write the new "
            "one elsewhere with --out FOLDER, or replace it with --replace"
        )


@train.command(cls=Command)
def planted(
    world: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The world: wall, mosaic, watermark, texture, and, or, creatures, objects or scenes; "
            "wall@1 has other channels.",
        ),
    ],
    images: Annotated[int, typer.Option(metavar="N", help="Images to try it on.")] = 100,
    seed: Annotated[int, seed_option("images")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build a network of which it is known what it looks at, and prove it.

    Nothing is learned: the weights are written down. Use it as --model planted:NAME on --data planted:NAME.
    """
    from camlucida.training import prove_planted

    proof = prove_planted(world, images=images, seed=seed)
    if as_json:
        print_json(asdict(proof))
        return
    print_lines(
        f"accuracy {proof.accuracy:.1%} on {proof.images} images",
        f"without all that does not matter, the logit of the label changes by {proof.unmoved:.1e} of the largest",
        f"use it with: --model planted:{world} --data planted:{world.partition('@')[0]}",
    )
