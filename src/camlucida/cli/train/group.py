"""``camlucida train``: networks for the offline benchmarks, a masked one, and training with maps in the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.shared.console import bars, print_json, print_lines, shown
from camlucida.cli.shared.options import AsJson, Command, out_option, seed_option
from camlucida.cli.train.masked import masked_vgg
from camlucida.cli.train.salience import salience

train = typer.Typer(
    help="Train networks: small ones for the offline benchmarks, the masked VGG, and any with maps in the loss.",
    no_args_is_help=True,
)


@train.callback()
def _train() -> None:
    """Train networks: small ones for the offline benchmarks, the masked VGG, and any with maps in the loss."""


train.command(cls=Command)(salience)
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
    as_json: AsJson = False,
) -> None:
    """Train the model 'digits': a small network that tells digits on photos apart.

    The pixels of each digit are known, so that maps can be judged exactly. Takes one or two minutes on two cores.
    """
    from camlucida.models.small import RECORD
    from camlucida.training import train_digits

    with bars() as progress:
        found = train_digits(
            seed, epochs=epochs, size=size, images=images, out=out, progress=progress
        )
    record = {**found.record, "folder": shown(found.weights.parent)}
    if as_json:
        print_json(record)
        return
    print_lines(
        f"accuracy {found.accuracy:.1%} on {record['test']['samples']} test images with other digits on "
        f"other photos; {record['parameters']:,} parameters, {record['seconds']:.0f} s",
        found.weights,
        found.weights.parent / RECORD,
    )
