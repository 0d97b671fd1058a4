"""The registry of methods: feeds ``camlucida methods``, the documentation and the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import Option, options_of
from camlucida.common.limits import check_fields
from camlucida.common.registry import Registry, Row
from camlucida.methods.base import Explains, Method
from camlucida.targets import Target

M = TypeVar("M", bound=type[Method])

Need = Literal[
    "gradients",
    "pixel gradients",
    "second derivatives",
    "classes",
    "linear head",
    "attention",
    "reference embedding",
]

_NEEDS: dict[str, str] = {
    "layer": "a layer",
    "layers": "layers (of its own choice unless told)",
    "gradients": "gradients",
    "pixel gradients": "gradients down to the pixels",
    "second derivatives": "gradients twice differentiable",
    "classes": "2+ classes",
    "linear head": "global average pooling + one linear layer",
    "attention": "a vision transformer with global attention",
    "reference embedding": "embeddings and a reference embedding",
}

Promise = Literal["", "score", "score without biases", "path", "sum", "mean", "weights"]
"""What a map sums to.

``"score"``: the target's value, with the shares of all biases. ``"score without biases"``: the target's value,
where the model has no bias. ``"path"``: the value less that at the baseline. Behind the layer pooling and one
linear layer: the map's ``"sum"`` or ``"mean"``, or the sum of the channels' ``"weights"`` times the value, is the
logit less its bias.
"""


@dataclass(frozen=True)
class Cost:
    """Passes that the explanation of one image takes.

    Attributes:
        forward: forward passes through the model.
        backward: backward passes down to the pixels.
        head_forward: forward passes of what lies behind the layer.
        head_backward: backward passes of what lies behind the layer.
        times: what all these are repeated for: names of options that are numbers, ``"channels"`` or
            ``"positions"`` of the layer, ``"outputs"`` of the model.
        first: forward passes beside those that are repeated.
    """

    forward: int = 0
    backward: int = 0
    head_forward: int = 0
    head_backward: int = 0
    times: tuple[str, ...] = ()
    first: int = 0

    def words(self, options: Mapping[str, Any]) -> str:
        """In English, such as ``"1 forward + n_steps (50) x (1 forward + 1 backward)"``."""
        kinds = ("forward", "backward", "head_forward", "head_backward")
        each = [f"{n} {k.replace('_', ' ')}" for k in kinds if (n := getattr(self, k))]
        passes = " + ".join(each)
        if not self.times:
            return passes
        times = [f"{t} ({options[t]})" if t in options else t for t in self.times]
        passes = " x ".join([*times, f"({passes})" if len(each) > 1 else passes])
        return f"{self.first} forward + {passes}" if self.first else passes


@dataclass(frozen=True)
class MethodRow(Row[Method]):
    """A row of the registry; ``make`` is the method's class.

    Attributes:
        paper: authors and year.
        year: year of publication.
        equation: where in the paper the formula stands.
        needs: what the model or target must have, beside the layers.
        discriminative: whether the map depends on the explained class.
        cost: passes per image.
        target: the kind of target that the name stands for, where it does (``diffgradcam``).
        remark: anything a user must know.
        weights: whether the map adds up channels with one number per ``"channel"``, or with one per ``"cell"``;
            empty where it is no such sum.
        sums_to: what the map sums to; empty where it promises nothing.
        local: whether it shows what a very small change of the input would do, and not what was used.
        quick: options for a quick run, where the defaults take many passes.
        quick_audits: whether a quick audit judges it unless told otherwise; full ones judge all.
        one_layer: of a method that chooses several layers: whether audits judge it with a single layer as well.
        without_offset: options that leave out what is added to every place of the map alike.
        before_blur: name of the detail that holds the map before it was blurred, where the method blurs it.
        on_pairs: options for pairs of faces, where ``"threshold"`` and ``"seed"`` stand for those of the comparison.
        both_signs: whether the positive part of a similarity's map shows what makes similar, and the negative part
            what sets apart.
        opposite: options with which the map shows what sets apart, and not what makes similar.
        control: whether audits put it beside the tested methods as a map that must pass (``"positive"``) or must not
            (``"negative"``); empty for the methods that are tested.

    Example:
        >>> row = camlucida.methods.method_row("fame")
        >>> row.explains, row.quick
        ('input', {'iterations': 40})
    """

    what: ClassVar[str] = "method"
    error: ClassVar[type[CamlucidaError]] = MethodError

    make: type[Method]
    paper: str
    year: int
    equation: str
    needs: tuple[Need, ...] = ("gradients",)
    discriminative: bool = True
    cost: Cost = Cost(forward=1, head_backward=1)
    target: type[Target] | None = None
    remark: str = ""
    weights: Literal["channel", "cell", ""] = ""
    sums_to: Promise = ""
    local: bool = False
    quick: Mapping[str, Any] = field(default_factory=dict)
    quick_audits: bool = True
    one_layer: bool = False
    without_offset: Mapping[str, Any] = field(default_factory=dict)
    before_blur: str = ""
    on_pairs: Mapping[str, Any] = field(default_factory=dict)
    both_signs: bool = False
    opposite: Mapping[str, Any] = field(default_factory=dict)
    control: Literal["", "positive", "negative"] = ""

    def __post_init__(self) -> None:
        """Refuse facts in words that nobody knows.

        Raises:
            MethodError: naming the fact and the words that there are.
        """
        check_fields(self, MethodError)

    @property
    def explains(self) -> Explains:
        """What the map shows: one ``"layer"``, several ``"layers"`` of the method's own choice, the ``"input"``."""
        return self.make.explains

    @property
    def needs_in_words(self) -> str:
        """Such as ``"a layer, gradients"``."""
        words = [_NEEDS[need] for need in (self.explains, *self.needs) if need != "input"]
        return ", ".join(words) or "nothing but the output"

    @property
    def cost_in_words(self) -> str:
        """Such as ``"1 forward + 1 head backward"``."""
        return self.cost.words(self.options)

    @property
    def base(self) -> MethodRow:
        """The row of the same class on any target: that of ``gradcam`` for ``diffgradcam``, else this one."""
        return next((r for r in METHODS if r.make is self.make and r.target is None), self)

    @property
    def target_options(self) -> dict[str, Any]:
        """Names and defaults of the options that go to the target."""
        return {name: option.default for name, option in self._of_target.items()}

    @property
    def settable(self) -> dict[str, Option]:
        """The method's own options, those of the target that the name stands for, and what it can be wrapped in."""
        wrapping = {name: Option(name, bool, False) for name in WRAPPING}
        return {**self._of_target, **options_of(self.make), **wrapping}

    @property
    def _of_target(self) -> dict[str, Option]:
        return {} if self.target is None else options_of(self.target, without=("classes",))


