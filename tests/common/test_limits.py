"""Bounds of numbers, declared in a field's type."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.limits import (
    Count,
    Kernel,
    Limits,
    NotNegative,
    Positive,
    Share,
    check_fields,
)


@dataclass
class Options:
    steps: Count = 1
    rate: Positive = 0.1
    noise: NotNegative | None = None
    share: Share = 0.5
    rest: Annotated[float, Limits(0, 1, open_low=True, open_high=True)] = 0.5
    kind: Literal["a", "b"] = "a"
    either: Count | Literal["auto"] = "auto"
    free: float = -3.0
    seed: int = 0
    width: Kernel = 3
    several: tuple[float, ...] = ()


def test_what_fits():
    for options in (Options(), Options(noise=0.0, share=1, either=3, rate=1e-9)):
        check_fields(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, r"steps must be a whole number in \[1, 1000000\], got 0"),
        ({"steps": 10**400}, r"in \[1, 1000000\], got 1000"),
        ({"steps": 1.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"rate": 0}, "rate must be a number > 0"),
        ({"rate": float("nan")}, "a finite number > 0"),
        ({"rate": float("inf")}, "a finite number > 0"),
        ({"free": float("nan")}, "free must be a finite number"),
        ({"free": 1e300}, "a number of at most 1e"),
        ({"seed": 2**64}, "a whole number of at most 9e"),
        ({"width": 4}, "a whole number >= 1, odd, got 4"),
        ({"several": (1.0, float("inf"))}, "several must be a finite number"),
        ({"noise": -1}, "noise must be a number >= 0"),
        ({"share": 1.1}, r"in \[0, 1\]"),
        ({"rest": 1}, r"in \(0, 1\)"),
        ({"kind": "c"}, "one of 'a', 'b', got 'c'"),
        ({"either": "none"}, r"a whole number in \[1, 1000000\] or one of 'auto'"),
    ],
)
def test_what_does_not(options, words):
    with pytest.raises(MethodError, match=words):
        check_fields(Options(**options), MethodError)
    with pytest.raises(CamlucidaError):
        check_fields(Options(**options))


def test_several_words_in_a_tuple():
    @dataclass
    class Several:
        kinds: tuple[Literal["a", "b"], ...] = ()

    check_fields(Several(("a", "b", "a")))
    with pytest.raises(CamlucidaError, match="kinds must be one of 'a', 'b', got"):
        check_fields(Several(("a", "c")))
