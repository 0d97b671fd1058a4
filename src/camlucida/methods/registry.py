"""The registry of methods: feeds ``camlucida methods``, the documentation and the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import options_of
from camlucida.common.registry import Registry, Row
from camlucida.methods.base import Method
from camlucida.targets import Target

M = TypeVar("M", bound=type[Method])


@dataclass(frozen=True)
class MethodRow(Row[Method]):
    """A row of the registry; ``make`` is the method's class.

    Attributes:
        paper: authors and year.
        year: year of publication.
        equation: where in the paper the formula stands.
        needs: what the model or target must have.
        discriminative: whether the map depends on the explained class.
        passes: cost per image, in forward and backward passes.
        target: the kind of target that the name stands for, where it does (``diffgradcam``).
        remark: anything a user must know.
    """

    what: ClassVar[str] = "method"
    error: ClassVar[type[CamlucidaError]] = MethodError
    in_python: ClassVar[str] = (
        "pass them as keyword arguments, or a method object such as camlucida.methods.FAME(iterations=5)"
    )

    make: type[Method]
    paper: str
    year: int
    equation: str
    needs: str = "a layer, gradients"
    discriminative: bool = True
    passes: str = "1 forward + head backward"
    target: type[Target] | None = None
    remark: str = ""

    @property
    def target_options(self) -> dict[str, Any]:
        """Names and defaults of the options that go to the target."""
        found = {} if self.target is None else options_of(self.target, without=("classes",))
        return {name: option.default for name, option in found.items()}


METHODS = Registry(MethodRow)


def register(name: str, *, paper: str, year: int, equation: str, **facts: Any) -> Callable[[M], M]:
    """Class decorator that makes a method known by name; also for methods outside the package.

    Args:
        name: the name, unique.
        paper: authors and year of the source.
        year: year of the source.
        equation: equation or section of the formula.
        **facts: the other fields of :class:`MethodRow`.

    Raises:
        MethodError: when the name is taken by another class.
    """

    def add(method: M) -> M:
        METHODS.add(MethodRow(name, method, paper, year, equation, **facts))
        return method

    return add


def list_methods() -> tuple[MethodRow, ...]:
    """All registered methods, in the order of registration."""
    return tuple(METHODS)


def method_row(name: str) -> MethodRow:
    """The registry's row of a name; case, spaces and underscores do not matter.

    Raises:
        MethodError: for an unknown name, with the nearest ones.
    """
    return METHODS[name]


def row_of(method: Method) -> MethodRow | None:
    """The first row registered for the class of a method object."""
    return METHODS.row_of(method)
