"""The grammar ``name:key=value,key=value`` of ``--method`` and ``--target``.

Values with commas are quoted: ``cell:layer="a,b"``. What a value may be is read off the option's type, so
that a new method or target needs nothing here.
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from camlucida.common.errors import CamlucidaError, MethodError, TargetError

if TYPE_CHECKING:
    from camlucida.methods import Method
    from camlucida.targets import Target

SEVERAL = "/"
"""Stands between the members of a value that holds several, as in ``iou:thresholds=0.3/0.5``."""

_PAIR = re.compile(r"""\s*([^=,]*?)\s*=\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""")
_TRUE, _FALSE, _NONE = {"true", "yes", "on"}, {"false", "no", "off"}, {"none", "null"}


def split(text: str, error: type[CamlucidaError] = CamlucidaError) -> tuple[str, dict[str, str]]:
    """Take ``name:key=value,key=value`` apart.

    Args:
        text: As the user wrote it. The name ends at the first colon; a value may be quoted with ``"`` or
            ``'``, and must be where it holds a comma.
        error: What is raised.

    Returns:
        The name, and the values as text; ``-`` in keys has become ``_``.

    Raises:
        CamlucidaError: The text does not follow the grammar, or a key comes twice.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not name:
        raise error(f"{text!r} has no name; write name or name:key=value,key=value")
    options: dict[str, str] = {}
    position = 0
    while position < len(rest):
        found = _PAIR.match(rest, position)
        if found is None or not found[1] or not found[2]:
            broken = rest[position:].partition(",")[0]
            raise error(f"{text!r}: expected key=value, got {broken!r}")
        key, value = found[1].replace("-", "_"), found[2]
        if key in options:
            raise error(f"{text!r}: {key} is given twice")
        if value[0] in "\"'":
            if len(value) < 3 or value[0] != value[-1]:
                raise error(f"{text!r}: the quoted value of {key} has no end or is empty")
            value = value[1:-1]
        options[key] = value
        position = found.end()
    if (colon and not options) or rest.rstrip().endswith(","):
        raise error(f"{text!r}: expected key=value at the end")
    return name, options


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
    from camlucida.methods import build, entry
    from camlucida.methods.smoothing import SMOOTHING

    name, written = split(text, MethodError)
    row = entry(name)
    known = {**_options(row.method), **(_options(row.target) if row.target else {})}
    known |= {name: _Option(name, bool, False) for name in SMOOTHING}
    options = _convert(row.name, written, known, MethodError)
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
        raise TargetError(f"unknown target {name!r}{_nearest(plain, _TARGETS)}")
    kind: type[Target] = getattr(targets, _TARGETS[plain])
    options = _convert(plain, written, _options(kind), TargetError)
    if kind is targets.Cell:
        if class_ is not None:
            raise TargetError("a cell belongs to no class; leave out --class")
        if not options.get("layer"):
            raise TargetError("cell needs a layer: cell:layer=NAME,row=0,col=0")
        return kind(**options)
    return kind(classes=class_, **options)  # type: ignore[call-arg]


# ---- metrics ------------------------------------------------------------------------------------


def parse_metric(text: str) -> tuple[str, dict[str, Any]]:
    """A metric's registered name and its options from ``name:key=value,...``.

    Raises:
        CamlucidaError: The name or an option is unknown, or a value does not fit.
    """
    from camlucida.metrics import build_metric, metric_entry

    name, written = split(text)
    row = metric_entry(name)
    options = _convert(row.name, written, _options(row.metric), CamlucidaError)
    build_metric(row.name, **options)
    return row.name, options


# ---- values -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Option:
    """A field that can be set: its type where it is declared, else its default's."""

    name: str
    hint: Any
    default: Any


def _options(owner: type[Any]) -> dict[str, _Option]:
    """The options of a method or target; a class is chosen with ``--class``."""
    try:
        hints = get_type_hints(owner)
    except Exception:  # a type of the user's own that only a type checker can see
        hints = {}
    found = {}
    for field in fields(owner):
        if field.name == "classes" or not field.init:
            continue
        default = None if field.default is MISSING else field.default
        found[field.name] = _Option(field.name, hints.get(field.name), default)
    return found


def _convert(
    owner: str,
    written: Mapping[str, str],
    known: Mapping[str, _Option],
    error: type[CamlucidaError],
) -> dict[str, Any]:
    values = {}
    for key, text in written.items():
        if key not in known:
            listed = ", ".join(known) or "none"
            raise error(
                f"{owner} has no option {key!r}{_nearest(key, known, 1)} (options: {listed})"
            )
        option = known[key]
        hint = option.hint
        if hint is None or hint is Any:
            hint = Any if option.default is None else type(option.default)
        fitting, value = _read(text, hint)
        if not fitting:
            choices = [str(c) for c in _choices(hint)]
            near = _nearest(text, choices, 1) if choices else ""
            raise error(f"{owner}: {key} must be {_expected(hint)}, got {text!r}{near}")
        values[key] = value
    return values


def _read(text: str, hint: Any) -> tuple[bool, Any]:
    """Whether the text is a value of the type, and the value."""
    if hint is Any:
        return True, _guess(text)
    if get_origin(hint) is Literal:
        return next(((True, c) for c in get_args(hint) if str(c) == text), (False, None))
    if get_origin(hint) is tuple:
        member = get_args(hint)[0]
        read = [_read(part, member) for part in text.split(SEVERAL)]
        return all(fitting for fitting, _ in read), tuple(value for _, value in read)
    if get_origin(hint) in {Union, types.UnionType}:
        members = sorted(get_args(hint), key=lambda member: member is str)  # anything is a str
        return next((r for member in members if (r := _read(text, member))[0]), (False, None))
    try:
        return hint in _READERS, _READERS[hint](text) if hint in _READERS else None
    except ValueError:
        return False, None


def _none(text: str) -> None:
    if text.lower() not in _NONE:
        raise ValueError(text)


def _bool(text: str) -> bool:
    if text.lower() in _TRUE | {"1"}:
        return True
    if text.lower() in _FALSE | {"0"}:
        return False
    raise ValueError(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise ValueError(text)
    return value


_READERS: dict[Any, Callable[[str], Any]] = {
    types.NoneType: _none,
    bool: _bool,
    int: int,
    float: _float,
    str: str,
}
_WORDS = {types.NoneType: "none", bool: "true or false", int: "a whole number", float: "a number"}


def _guess(text: str) -> Any:
    """Of an option whose type nobody knows."""
    for reader in (_none, int, _float):
        try:
            return reader(text)
        except ValueError:
            pass
    lower = text.lower()
    return lower in _TRUE if lower in _TRUE | _FALSE else text


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in {Union, types.UnionType}:
        return [choice for member in get_args(hint) for choice in _choices(member)]
    return []


def _expected(hint: Any) -> str:
    choices = [str(choice) for choice in _choices(hint)]
    members = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    words = [_WORDS[member] for member in members if member in _WORDS]
    if choices:
        words.insert(0, f"one of {', '.join(choices)}")
    if get_origin(hint) is tuple:
        words.append(f"{_expected(get_args(hint)[0])}, or several with {SEVERAL} between them")
    return " or ".join(words) or "set in Python; it has no form on the command line"


def _nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if count == 1:
        return f"; did you mean {near[0]!r}?" if near else ""
    return f"; {'nearest' if near else 'known'}: {', '.join(near or names)}"
