"""Bounds of an option's number, declared in its type: ``n_steps: Count = 50``."""

from __future__ import annotations

import math
import types
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from camlucida.common.errors import CamlucidaError


@dataclass(frozen=True)
class Limits:
    """Which numbers an option may be.

    Attributes:
        low: the smallest.
        high: the largest.
        open_low: whether the smallest itself is none of them.
        open_high: whether the largest itself is none of them.
        odd: whether only odd ones are among them.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    odd: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number lies within."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (not self.odd or value % 2 == 1)

    def __str__(self) -> str:
        """Such as ``">= 1"`` and ``"in [0, 1)"``; empty where all numbers are within."""
        if math.isinf(self.high):
            low = f"{'>' if self.open_low else '>='} {self.low:g}"
            return "" if math.isinf(self.low) else f"{low}{', odd' if self.odd else ''}"
        ends = f"{self.low:g}, {self.high:.7g}"
        return f"in {'(' if self.open_low else '['}{ends}{')' if self.open_high else ']'}"


_LARGEST = {int: 2.0**63 - 1024, float: 1e30}
"""What any number may be at most: what arithmetic in 64 bits and in single precision can carry."""

Count = Annotated[int, Limits(1, 1_000_000)]
Kernel = Annotated[int, Limits(1, odd=True)]
Positive = Annotated[float, Limits(0, open_low=True)]
NotNegative = Annotated[float, Limits(0)]
Share = Annotated[float, Limits(0, 1)]


def check_fields(owner: object, error: type[CamlucidaError] = CamlucidaError) -> None:
    """Check every field of a dataclass that is one of a few words, or a number, by its type.

    A number must be finite and lie within the bounds of its type.

    Args:
        owner: the dataclass object.
        error: what is raised.

    Raises:
        CamlucidaError: naming the field, its value and what it may be.
    """
    for name, hint in get_type_hints(type(owner), include_extras=True).items():
        members = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
        tests = [_test(member, getattr(owner, name, None)) for member in members]
        if not any(fits for fits, _ in tests):
            words = " or ".join(text for _, text in tests if text)
            raise error(f"{name} must be {words}, got {getattr(owner, name)!r:.60}")


def allowed(hint: Any) -> str:
    """What an option of a type may be, in words, such as ``"a whole number >= 1 or auto"``."""
    members = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    words = [_allowed(member) for member in members]
    return " or ".join(dict.fromkeys(filter(None, words)))


def _allowed(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"several of: {allowed(get_args(hint)[0])}"
    plain = {types.NoneType: "none", bool: "true or false", str: "a text"}
    if get_origin(hint) is Literal:
        words = [str(choice) for choice in get_args(hint)]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    return plain[hint] if hint in plain else _test(hint, None)[1]


def _test(hint: Any, value: Any) -> tuple[bool, str]:
    """Whether a value is of a type, as far as that is checked, and what it may be."""
    if hint is types.NoneType:
        return value is None, ""
    if get_origin(hint) is Literal:
        return value in get_args(hint), f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple and isinstance(value, tuple):
        tests = [_test(get_args(hint)[0], one) for one in value]
        return all(fits for fits, _ in tests), next((text for fits, text in tests if not fits), "")
    kind, *facts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if kind not in _LARGEST:
        return True, ""
    limits = next((fact for fact in facts if isinstance(fact, Limits)), Limits())
    most, number = _LARGEST[kind], Integral if kind is int else Real
    is_number = isinstance(value, number) and not isinstance(value, bool)
    carried = is_number and -most <= value <= most
    endless = is_number and not carried and (value != value or value in (math.inf, -math.inf))  # noqa: PLR0124
    kinds = f"{'finite ' if endless else ''}{'whole ' if kind is int else ''}"
    words = f"a {kinds}number {limits}".rstrip()
    if is_number and not carried and not endless and limits.high > most:
        words += f" of at most {most:.0e}"
    return carried and value in limits, words
