"""The options that several commands share: each with one type, one name and one help text.

Where only a word of the help differs, a function takes it. A default stands in the command's own signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from camlucida.common.errors import CamlucidaError

# ---- what is explained ------------------------------------------------------------------------------

Photos = Annotated[
    list[Path], typer.Argument(metavar="PHOTO...", help="Picture files, or folders of them.")
]
Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="One photo.")]

MODELS = "embedded, digits, torchvision:NAME, timm:NAME, hf:ORG/NAME, or a checkpoint file."
"""What :func:`camlucida.load_model` takes."""


def model_option(more: str = "", *, known: str = MODELS, metavar: str = "NAME|FILE") -> Any:
    """``--model``, ``-m``.

    Args:
        more: What else there is to say, such as the default where it is no name.
        known: The models that can be named.
        metavar: How a model is written.
    """
    return typer.Option("--model", "-m", metavar=metavar, help=f"{known} {more}".strip())


Model = Annotated[str, model_option()]
AttackedModel = Annotated[
    str | None, model_option("A copy is attacked. (default: a small network that is trained now)")
]
Architecture = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a checkpoint file, such as timm:resnet18.")
]
ClassNames = Annotated[
    Path | None, typer.Option(metavar="FILE", help="One name per line, or a JSON list.")
]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="Such as cuda. (default: cpu)")]
ClassName = Annotated[
    str | None,
    typer.Option("--class", metavar="CLASS", help="Name or index. (default: the predicted one)"),
]
TargetText = Annotated[
    str,
    typer.Option(
        metavar="TARGET",
        help="logit, margin, probability, log-probability, exp-logit, finer, rest or cell, with options "
        "as in margin:aggregator=max or cell:layer=NAME,row=2,col=3.",
    ),
]

# ---- how --------------------------------------------------------------------------------------------


def methods_option(default: str, more: str = "repeat it for several") -> Any:
    """``--method``, several times, each with its options.

    Args:
        default: The methods without it; empty where it must be given.
        more: What is done with several.
    """
    ending = f" (default: {default})" if default else ""
    return typer.Option(
        "--method",
        metavar="METHOD",
        help=f"NAME or NAME:key=value,key=value; {more}. See camlucida methods.{ending}",
    )


def only_methods_option(more: str = "") -> Any:
    """``--method``, several times, names only."""
    return typer.Option(
        "--method", metavar="NAME", help=f"Only these; repeat it for several. {more}".strip()
    )


OnlyMethods = Annotated[list[str] | None, only_methods_option()]
IcamMethod = Annotated[
    str, typer.Option("--method", metavar="METHOD", help="I-CAM with options, as in icam:n_perturb=16.")
]  # fmt: skip


def layer_option(default: str, what: str = "The explained layer.") -> Any:
    """``--layer``, once.

    Args:
        default: The layer without it.
        what: What it is the layer of.
    """
    return typer.Option(
        "--layer", metavar="LAYER", help=f"{what} See camlucida layers. (default: {default})"
    )


FusedLayers = Annotated[
    list[str] | None,
    layer_option("the last feature map", "Repeat it for several, which are fused."),
]
Layers = Annotated[list[str] | None, layer_option("all blocks", "Repeat it for several.")]
Steps = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET",
        help="How raw maps are scaled: pytorch-grad-cam or signed. (default: the method's own)",
    ),
]


def seed_option(of: str) -> Any:
    """``--seed``.

    Args:
        of: What is drawn with it.
    """
    return typer.Option("--seed", metavar="N", callback=_seed, help=f"Of {of}.")


def _seed(value: int) -> int:
    """Refuse what some generator does not take; a range of the option would fill the help with its digits."""
    if not 0 <= value < 2**32:
        raise CamlucidaError(f"--seed takes 0 to {2**32 - 1}, got {value}")
    return value


Seed = Annotated[int, seed_option("everything that is drawn")]
BootstrapSeed = Annotated[int, seed_option("the bootstrap behind the intervals")]
CopiesSeed = Annotated[int, seed_option("the perturbed copies")]


def batch_option(what: str) -> Any:
    """``--batch-size``.

    Args:
        what: What is taken so many at a time.
    """
    return typer.Option("--batch-size", metavar="N", min=1, help=f"{what} at a time.")


BatchSize = Annotated[int, batch_option("Photos")]


def count_option(least: int = 1, what: str = "Images at most.") -> Any:
    """``--count``.

    Args:
        least: The smallest that makes sense.
        what: What is counted.
    """
    return typer.Option("--count", metavar="N", min=least, help=what)


Count = Annotated[int | None, count_option()]


def quick_option(quick: str = "A few minutes on two cores", full: str = "everything") -> Any:
    """``--quick/--full`` of what goes on where it stopped.

    Args:
        quick: How long the quick one takes.
        full: What the full one does.
    """
    return typer.Option(
        "--quick/--full", help=f"{quick}, or {full}. Both go on where they stopped."
    )


Quick = Annotated[bool, quick_option()]

# ---- faces ------------------------------------------------------------------------------------------

BACKBONES = "dlib, dlib:centred, mobilefacenet:FILE, iresnet18|34|50|100|101:FILE or facenet:FILE."
"""What :func:`camlucida.faces.load.load_embedder` takes."""

Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Colours of a checkpoint: arcface (RGB), adaface (BGR). (default: by its layout)",
    ),
]
Aligned = Annotated[
    bool, typer.Option("--aligned", help="The photos are aligned crops; search for no face.")
]
PAIR_LISTS = "the folder of AR, SCface or CFP, LFW's pairs.txt, or a .csv (probe,gallery,same)."
"""What :func:`camlucida.faces.pairs_file.read_pairs` takes."""


def layout_option(of: str) -> Any:
    """``--layout`` of a list of pairs.

    Args:
        of: The option that names the list.
    """
    return typer.Option(
        "--layout",
        metavar="NAME",
        help=f"Of {of}: csv, lfw, cfp-fp, cfp-ff, ar or scface; ar:wear=scarf and scface:distance=far choose the "
        "probes. (default: auto, by what lies there)",
        show_default=False,
    )


def split_option(of: str) -> Any:
    """``--split`` of a list of pairs.

    Args:
        of: The option that names the list.
    """
    return typer.Option("--split", metavar="N", help=f"Of {of}: one split of CFP or LFW.")


# ---- results ----------------------------------------------------------------------------------------


def out_option(what: str = "Where results go.", metavar: str = "FOLDER") -> Any:
    """``--out``.

    Args:
        what: What goes there.
        metavar: Whether it is a folder or a file.
    """
    return typer.Option("--out", metavar=metavar, help=what)


Out = Annotated[Path, out_option()]
AuditOut = Annotated[Path, out_option("Where report and finished parts go.")]
TableOut = Annotated[
    Path, out_option("Rows, tables and page; the same command goes on where it was stopped.")
]


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

# ---- what would be lost -----------------------------------------------------------------------------


class Command(TyperCommand):
    """A command that refuses an option that takes one value and gets several: all but one would be lost."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command does, after a look at what is given twice."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option in order:
            takes_one = isinstance(option, TyperOption) and not (option.is_flag or option.multiple)
            if takes_one and order.count(option) > 1:
                raise CamlucidaError(
                    f"{option.opts[0]} is given {order.count(option)} times and takes one value"
                )
        return super().parse_args(ctx, args)


def refuse_unused(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuse options that would have no effect beside the others.

    Args:
        context: Of the running command.
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
