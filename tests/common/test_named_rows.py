"""The registry that methods, metrics, targets, data and audits share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.registry import Registry, Row


@dataclass(frozen=True)
class Shade(Row[object]):
    """A row with a fact of its own."""

    what: ClassVar[str] = "shade"
    error: ClassVar[type[CamlucidaError]] = TargetError

    dark: bool = False


@dataclass(frozen=True)
class Blue:
    """A colour."""

    depth: float = 1.0
    kind: Literal["sky", "sea"] = "sky"

    def __post_init__(self):
        if self.depth < 0:
            raise ImageError("depth is negative")


def red(path, *, size: int, wide: bool = False):
    """Another colour."""
    return path, size, wide


@pytest.fixture
def shades():
    registry = Registry(Shade)
    registry.add(Shade("light-blue", Blue))
    registry.add(Shade("red", red, dark=True))
    return registry


def test_rows_in_order_and_by_any_spelling(shades):
    assert shades.names == ("light-blue", "red")
    assert [row.dark for row in shades] == [False, True]
    assert shades["Light Blue"] is shades["light_blue"]
    assert "LIGHT-BLUE" in shades
    assert "green" not in shades
    assert shades.row_of(Blue()).name == "light-blue"
    assert shades.row_of(3) is None


def test_options_of_classes_and_functions(shades):
    assert shades["light-blue"].options == {"depth": 1.0, "kind": "sky"}
    assert shades["red"].options == {"size": None, "wide": False}
    assert shades["red"].summary == "Another colour."


def test_building_and_its_errors(shades):
    assert shades["light-blue"].build(depth=2.0) == Blue(2.0)
    with pytest.raises(TargetError, match="did you mean 'depth'"):
        shades["light-blue"].build(deptj=1)
    with pytest.raises(TargetError, match="light-blue: depth is negative"):
        shades["light-blue"].build(depth=-1.0)


def test_unknown_and_taken_names(shades):
    with pytest.raises(TargetError, match="unknown shade 'rad'; nearest: red"):
        shades["rad"]
    with pytest.raises(TargetError, match="known: light-blue, red"):
        shades["zzzz"]
    with pytest.raises(TargetError, match="taken by red"):
        shades.add(Shade("red", Blue))
    shades.add(Shade("red", red))
    shades.remove("red")
    assert shades.names == ("light-blue",)
