"""The registry of targets: what ``--target`` knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from camlucida.common.errors import CamlucidaError, TargetError
from camlucida.common.grammar import Option, options_of, refuse_unknown
from camlucida.common.registry import Registry, Row
from camlucida.targets.base import Target
from camlucida.targets.classes import (
    Classes,
    ExpLogit,
    Logit,
    LogProbability,
    Probability,
    Segmentation,
)
from camlucida.targets.features import Cell
from camlucida.targets.finer import FinerMargin, ResidualSoftmax
from camlucida.targets.margin import LogitMargin

T = TypeVar("T", bound=type[Target])


@dataclass(frozen=True)
class TargetRow(Row[Target]):
    """A row of the registry; ``make`` is the target's class.

    Attributes:
        required: options that must be given.

    Example:
        >>> camlucida.targets.TARGETS["cell"].of_class
        False
    """

    what: ClassVar[str] = "target"
    error: ClassVar[type[CamlucidaError]] = TargetError

    required: tuple[str, ...] = ()

    @property
    def of_class(self) -> bool:
        """Whether it explains a class, which is then the field ``classes``."""
        return "classes" in self.options

    @property
    def settable(self) -> dict[str, Option]:
        """The fields but the class."""
        return options_of(self.make, without=("classes",))


TARGETS = Registry(TargetRow)


def register(name: str, *, required: tuple[str, ...] = ()) -> Callable[[T], T]:
    """Class decorator that makes a target known by name; also for targets outside the package.

    Args:
        name: the name, unique.
        required: options that must be given.

    Raises:
        TargetError: the name is taken by another class.

    Example:
        >>> @camlucida.targets.register("doubled")
        ... class Doubled(camlucida.Logit):
        ...     def __call__(self, outputs):
        ...         return 2 * super().__call__(outputs)
    """

    def add(target: T) -> T:
        TARGETS.add(TargetRow(name, target, required))
        return target

    return add


def list_targets() -> tuple[TargetRow, ...]:
    """All registered targets, in the order of registration.

    Example:
        >>> [row.name for row in camlucida.targets.list_targets()][:2]
        ['logit', 'margin']
    """
    return tuple(TARGETS)


def build_target(text: str, classes: Classes = None, **options: Any) -> Target:
    """A target from its registered name and options.

    Args:
        text: the name, or the name with options: ``margin:aggregator=max``, ``cell:layer=features.3,row=2,col=3``.
        classes: index or name of the class, one for all images or one per image; ``None`` for the predicted one.
        **options: further options; they win over those of the text.

    Raises:
        TargetError: the name or an option is unknown, with the nearest ones, a value does not fit, or a class is
            given for a target that has none.

    Example:
        >>> camlucida.targets.build_target("margin:aggregator=max", "tabby")
        LogitMargin(classes='tabby', rivals=None, aggregator='max')
    """
    row, written = TARGETS.read(text)
    refuse_unknown(row.name, options, row.settable, row.error)
    options = written | options
    for name in row.required:
        if not options.get(name):
            raise TargetError(f"{row.name} needs {name}: {row.name}:{name}=NAME")
    if row.of_class:
        options["classes"] = classes
    elif classes is not None:
        raise TargetError(f"the target {row.name} belongs to no class; leave out the class")
    return row.build(**options)


for _name, _kind in {
    "logit": Logit,
    "margin": LogitMargin,
    "probability": Probability,
    "log-probability": LogProbability,
    "exp-logit": ExpLogit,
    "finer": FinerMargin,
    "rest": ResidualSoftmax,
    "segmentation": Segmentation,
}.items():
    register(_name)(_kind)
register("cell", required=("layer",))(Cell)
