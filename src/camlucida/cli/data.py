"""``camlucida data``: the kinds of data sets, and the images of the walls paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlucida.cli.listings import print_summaries
from camlucida.cli.shared.console import complain, print_json, print_lines, shown
from camlucida.cli.shared.opening import photos_of
from camlucida.cli.shared.options import (
    AsJson,
    Command,
    count_option,
    option,
    out_option,
    seed_option,
)
from camlucida.cli.shared.writing import out_folder, write_text
from camlucida.common.errors import CamlucidaError

if TYPE_CHECKING:
    from camlucida.data.stack_mix import StackMix

data = typer.Typer(invoke_without_command=True)

LeaveOut = Annotated[
    list[str] | None,
    option(
        "KEY|FILE.txt",
        "Leave out an image that a look has ruled out, by its key, or those that a text file lists, one a line; "
        "another pair of its class takes its place. Repeat the option for several.",
    ),
]
PairsSeed = Annotated[int, seed_option("the classes and pairs")]
Pairs = Annotated[int, count_option(what="How many images, each of another class, there are.")]


def left_out(texts: list[str] | None) -> set[str]:
    """The keys that were named, or listed in files."""
    keys: set[str] = set()
    for text in texts or ():
        if not text.endswith(".txt"):
            keys.add(text)
            continue
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CamlucidaError(f"the list {text!r} cannot be read: {error}") from error
        keys |= {line.strip() for line in lines} - {""}
    return keys


@data.callback()
def list_kinds(context: typer.Context, as_json: AsJson = False) -> None:
    """List the kinds of data sets and their options; or make the images of the walls paper.

    Options are set as in camlucida evaluate voc:VOCdevkit,year=2012
    """
    from camlucida.data import list_data

    if context.invoked_subcommand is None:
        print_summaries(list_data(), as_json=as_json)


@data.command("stack-mix", cls=Command)
def stack_mix(
    photos: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="The photos, such as imagenet:PATH or a folder with one subfolder per class.",
        ),
    ],
    count: Pairs = 100,
    leave_out: LeaveOut = None,
    seed: PairsSeed = 0,
    out: Annotated[Path, out_option()] = Path("camlucida-out/stack-mix"),
) -> None:
    """Write STACK-MIX as pictures to look over: two photos of a class, the second in rows 170 to 223 of 224.

    In keys.csv stands the key of each picture. What a look rules out is named with --leave-out; the folder is then what
    --stack-mix of camlucida reproduce wall-table1 takes.

    [bold]camlucida data stack-mix imagenet:ILSVRC2012 --out stackmix[/]
    """
    from camlucida.data.images import find_images
    from camlucida.data.stack_mix import refuse_unknown

    keys = left_out(leave_out)
    drawn = _drawn(photos, count, seed, keys)
    refuse_unknown(keys, drawn)
    rows = []
    with out_folder(out):
        for number, sample in enumerate(drawn):
            name = f"{number:03d}.png"
            sample.picture().save(out / name)
            rows.append((name, sample.key, sample.label_name))
        write_text(out / "keys.csv", _csv([("file", "key", "class"), *rows]))
    if others := len(find_images(out)) - len(rows):
        complain(
            f"note: {others} other pictures lie in '{shown(out)}'; remove them before you use the folder"
        )
    print_lines(f"{len(rows)} pictures of 224 x 224 pixels", out)


@data.command("stack-gen-prompts", cls=Command)
def stack_gen_prompts(
    photos: Annotated[
        str | None,
        option(
            "DATA",
            "The photos that STACK-MIX is made of, for the same classes where some of ImageNet's animals are missing.",
        ),
    ] = None,
    count: Pairs = 100,
    seed: PairsSeed = 0,
    out: Annotated[Path | None, out_option("Write label, class and prompt as CSV.", "FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the prompts of STACK-GEN for an image generator: one for each class of STACK-MIX with this seed.

    [bold]camlucida data stack-gen-prompts --out prompts.csv[/]
    """
    from camlucida.data.stack_mix import ANIMALS
    from camlucida.data.stack_mix import stack_gen_prompts as prompts_for
    from camlucida.models.torchvision_models import describe_torchvision

    classes: Collection[int] = ANIMALS
    if photos is not None:
        drawn = _drawn(photos, count, seed, set())
        classes = [s.label for s in drawn if s.label is not None]
    names = describe_torchvision("vgg16")[1] or ()
    made = prompts_for(names, classes, count=count, seed=seed)
    if out is not None:
        write_text(out, _csv([("label", "class", "prompt"), *made]))
    if as_json:
        print_json([dict(zip(("label", "class", "prompt"), row, strict=True)) for row in made])
    else:
        print_lines(*((out,) if out is not None else (prompt for *_, prompt in made)))


def _drawn(photos: str, count: int, seed: int, leave_out: set[str]) -> StackMix:
    """STACK-MIX of ImageNet's animals, as published."""
    from camlucida.data.stack_mix import ANIMALS, StackMix
    from camlucida.models.torchvision_models import describe_torchvision

    found = photos_of(photos, describe_torchvision("vgg16")[1])
    return StackMix(found, count=count, classes=ANIMALS, leave_out=leave_out, seed=seed)


def _csv(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
