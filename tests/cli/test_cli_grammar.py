from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from camlucida.cli.shared.grammar import (
    TARGET_NAMES,
    _convert,
    _options,
    parse_method,
    parse_target,
    split,
)
from camlucida.common.errors import CamlucidaError, MethodError, TargetError
from camlucida.methods import methods
from camlucida.targets import Cell, ExpLogit, Logit, LogitMargin, LogProbability, Probability


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
    (read,) = _convert("m", written, _options(Everything), MethodError).values()
    assert (read, type(read)) == (value, type(value)), key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("whole=1.5", "a whole number"),
        ("whole=none", "a whole number"),
        ("number=much", "a number"),
        ("number=nan", "a number"),
        ("flag=maybe", "true or false"),
        ("choice=tow", "one of one, two, got 'tow'; did you mean 'two'?"),
        ("maybe=x", "a number or none"),
        ("mixed=x", "one of auto or a whole number"),
        ("pair=1/x", "a whole number, or several with / between them"),
    ],
)
def test_a_value_of_another_type_is_refused(text, expected):
    _, written = split(f"m:{text}")
    with pytest.raises(MethodError, match="m: ") as caught:
        _convert("m", written, _options(Everything), MethodError)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_type_that_cannot_be_looked_up_is_read_off_the_default():
    @dataclass(frozen=True)
    class Own:
        size: Unknown = 3  # noqa: F821
        word: Unknown = "a"  # noqa: F821
        free: Unknown = None  # noqa: F821

    written = {"size": "4", "word": "4", "free": "4"}
    read = _convert("own", written, _options(Own), MethodError)
    assert read == {"size": 4, "word": "4", "free": 4}
    with pytest.raises(MethodError, match="a whole number"):
        _convert("own", {"size": "x"}, _options(Own), MethodError)


# ---- methods ------------------------------------------------------------------------------------


def test_every_registered_method_can_be_named():
    for row in methods():
        choice = parse_method(row.name)
        assert choice.name == row.name
        assert isinstance(choice.method, row.method)


def test_every_default_can_be_written_out():
    for row in methods():
        for name, default in {**row.options, **row.target_options}.items():
            if isinstance(default, tuple):
                continue
            choice = parse_method(f"{row.name}:{name}={default}")
            assert choice.options == {name: default}


def test_a_method_gets_its_options():
    choice = parse_method("GradCAM++:form=true,max-entries=10")
    assert choice.options == {"form": "true", "max_entries": 10}
    assert choice.method.form == "true"
    assert choice.method.max_entries == 10


def test_a_name_that_implies_a_target_sends_options_there():
    assert parse_method("diffgradcam:aggregator=max").options == {"aggregator": "max"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gradcat", ["unknown method 'gradcat'", "gradcam"]),
        ("gradcam++:from=exp", ["no option 'from'", "did you mean 'form'?"]),
        ("gradcam:form=exp", ["gradcam has no option 'form'", "options: aug_smooth"]),
        ("gradcam++:form=ture", ["exp, true, tf_original", "did you mean 'true'?"]),
        ("gradcam++:max_entries=many", ["a whole number", "'many'"]),
        ("diffgradcam:aggregator=sum", ["aggregator", "mean, max, lse, lae"]),
        ("xgradcam:norm=l2", ["one of sum, l1"]),
        ("diffgradcam:classes=3", ["no option 'classes'"]),
        ("gradcam++:form", ["key=value"]),
    ],
)
def test_a_wrong_method_is_refused_with_what_is_near(text, words):
    with pytest.raises(MethodError) as caught:
        parse_method(text)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_target_that_a_method_cannot_explain_is_refused():
    with pytest.raises(MethodError, match="LogitMargin"):
        parse_method("diffgradcam", Probability())


# ---- targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("logit", Logit),
        ("margin", LogitMargin),
        ("probability", Probability),
        ("log-probability", LogProbability),
        ("Log_Probability", LogProbability),
        ("exp-logit", ExpLogit),
    ],
)
def test_targets_of_a_class(text, kind):
    target = parse_target(text, "tabby")
    assert type(target) is kind
    assert target.classes == "tabby"
    assert parse_target(text).classes is None


def test_every_target_has_a_name():
    for name in TARGET_NAMES:
        parse_target(f"{name}:layer=x" if name == "cell" else name)


def test_targets_get_their_options():
    assert parse_target("margin:aggregator=lse").aggregator == "lse"
    cell = parse_target("cell:layer=features.3,row=2,col=-1,absolute=no")
    assert isinstance(cell, Cell)
    assert (cell.layer, cell.row, cell.col, cell.absolute) == ("features.3", 2, -1, False)


@pytest.mark.parametrize(
    ("text", "class_", "words"),
    [
        ("logits", None, ["unknown target 'logits'", "nearest: logit"]),
        ("zzz", None, ["known: logit, margin"]),
        ("margin:agregator=max", None, ["did you mean 'aggregator'?"]),
        ("margin:aggregator=maxx", None, ["did you mean 'max'?"]),
        ("margin:classes=3", None, ["no option 'classes'"]),
        ("cell:row=1", None, ["cell needs a layer"]),
        ("cell:layer=a,row=x", None, ["row must be a whole number"]),
        ("cell:layer=a", "3", ["leave out --class"]),
        ("logit:", None, ["key=value"]),
    ],
)
def test_a_wrong_target_is_refused_with_what_is_near(text, class_, words):
    with pytest.raises(TargetError) as caught:
        parse_target(text, class_)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