METHODS = Registry(MethodRow)

WRAPPING = ("aug_smooth", "eigen_smooth", "both_sides")
"""Options that every method takes."""


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

    Example:
        >>> @camlucida.methods.register("mean-cam", paper="you", year=2026, equation="1", weights="channel")
        ... class MeanCAM(camlucida.methods.GradientCAM):
        ...     def combine(self, activation, gradient):
        ...         return activation.mean(1)
        >>> found = camlucida.explain(model, images, method="mean-cam")
        >>> camlucida.methods.registry.METHODS.remove("mean-cam")
    """

    def add(method: M) -> M:
        METHODS.add(MethodRow(name, method, paper, year, equation, **facts))
        return method

    return add


def list_methods() -> tuple[MethodRow, ...]:
    """All registered methods, in the order of registration.

    Example:
        >>> "gradcam" in [row.name for row in camlucida.list_methods()]
        True
    """
    return tuple(METHODS)


def method_row(name: str) -> MethodRow:
    """The registry's row of a name; case, spaces and underscores do not matter.

    Raises:
        MethodError: for an unknown name, with the nearest ones.

    Example:
        >>> camlucida.methods.method_row("Integrated Gradients").cost_in_words
        '1 forward + n_steps (50) x (1 forward + 1 backward)'
    """
    return METHODS[name]


def row_of(method: Method) -> MethodRow | None:
    """The first row registered for the class of a method object, smoothed or not.

    Example:
        >>> camlucida.methods.row_of(camlucida.methods.FAME()).name
        'fame'
    """
    return METHODS.row_of(method.unsmoothed)


def method_name(method: Method) -> str:
    """The registered name of a method object, or the name of its class.

    Example:
        >>> camlucida.methods.method_name(camlucida.methods.GradCAMpp())
        'gradcam++'
    """
    row = row_of(method)
    return row.name if row else type(method.unsmoothed).__name__
