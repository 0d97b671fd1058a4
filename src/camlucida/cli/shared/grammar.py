"""The grammar ``name:key=value,key=value`` of ``--method`` and ``--target``.

Values with commas are quoted: ``cell:layer="a,b"``. What a value may be is read off the option's type, so
that a new method or target needs nothing here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camlucida.common.errors import CamlucidaError, MethodError, TargetError
from camlucida.common.grammar import Option, options_of, read_values, split

if TYPE_CHECKING:
    from camlucida.methods import Method
    from camlucida.targets import Target

# ---- methods ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodChoice:
    """A method as chosen on the command line.

    Attributes:
        name: The registered name.
        options: What goes to the method or, for a name that implies one, to its target.
        method: The method that this makes.
    """

    name: str
    options: Mapping[str, Any]
    method: Method


def parse_method(text: str, target: Target | None = None) -> MethodChoice:
    """A method and its options from ``name:key=value,...``.

    Args:
        text: Such as ``gradcam++:form=true`` or ``diffgradcam:aggregator=max``.
        target: What it is to explain; checked where the name implies a target of its own.

    Raises:
        MethodError: The name or an option is unknown, with the nearest ones, or a value does not fit.
    """
    from camlucida.methods import build, method_row
    from camlucida.methods.smoothing import SMOOTHING

    name, written = split(text, MethodError)
    row = method_row(name)
    known = {
        **options_of(row.make),
        **(options_of(row.target, without=("classes",)) if row.target else {}),
    }
    known |= {name: Option(name, bool, False) for name in SMOOTHING}
    options = read_values(row.name, written, known, MethodError)
    try:
        method, _ = build(row.name, target, **options)
    except MethodError:
        raise
    except CamlucidaError as error:
        raise MethodError(f"{row.name}: {error}") from error
    return MethodChoice(row.name, options, method)


# ---- targets ------------------------------------------------------------------------------------

_TARGETS = {
    "logit": "Logit",
    "margin": "LogitMargin",
    "probability": "Probability",
    "log-probability": "LogProbability",
    "exp-logit": "ExpLogit",
    "finer": "FinerMargin",
    "rest": "ResidualSoftmax",
    "cell": "Cell",
}
TARGET_NAMES = tuple(_TARGETS)
"""What ``--target`` knows."""


def chosen_methods(texts: Sequence[str] | None) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Names and options of ``--method``; ``None`` where it is not given."""
    choices = [parse_method(text) for text in texts or ()]
    return [(one.name, one.options) for one in choices] or None


def parse_target(text: str, class_: str | None = None) -> Target:
    """A target from ``name:key=value,...`` and the class of ``--class``.

    Args:
        text: Such as ``margin:aggregator=max`` or ``cell:layer=features.3,row=2,col=3``.
        class_: Index or name of the class, ``None`` for the predicted one.

    Raises:
        TargetError: The name or an option is unknown, with the nearest ones, or a value does not fit.
    """
    from camlucida import targets

    name, written = split(text, TargetError)
    plain = name.lower().replace("_", "-").replace(" ", "-")
    if plain not in _TARGETS:
        near = difflib.get_close_matches(plain, _TARGETS, n=3, cutoff=0.5)
        listed = f"{'nearest' if near else 'known'}: {', '.join(near or _TARGETS)}"
        raise TargetError(f"unknown target {name!r}; {listed}")
    kind: type[Target] = getattr(targets, _TARGETS[plain])
    options = read_values(plain, written, options_of(kind, without=("classes",)), TargetError)
    if kind is targets.Cell:
        if class_ is not None:
            raise TargetError("a cell belongs to no class; leave out --class")
        if not options.get("layer"):
            raise TargetError("cell needs a layer: cell:layer=NAME,row=0,col=0")
        return kind(**options)
    return kind(classes=class_, **options)  # type: ignore[call-arg]
