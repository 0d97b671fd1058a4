"""Methods as they are put to the test: with their options, and with the target that they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.methods import MethodRow, build, list_methods, method_row, read_method
from camlucida.targets import LogitMargin, Target
from camlucida.targets.margin import Aggregator

AGGREGATORS: tuple[Aggregator, ...] = ("mean", "max", "lse")

NAMES: dict[tuple[str, str], str] = {
    ("gradcam", "mean"): "MeanDiffGradCAM",
    ("gradcam", "max"): "MaxDiffGradCAM",
    ("gradcam", "lse"): "LSE-DiffGradCAM",
}
"""What DiffGradCAM's paper calls Grad-CAM on a margin."""

_FEW = 12  # images of a quick run for methods that take many passes


@dataclass(frozen=True)
class Candidate:
    """A method as it is put to the test.

    Attributes:
        name: registered name.
        aggregator: of the margin that is explained; ``None`` explains the logit, or what the name stands for.
        options: of the method.
        given: those of the options that the user wrote.
        images: how many images it is measured on at most; ``None`` for all.
        one_layer: whether a method that chooses several layers gets the audit's one.

    Example:
        >>> camlucida.audits.Candidate("gradcam", "max").label
        'MaxDiffGradCAM'
    """

    name: str
    aggregator: Aggregator | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    one_layer: bool = False

    @property
    def label(self) -> str:
        """For tables: the paper's name, or method and margin, or method and the options that the user wrote."""
        given = ",".join(f"{k}={v}" for k, v in self.given.items())
        if (paper := NAMES.get((self.name, self.aggregator or ""))) and not given:
            return paper
        margin = f", {self.aggregator} margin" if self.aggregator else ""
        layer = ", one layer" if self.one_layer else ""
        return f"{self.name}{':' if given else ''}{given}{margin}{layer}"

    @property
    def key(self) -> str:
        """What a finished part about it is kept under."""
        images = "" if self.images is None else f"-{self.images}"
        origin = "".join(f"-{value}" for value in self.row.origin.values())
        return f"{self.label}-{sorted(self.options.items())}{images}{origin}"

    @property
    def row(self) -> MethodRow:
        """The registry's row."""
        return method_row(self.name)

    @property
    def own_layers(self) -> bool:
        """Whether it explains the input, or layers that it chooses itself, and not the audit's."""
        return self.row.explains != "layer" and not self.one_layer

    def target(self, classes: Tensor) -> Target | list[int]:
        """What is explained."""
        if self.aggregator is not None:
            return LogitMargin(classes, self.aggregator)
        found: list[int] = classes.tolist()
        return found


Choice: TypeAlias = "str | tuple[str, Mapping[str, Any]] | Candidate"
"""A registered name, alone, with options behind a colon or in a pair with them, or what :func:`choose` returned."""


def choose(methods: Sequence[Choice], *, quick: bool) -> tuple[Candidate, ...]:
    """Methods with their options, each under a label of its own.

    Args:
        methods: which.
        quick: fewer passes for the methods that take many, where no option says otherwise.

    Raises:
        MethodError: for an unknown name or option, or a value that does not fit.
        CamlucidaError: no method was given, or one twice.
    """
    found: dict[str, Candidate] = {}
    for one in methods:
        tested = one if isinstance(one, Candidate) else _tested(one, quick=quick)
        if tested.label in found:
            raise CamlucidaError(f"the method {tested.label!r} is given twice")
        found[tested.label] = tested
    if not found:
        raise CamlucidaError("no method was given")
    return tuple(found.values())


def with_margins(
    methods: Sequence[Candidate], *, quick: bool, every: bool = True
) -> tuple[Candidate, ...]:
    """Every method with its logit and with each margin; without ``every`` with the target of its name only.

    Methods whose map is the same for every class, and names that stand for a target of their own, appear once;
    ``diffgradcam`` is ``gradcam`` on margins. A quick audit takes fewer images, and one margin only, for methods that
    take many passes.
    """
    found: dict[str, Candidate] = {}
    for one in methods:
        row = one.row
        slow = quick and bool(row.cost.times)
        aggregators: tuple[Aggregator | None, ...] = (
            (None, "mean") if slow else (None, *AGGREGATORS)
        )
        if row.target is LogitMargin:
            variants = [Candidate(row.base.name, a) for a in AGGREGATORS]
        elif not (every and row.discriminative) or row.target is not None:
            variants = [replace(one, images=_FEW if slow else None)]
        else:
            variants = [
                replace(one, aggregator=a, images=_FEW if slow else None) for a in aggregators
            ]
        for variant in variants:
            found.setdefault(variant.label, variant)
    return tuple(found.values())


def usual(*, quick: bool) -> list[str]:
    """What is tested unless told: with ``quick`` methods of few passes, else all that are registered."""
    return [r.name for r in list_methods() if not r.control and (r.quick_audits or not quick)]


def controls(*, quick: bool, margins: bool = False) -> tuple[Candidate, ...]:
    """The maps that must pass, and those that must not, which audits put beside the tested methods.

    Args:
        quick: fewer passes.
        margins: all exact answers, also for a margin; else only those of a few passes.
    """
    rows = [row for row in list_methods() if row.control]
    plain = [
        Candidate(row.name, options=row.quick if quick else {})
        for row in rows
        if margins or row.control != "exact" or not row.cost.forward
    ]
    exact = [one for one in plain if one.row.control == "exact"]
    return (*plain, *(replace(one, aggregator="mean") for one in exact if margins))


def _tested(one: str | tuple[str, Mapping[str, Any]], *, quick: bool) -> Candidate:
    name, given = read_method(one)
    options = {**(method_row(name).quick if quick else {}), **given}
    build(name, None, **options)
    return Candidate(name, options=options, given=given)
