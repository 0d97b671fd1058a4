from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import options_of, read_values, split


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("gradcam", "gradcam", {}),
        (" gradcam ", "gradcam", {}),
        ("gradcam++:form=true", "gradcam++", {"form": "true"}),
        ("a:b=1,c=2", "a", {"b": "1", "c": "2"}),
        ("a: b = 1 , c = 2 ", "a", {"b": "1", "c": "2"}),
        ("a:max-entries=9", "a", {"max_entries": "9"}),
        ("cell:layer=features.3,row=-1", "cell", {"layer": "features.3", "row": "-1"}),
        ('a:b="1,2",c=3', "a", {"b": "1,2", "c": "3"}),
        ("a:b='x=y:z',c=3", "a", {"b": "x=y:z", "c": "3"}),
        ("a:b=x=y", "a", {"b": "x=y"}),
        ("a:b=c:d", "a", {"b": "c:d"}),
    ],
)
def test_the_grammar(text, name, options):
    assert split(text) == (name, options)


@pytest.mark.parametrize(
    "text",
    ["", " ", ":a=1", "a:", "a:b", "a:b=", "a:=1", "a:b=1,", "a:b=1,,c=2", "a:b=1,b=2", "a:b='1,c=2",
     'a:b=""', "a:b=1,c", "a:,"],
)  # fmt: skip
def test_what_does_not_follow_the_grammar_is_refused_in_one_line(text):
    with pytest.raises(CamlucidaError) as caught:
        split(text)
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value)


@dataclass(frozen=True)
class Everything:
    whole: int = 1
    number: float = 1.0
    flag: bool = False
    word: str = "a"
    choice: Literal["one", "two"] = "one"
    maybe: float | None = None
    mixed: int | Literal["auto"] = 3
    pair: tuple[int, ...] = ()
    anything: Any = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("whole=-7", -7),
        ("number=3", 3.0),
        ("number=1e-3", 1e-3),
        ("flag=true", True),
        ("flag=Off", False),
        ("flag=1", True),
        ("pair=1/2", (1, 2)),
        ("pair=5", (5,)),
        ("word=5", "5"),
        ("word=none", "none"),
        ("choice=two", "two"),
        ("maybe=none", None),
        ("maybe=0.5", 0.5),
        ("mixed=4", 4),
        ("mixed=auto", "auto"),
        ("anything=none", None),
        ("anything=4", 4),
        ("anything=0.5", 0.5),
        ("anything=true", True),
        ("anything=x", "x"),
    ],
)
def test_values_take_the_type_of_the_option(text, value):
    key = text.partition("=")[0]
    _, written = split(f"m:{text}")
    (read,) = read_values("m", written, options_of(Everything), MethodError).values()
    assert (read, type(read)) == (value, type(value)), key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("whole=1.5", "a whole number"),
        ("whole=none", "a whole number"),
        ("number=much", "a finite number"),
        ("number=nan", "a finite number"),
        ("number=1e400", "a finite number"),
        ("flag=maybe", "true or false"),
        ("choice=tow", "one of one, two, got 'tow'; did you mean 'two'?"),
        ("maybe=x", "a finite number or none"),
        ("mixed=x", "one of auto or a whole number"),
        ("pair=1/x", "a whole number, or several with / between them"),
    ],
)
def test_a_value_of_another_type_is_refused(text, expected):
    _, written = split(f"m:{text}")
    with pytest.raises(MethodError, match="m: ") as caught:
        read_values("m", written, options_of(Everything), MethodError)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_type_that_cannot_be_looked_up_is_read_off_the_default():
    @dataclass(frozen=True)
    class Own:
        size: Unknown = 3  # noqa: F821
        word: Unknown = "a"  # noqa: F821
        free: Unknown = None  # noqa: F821

    written = {"size": "4", "word": "4", "free": "4"}
    read = read_values("own", written, options_of(Own), MethodError)
    assert read == {"size": 4, "word": "4", "free": 4}
    with pytest.raises(MethodError, match="a whole number"):
        read_values("own", {"size": "x"}, options_of(Own), MethodError)
