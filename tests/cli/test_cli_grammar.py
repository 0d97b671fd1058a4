from __future__ import annotations

import pytest

from camlucida.common.errors import MethodError, TargetError
from camlucida.methods import build, list_methods, read_method
from camlucida.targets import (
    TARGETS,
    Cell,
    ExpLogit,
    Logit,
    LogitMargin,
    LogProbability,
    Probability,
    build_target,
)

# ---- methods ------------------------------------------------------------------------------------


def test_every_registered_method_can_be_named():
    for row in list_methods():
        assert read_method(row.name) == (row.name, {})
        assert isinstance(build(row.name)[0], row.make)


def test_every_default_can_be_written_out():
    for row in list_methods():
        for name, default in {**row.options, **row.target_options}.items():
            if isinstance(default, tuple):
                continue
            assert read_method(f"{row.name}:{name}={default}")[1] == {name: default}


def test_a_method_gets_its_options():
    text = "GradCAM++:form=true,max-entries=10"
    assert read_method(text) == ("gradcam++", {"form": "true", "max_entries": 10})
    method, _ = build(text)
    assert method.form == "true"
    assert method.max_entries == 10


def test_a_name_that_implies_a_target_sends_options_there():
    assert read_method("diffgradcam:aggregator=max")[1] == {"aggregator": "max"}


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
        build(text)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_target_that_a_method_cannot_explain_is_refused():
    with pytest.raises(MethodError, match="LogitMargin"):
        build("diffgradcam", Probability())


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
    target = build_target(text, "tabby")
    assert type(target) is kind
    assert target.classes == "tabby"
    assert build_target(text).classes is None


def test_every_target_has_a_name():
    for name in TARGETS.names:
        build_target(f"{name}:layer=x" if name == "cell" else name)


def test_targets_get_their_options():
    assert build_target("margin:aggregator=lse").aggregator == "lse"
    cell = build_target("cell:layer=features.3,row=2,col=-1,absolute=no")
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
        ("cell:row=1", None, ["cell needs layer"]),
        ("cell:layer=a,row=x", None, ["row must be a whole number"]),
        ("cell:layer=a", "3", ["leave out the class"]),
        ("logit:", None, ["key=value"]),
    ],
)
def test_a_wrong_target_is_refused_with_what_is_near(text, class_, words):
    with pytest.raises(TargetError) as caught:
        build_target(text, class_)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
