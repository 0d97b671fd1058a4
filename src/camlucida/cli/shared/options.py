"""The options that several commands share: each with one type, one name and one help text.

Where only a word of the help differs, a function takes it. A default stands in the command's own signature.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from camlucida.cli.shared.words import option_words
from camlucida.common.arguments import written_by
from camlucida.common.errors import CamlucidaError
from camlucida.common.printable import printable as shown


def option(metavar: str, text: str, least: float | None = None) -> Any:
    """An option that takes a value, with its help and, of a number, the smallest that makes sense."""
    return typer.Option(metavar=metavar, help=text, min=least)


# ---- what is explained ------------------------------------------------------------------------------

Photos = Annotated[
    list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")
]
Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="The photo.")]
ClassFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="A folder with one subfolder of photos per class: FOLDER/CLASS/photo.jpg."
    ),
]  # fmt: skip

MODELS = (
    "The model: embedded, digits, torchvision:NAME, timm:NAME, hf:ORG/NAME, masked-vgg:FILE, a checkpoint file, or "
    "your own function that returns it, such as path/to/file.py:factory, whose code is run."
)
"""What :func:`camlucida.load_model` takes."""


def model_option(more: str = "", *, known: str = MODELS, metavar: str = "NAME|FILE") -> Any:
    """``--model``, ``-m``; ``more`` is added to the help, such as the default where it is no name."""
    return typer.Option("--model", "-m", metavar=metavar, help=f"{known} {more}".strip())


Device = Annotated[
    str | None,
    option(
        "DEVICE",
        "The device that computes, such as cuda or cpu. (default: a GPU of CUDA where there is one, else cpu)",
    ),
]
ClassName = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        help="The explained class, by name or index. (default: the predicted class)",
    ),
]
TargetText = Annotated[
    str,
    option(
        "TARGET",
        "The number that is explained: logit, margin, probability, log-probability, exp-logit, finer, rest, "
        "segmentation or cell, with options as in margin:aggregator=max or cell:layer=NAME,row=2,col=3.",
    ),
]

# ---- how --------------------------------------------------------------------------------------------


def methods_option(default: str, more: str = "Repeat the option for several methods.") -> Any:
    """``--method``, several times, each with its options; ``default`` is empty where it must be given."""
    ending = f" (default: {default})" if default else ""
    return typer.Option(
        "--method",
        metavar="METHOD",
        help="A method of camlucida methods, as NAME or NAME:key=value,key=value; or a function of your own that "
        "returns maps, as package.module:function or path/to/file.py:function, whose code is run. "
        f"{more}{ending}",
    )


OnlyMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="Evaluate this method only; repeat the option for several methods.",
    ),
]
OneMethod = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="A method of camlucida methods, as NAME or NAME:key=value,key=value.",
    ),
]
IcamMethod = Annotated[
    str,
    typer.Option(
        "--method", metavar="METHOD", help="I-CAM with its options, as in icam:n_perturb=16."
    ),
]


def layer_option(default: str, what: str = "The explained layer.") -> Any:
    """``--layer``; ``what`` says what it is the layer of."""
    return typer.Option(
        "--layer",
        metavar="LAYER",
        help=f"{what} The names are those of camlucida layers --tree. (default: {default})",
    )


FusedLayers = Annotated[
    list[str] | None,
    layer_option(
        "the last feature map",
        "The explained layer. Repeat the option for several layers, which are fused.",
    ),
]
Layers = Annotated[
    list[str] | None,
    layer_option("all blocks", "An explained layer. Repeat the option for several layers."),
]
AttackedLayer = Annotated[
    str | None, layer_option("the last feature map", "The attacked and explained layer.")
]
AuditData = Annotated[
    str | None,
    option(
        "KIND|PATH",
        "The photos, as camlucida evaluate takes them. (default: digits for the model digits, else photos)",
    ),
]
AuditedMethods = Annotated[
    list[str] | None,
    methods_option("the methods of few passes; with --full all methods"),
]
AuditedLayer = Annotated[str | None, layer_option("the last feature map")]
Steps = Annotated[
    str | None,
    option(
        "PRESET",
        "How raw maps are scaled: pytorch-grad-cam, signed or unscaled. (default: the method's own way)",
    ),
]


def seed_option(of: str) -> Any:
    """``--seed`` of what is drawn with it."""
    return typer.Option("--seed", metavar="N", callback=_seed, help=f"The seed of {of}.")


def _seed(value: int) -> int:
    """Refuse what some generator does not take; a range of the option would fill the help with its digits."""
    if not 0 <= value < 2**32:
        raise CamlucidaError(f"--seed takes 0 to {2**32 - 1}, got {value}")
    return value


Seed = Annotated[int, seed_option("all random numbers")]
MethodsSeed = Annotated[int, seed_option("methods that draw random numbers")]
ShamLayout = Annotated[
    str,
    option(
        "rounded|midpoints|rows",
        "The cells of a map that the SHAM mask fills: rounded is the outer ring and the corners of the next ring, "
        "midpoints the outer ring and the middles of the next ring's sides, rows the top and bottom rows.",
    ),
]
BootstrapSeed = Annotated[int, seed_option("the bootstrap behind the intervals")]
CopiesSeed = Annotated[int, seed_option("the perturbed copies of a photo")]


def batch_option(what: str) -> Any:
    """``--batch-size``; ``what`` is taken so many at a time."""
    return typer.Option(
        "--batch-size", metavar="N", min=1, help=f"How many {what} are processed at a time."
    )


BatchSize = Annotated[int, batch_option("photos")]
ImageBatchSize = Annotated[int, batch_option("images")]


def count_option(least: int = 1, what: str = "Use at most this many images.") -> Any:
    """``--count``, at least the smallest number that makes sense."""
    return typer.Option("--count", metavar="N", min=least, help=what)


Count = Annotated[int | None, count_option()]
PerClass = Annotated[
    int | None, option("N", "Draw so many photos of each class. (default: every photo is used)", 1)
]


def quick_option(full: str = "everything") -> Any:
    """``--quick/--full`` of what goes on where it stopped."""
    return typer.Option(
        "--quick/--full",
        help=f"Do what takes a few minutes on two cores, or {full}. A stopped run goes on where it was.",
    )


Quick = Annotated[bool, quick_option()]
QuickTable = Annotated[bool, quick_option("the whole table")]

# ---- faces ------------------------------------------------------------------------------------------

BACKBONES = "The face network: dlib, dlib:centred, mobilefacenet:FILE, iresnet18|34|50|100|101:FILE or facenet:FILE."
"""What :func:`camlucida.faces.load.load_embedder` takes."""

Preset = Annotated[
    str | None,
    option(
        "NAME",
        "The order of colours that a checkpoint expects: arcface (RGB) or adaface (BGR). "
        "(default: what the layout of the file suggests)",
    ),
]
Aligned = Annotated[
    bool,
    typer.Option(
        "--aligned", help="The photos are aligned crops already; no face is searched for in them."
    ),
]
PAIR_LISTS = "the folder of AR, SCface or CFP, the pairs.txt of LFW, or a .csv with the columns probe, gallery, same."
"""What :func:`camlucida.faces.pairs_file.read_pairs` takes."""


def layout_option(of: str) -> Any:
    """``--layout`` of the list of pairs that the option ``of`` names."""
    return typer.Option(
        "--layout",
        metavar="NAME",
        help=f"The layout of the list of {of}: csv, lfw, cfp-fp, cfp-ff, ar or scface; ar:wear=scarf and "
        "scface:distance=far choose the probes. (default: auto, which judges by what lies there)",
        show_default=False,
    )


def split_option(of: str) -> Any:
    """``--split`` of the list of pairs that the option ``of`` names."""
    return typer.Option(
        "--split", metavar="N", help=f"With {of}: use this split of CFP or LFW only."
    )


# ---- results ----------------------------------------------------------------------------------------


def out_option(
    what: str = "The folder where the results are written.", metavar: str = "FOLDER"
) -> Any:
    """``--out``, a folder or a file."""
    return typer.Option("--out", metavar=metavar, help=what)


AGAIN = "The same command, started again, goes on where it stopped."

Out = Annotated[Path, out_option()]
AuditOut = Annotated[
    Path, out_option("The folder where the report and the finished parts are written.")
]
TableOut = Annotated[
    Path, out_option(f"The folder where rows, tables and the page are written. {AGAIN}")
]
RunOut = Annotated[Path, out_option(f"The folder of the training run. {AGAIN}")]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

# ---- what would be lost -----------------------------------------------------------------------------


class Command(TyperCommand):
    """A command that refuses early what would be lost or cannot be read.

    That is an option that takes one value and gets several, and arguments that are files of which none is there.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command does, after a look at what is given twice."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option in order:
            takes_one = isinstance(option, TyperOption) and not (option.is_flag or option.multiple)
            if takes_one and order.count(option) > 1:
                raise CamlucidaError(
                    f"{option.opts[0]} is given {order.count(option)} times and takes one value"
                )
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            given = ctx.params.get(parameter.name or "")
            files = given if isinstance(given, list | tuple) else [given]
            if parameter.name == "data" and isinstance(given, str):
                bare = given.partition(",")[0]  # a name without a slash may be a kind of data
                files = [Path(bare)] if os.sep in bare and ":" not in bare else []
            elif not isinstance(parameter, TyperArgument):
                continue
            paths = [path for path in files if isinstance(path, Path)]
            if paths and not any(_is_there(path) for path in paths):
                raise CamlucidaError(f"no such file or folder: '{shown(paths[0])}'")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """As any command does; messages name the options of this one."""
        with written_by(option_words(self.params)):
            return super().invoke(ctx)


def _is_there(path: Path) -> bool:
    """Whether there is something of that name, a link that leads nowhere included; a name too long is raised."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def refuse_unused(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuse options that would have no effect beside the others.

    Args:
        context: The context of the running command.
        names: Parameters of the command's function.
        reason: What the user is told after the names, such as ``"with --engine ray"``: they go with it.

    Raises:
        CamlucidaError: One of them is on the command line.
    """
    given = [name for name in names if _is_given(context, name)]
    if given:
        written = [_written(context, name) for name in given]
        several = len(written) > 1
        listed = ", ".join(written[:-1]) + (" and " if several else "") + written[-1]
        raise CamlucidaError(f"{listed} {'go' if several else 'goes'} {reason}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _written(context: typer.Context, name: str) -> str:
    """A parameter as the user wrote it."""
    (parameter,) = (p for p in context.command.params if p.name == name)
    off = parameter.secondary_opts and context.params.get(name) is False
    return str((parameter.secondary_opts if off else parameter.opts)[0])
