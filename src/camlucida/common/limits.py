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
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number lies within."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        """Such as ``">= 1"`` and ``"in [0, 1)"``."""
        if math.isinf(self.high):
            return f"{'>' if self.open_low else '>='} {self.low:g}"
        ends = f"{self.low:g}, {self.high:g}"
        return f"in {'(' if self.open_low else '['}{ends}{')' if self.open_high else ']'}"


Count = Annotated[int, Limits(1)]
Positive = Annotated[float, Limits(0, open_low=True)]
NotNegative = Annotated[float, Limits(0)]
Share = Annotated[float, Limits(0, 1)]


def check_fields(owner: object, error: type[CamlucidaError] = CamlucidaError) -> None:
    """Check every field of a dataclass that is one of a few words, or a number within bounds, by its type.

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
            raise error(f"{name} must be {words}, got {getattr(owner, name)!r}")


def _test(hint: Any, value: Any) -> tuple[bool, str]:
    """Whether a value is of a type, as far as that is checked, and what it may be."""
    if hint is types.NoneType:
        return value is None, ""
    if get_origin(hint) is Literal:
        return value in get_args(hint), f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is tuple and isinstance(value, tuple):
        tests = [_test(get_args(hint)[0], one) for one in value]
        return all(fits for fits, _ in tests), next((text for fits, text in tests if not fits), "")
    if get_origin(hint) is not Annotated:
        return True, ""
    kind, *facts = get_args(hint)
    limits = next((fact for fact in facts if isinstance(fact, Limits)), Limits())
    number = Integral if kind is int else Real
    fits = not isinstance(value, bool) and isinstance(value, number) and float(value) in limits
    return fits, f"a {'whole ' if kind is int else ''}number {limits}"
