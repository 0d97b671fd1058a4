"""The registry: names, options, targets, and methods from outside."""

from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch

import camlucida
from camlucida import CamlucidaError, LogitMargin, MethodError, Probability
from camlucida.methods import (
    GradCAM,
    GradientCAM,
    build,
    list_methods,
    method_row,
    register,
    row_of,
)
from camlucida.methods.registry import METHODS
from reference import networks

EXPECTED = {
    "cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "gradcam-ew", "layercam", "eigencam",
    "fullgrad", "saliency", "inputxgradient", "integrated-gradients", "smoothgrad", "diffgradcam",
    "diffgradcam++",
}  # fmt: skip


def test_every_method_is_there():
    assert {row.name for row in list_methods()} >= EXPECTED


@pytest.mark.parametrize("row", list_methods(), ids=lambda r: r.name)
def test_rows_are_complete(row):
    assert row.summary.endswith(".")
    assert row.paper
    assert row.equation
    assert row.cost_in_words
    assert 1990 < row.year < 2100
    assert is_dataclass(row.make)
    assert row.make.__dataclass_params__.frozen
    assert set(row.options) == {f.name for f in fields(row.make)}
    documented = row.make.__doc__
    for option in row.options:
        assert any(f"{option}:" in (base.__doc__ or "") for base in row.make.__mro__), (
            f"{option} is not documented in {documented}"
        )


@pytest.mark.parametrize("row", list_methods(), ids=lambda r: r.name)
def test_no_option_takes_a_number_that_cannot_be_computed_with(row):
    for option in row.settable:
        if _takes_any_text(row.name, option):
            continue
        for text in ("inf", "-inf", "nan", "1e400", "-1e400", "1e40", "1" + "0" * 400):
            with pytest.raises(CamlucidaError) as caught:
                build(f"{row.name}:{option}={text}")
            assert len(str(caught.value)) < 600


def _takes_any_text(name, option):
    try:
        build(f"{name}:{option}=the name of a class")
    except CamlucidaError:
        return False
    return True


@pytest.mark.parametrize("name", ["GradCAM++", "gradcam++", "GRADCAM++"])
def test_case_does_not_matter(name):
    assert method_row(name).name == "gradcam++"


def test_spaces_and_underscores_do_not_matter():
    assert method_row("integrated_gradients") is method_row("Integrated Gradients")


@pytest.mark.parametrize(
    ("name", "near"), [("gradcm", "gradcam"), ("layer-cam", "layercam"), ("fulgrad", "fullgrad")]
)
def test_unknown_name_suggests(name, near):
    with pytest.raises(MethodError, match=rf"nearest: .*\b{near}"):
        build(name)


def test_unknown_option_suggests():
    with pytest.raises(MethodError, match="did you mean 'form'"):
        build("gradcam++", forms="true")
    with pytest.raises(MethodError, match="options: aug_smooth, eigen_smooth"):
        build("hirescam", relu=True)
    with pytest.raises(MethodError, match="aggregator"):
        build("diffgradcam", agregator="max")


def test_invalid_value_names_the_method():
    with pytest.raises(MethodError, match=r"gradcam\+\+: form"):
        build("gradcam++", form="quick")
    with pytest.raises(CamlucidaError, match="aggregator"):
        build("diffgradcam", aggregator="median")


def test_xgradcam_norm_is_checked():
    with pytest.raises(MethodError, match="norm"):
        build("xgradcam", norm="l2")


def test_diffgradcam_takes_margins_and_classes_only():
    _, target = build("diffgradcam", [1, 2], aggregator="max")
    assert target.aggregator == "max"
    assert target.classes == [1, 2]
    own = LogitMargin(3, aggregator="lse")
    assert build("diffgradcam", own)[1] is own
    with pytest.raises(MethodError, match="LogitMargin"):
        build("diffgradcam", Probability(1))
    with pytest.raises(MethodError, match="LogitMargin"):
        build("diffgradcam", lambda z: z[:, 0])
    with pytest.raises(MethodError, match="aggregator"):
        build("diffgradcam", own, aggregator="max")


def test_facts_of_methods():
    rows = {row.name: row for row in list_methods()}
    assert rows["gradcam"].needs_in_words == "a layer, gradients"
    assert rows["gradcam"].cost_in_words == "1 forward + 1 head backward"
    assert rows["rise"].needs_in_words == "nothing but the output"
    assert rows["integrated-gradients"].cost_in_words == (
        "1 forward + n_steps (50) x (1 forward + 1 backward)"
    )
    assert rows["sscam"].cost_in_words == "1 forward + samples (35) x channels x 1 forward"
    assert rows["diffgradcam"].base is rows["finercam"].base is rows["gradcam"].base
    assert rows["icam"].explains == "layers"
    for row in rows.values():
        assert (row.explains == "input") == (not row.make().uses_layers), row.name
        assert set(row.quick) | set(row.without_offset) <= set(row.options), row.name
        assert set(row.cost.times) <= {*row.options, "channels", "positions", "outputs"}, row.name
        assert (row.weights == "") or row.explains != "input", row.name
    with pytest.raises(MethodError, match="needs must be one of"):
        register("test-needs", paper="x", year=2026, equation="1", needs=("luck",))(GradCAM)


def test_a_method_from_outside():
    @register("test-outside", paper="nobody", year=2026, equation="1")
    @dataclass(frozen=True)
    class Outside(GradientCAM):
        """Sum of the activation times a factor.

        Attributes:
            factor: multiplies.
        """

        factor: float = 2.0

        def combine(self, activation, gradient):  # noqa: ARG002
            return self.factor * activation.sum(1)

    try:
        model, x = networks.build(), networks.images(2, 3, (5, 6))
        found = camlucida.explain(model, x, method="test-outside", layers="features", factor=3.0)
        expected = 3 * model.features(x).sum(1).detach()
        torch.testing.assert_close(found.signed, expected)
        assert row_of(Outside()).name == "test-outside"
        with pytest.raises(MethodError, match="taken"):
            register("gradcam", paper="x", year=2026, equation="1")(Outside)
    finally:
        METHODS.remove("test-outside")
    assert method_row("gradcam").make is GradCAM
