"""The one grammar of options in text: ``name:key=value,key=value``, of data sets ``kind:path,key=value``.

Values with commas are quoted: ``cell:layer="a,b"``. What a value may be is read off the option's type, so
that a new method, metric, target or data set needs nothing here.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from camlucida.common.errors import CamlucidaError

SEVERAL = "/"
"""Stands between the members of a value that holds several, as in ``iou:thresholds=0.3/0.5``."""

_PAIR = re.compile(r"""\s*([^=,]*?)\s*=\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""")
_PAIRS = re.compile(r"""(?:,\s*[A-Za-z][\w-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^,="']*)\s*)+$""")
_TRUE, _FALSE, _NONE = {"true", "yes", "on"}, {"false", "no", "off"}, {"none", "null"}

# ---- taking apart -------------------------------------------------------------------------------


def split(text: str, error: type[CamlucidaError] = CamlucidaError) -> tuple[str, dict[str, str]]:
    """Take ``name:key=value,key=value`` apart.

    Args:
        text: What the user wrote. The name ends at the first colon; a value may be quoted with ``"`` or
            ``'``, and must be where it holds a comma.
        error: What is raised.

    Returns:
        The name, and the values as text; ``-`` in keys has become ``_``.

    Raises:
        CamlucidaError: The text does not follow the grammar, or a key comes twice.
    """
    name, colon, rest = text.partition(":")
    if not name.strip():
        raise error(f"{text!r} has no name; write name or name:key=value,key=value")
    if (colon and not rest.strip()) or rest.rstrip().endswith(","):
        raise error(f"{text!r}: expected key=value at the end")
    return name.strip(), _pairs(rest, text, error)


def split_path(text: str) -> tuple[str, dict[str, str]]:
    """Take ``path,key=value,key=value`` apart; a path may hold commas, colons and equal signs.

    Returns:
        What stands before the options at the end, and their values as text, as :func:`split` does.

    Raises:
        CamlucidaError: An option has no value, or a key comes twice.
    """
    found = _PAIRS.search(text)
    if found is None:
        return text.strip(), {}
    return text[: found.start()].strip(), _pairs(found[0][1:], text, CamlucidaError)


def _pairs(rest: str, text: str, error: type[CamlucidaError]) -> dict[str, str]:
    options: dict[str, str] = {}
    position = 0
    while position < len(rest):
        found = _PAIR.match(rest, position)
        if found is None or not found[1]:
            broken = rest[position:].partition(",")[0]
            raise error(f"{text!r}: expected key=value, got {broken!r}")
        key, value = found[1].replace("-", "_"), found[2]
        if not value:
            raise error(f"{text!r}: {key} has no value; expected key=value")
        if key in options:
            raise error(f"{text!r}: {key} is given twice")
        if value[0] in "\"'":
            if len(value) < 3 or value[0] != value[-1]:
                raise error(f"{text!r}: the quoted value of {key} has no end or is empty")
            value = value[1:-1]
        options[key] = value
        position = found.end()
    return options


# ---- options and their values -------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """Something that can be set.

    Attributes:
        name: What users write.
        hint: Its type where it is declared; ``None`` for its default's.
        default: What it is without.
    """

    name: str
    hint: Any
    default: Any = None


def options_of(owner: Callable[..., Any], *, without: Iterable[str] = ()) -> dict[str, Option]:
    """The options of a dataclass, which are its fields, or of a function or another class: its keyword-only arguments.

    Args:
        owner: The dataclass or function.
        without: Names that are no options.
    """
    is_class = isinstance(owner, type) and not is_dataclass(owner)
    try:
        hints = get_type_hints(owner.__init__ if is_class else owner)
    except Exception:  # a type of the user's own that only a type checker can see
        hints = {}
    if is_dataclass(owner):
        found: dict[str, tuple[Any, Any]] = {
            field.name: (
                field.default if field.default_factory is MISSING else field.default_factory(),
                MISSING,
            )
            for field in fields(owner)
            if field.init
        }
    else:
        given = inspect.signature(owner).parameters.values()
        found = {p.name: (p.default, p.empty) for p in given if p.kind is p.KEYWORD_ONLY}
    return {
        name: Option(name, hints.get(name), None if default is missing else default)
        for name, (default, missing) in found.items()
        if name not in without
    }


def refuse_unknown(
    owner: str,
    names: Iterable[str],
    known: Iterable[str],
    error: type[CamlucidaError] = CamlucidaError,
    what: str = "option",
) -> None:
    """Refuse options that something does not have.

    Args:
        owner: Whose options they are.
        names: The options that were given.
        known: All that there are.
        error: What is raised.
        what: What they are called.

    Raises:
        CamlucidaError: One is unknown; the nearest one is named, or all where none is near.
    """
    listed = list(known)
    for name in names:
        if name not in listed:
            near = nearest(name, listed, 1)
            all_ = f" ({what}s: {', '.join(listed) or 'none'})"
            raise error(f"{owner} has no {what} {name!r}{near or all_}")


def refuse_arguments(
    function: Callable[..., Any],
    given: Iterable[str],
    more: Iterable[str],
    error: type[CamlucidaError] = CamlucidaError,
) -> None:
    """Refuse keywords that a Python function, which passes some on, does not take.

    Args:
        function: It.
        given: The keywords that it was called with beside its own.
        more: Those that it passes on.
        error: What is raised.

    Raises:
        CamlucidaError: One is unknown; the nearest one is named, or all where none is near.
    """
    parameters = inspect.signature(function).parameters.values()
    own = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    refuse_unknown(function.__name__, given, dict.fromkeys((*own, *more)), error, "argument")


def read_values(
    owner: str,
    written: Mapping[str, str],
    known: Mapping[str, Option],
    error: type[CamlucidaError] = CamlucidaError,
) -> dict[str, Any]:
    """The values of options that were written as text.

    Args:
        owner: Whose options they are.
        written: Names and values as :func:`split` found them.
        known: All options there are.
        error: What is raised.

    Raises:
        CamlucidaError: An option is unknown, or a value does not fit its type.
    """
    refuse_unknown(owner, written, known, error)
    values = {}
    for key, text in written.items():
        hint = known[key].hint
        if hint is None or hint is Any:
            hint = Any if known[key].default is None else type(known[key].default)
        fitting, value = _read(text, hint)
        if not fitting:
            near = nearest(text, map(str, choices(hint)), 1)
            raise error(f"{owner}: {key} must be {_expected(hint)}, got {text!r:.60}{near}")
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
        several = [_read(part, member) for part in text.split(SEVERAL)]
        return all(fitting for fitting, _ in several), tuple(value for _, value in several)
    if get_origin(hint) in {Union, types.UnionType}:
        members = sorted(get_args(hint), key=_breadth)
        return next((r for member in members if (r := _read(text, member))[0]), (False, None))
    try:
        return hint in _READERS, _READERS[hint](text) if hint in _READERS else None
    except ValueError:
        return False, None


def _breadth(hint: Any) -> int:
    """How late a type is tried: anything is a str, and a tuple of them."""
    return 2 if hint is str else int(get_origin(hint) is tuple)


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
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[Any, Callable[[str], Any]] = {
    types.NoneType: _none,
    bool: _bool,
    int: int,
    float: _float,
    str: str,
}
_WORDS = {
    types.NoneType: "none",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
}


def _guess(text: str) -> Any:
    """The value of an option whose type nobody knows."""
    for reader in (_none, int, _float):
        try:
            return reader(text)
        except ValueError:
            pass
    lower = text.lower()
    return lower in _TRUE if lower in _TRUE | _FALSE else text


def choices(hint: Any) -> list[Any]:
    """The words that a value of a type may be; empty where it may be more than a few words."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in {Union, types.UnionType}:
        return [choice for member in get_args(hint) for choice in choices(member)]
    return []


def _expected(hint: Any) -> str:
    known = [str(choice) for choice in choices(hint)]
    members = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    words = [_WORDS[member] for member in members if member in _WORDS]
    if known:
        words.insert(0, f"one of {', '.join(known)}")
    if get_origin(hint) is tuple:
        words.append(f"{_expected(get_args(hint)[0])}, or several with {SEVERAL} between them")
    return " or ".join(words) or "set in Python; it cannot be written as text"


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The end of an error for an unknown name: up to ``count`` similar names, or nothing."""
    listed = list(known)
    longer = [one for one in listed if name and one.startswith(name)]
    near = longer[:count] or difflib.get_close_matches(name, listed, n=count)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
