"""The registry of methods: feeds ``camlucida methods``, the documentation and the benchmark."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar, Literal, TypeVar, get_args

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import Option, options_of, split
from camlucida.common.limits import check_fields
from camlucida.common.optional import require
from camlucida.common.own_code import OwnCode, code_digest, code_name
from camlucida.common.registry import Registry, Row, plain
from camlucida.methods.base import Explains, Method
from camlucida.methods.own import Explainer, OwnMethod, as_method
from camlucida.targets import Target

M = TypeVar("M", bound="type[Method] | Explainer")

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
            ``"positions"`` of the layer, ``"outputs"`` of the model; with no passes at all: it is not known how many
            there are.
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
        passes = " + ".join(each) or "not known"
        if not self.times or not each:
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
        use: when to take it, in one plain sentence.
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
        control: whether audits put it beside the tested methods: the ``"exact"`` answer, which must pass, a map that
            is ``"blind"`` to the model or ``"unlearned"``, which must not; empty for the methods that are tested.
        scale: what the size of a map's values says: ``"target"``, how much of it; ``"own"``, nothing, as the method
            scales its map itself; ``"average"``, the target's mean, of which only differences between places tell.
        library: name of the library that computes it, one of :data:`LIBRARIES`; empty for our own and the user's.

    Example:
        >>> row = camlucida.methods.method_row("fame")
        >>> row.explains, row.quick
        ('input', {'iterations': 40})
    """

    what: ClassVar[str] = "method"
    error: ClassVar[type[CamlucidaError]] = MethodError

    make: type[Method]
    paper: str = ""
    year: int = 0
    equation: str = ""
    needs: tuple[Need, ...] = ("gradients",)
    discriminative: bool = True
    cost: Cost = Cost(forward=1, head_backward=1)
    target: type[Target] | None = None
    remark: str = ""
    use: str = ""
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
    control: Literal["", "exact", "blind", "unlearned"] = ""
    scale: Literal["target", "own", "average"] = "target"
    library: str = ""

    def __post_init__(self) -> None:
        """Refuse facts in words that nobody knows.

        Raises:
            MethodError: naming the fact and the words that there are.
        """
        check_fields(self, MethodError)

    def build(self, **options: Any) -> Method:
        """The method with options.

        Raises:
            MethodError: an option is unknown, a value does not fit, or the library is not installed.
        """
        if self.library:
            try:
                require(LIBRARIES[self.library].package, "peers")
            except CamlucidaError as error:
                raise MethodError(f"{self.name}: {error}") from error
        return super().build(**options)

    @property
    def origin(self) -> dict[str, str]:
        """What decides its maps beside the options: the library's version, or the code of the user's own."""
        if self.library:
            name = LIBRARIES[self.library].distribution
            return {"library": f"{name} {metadata.version(name)}"}
        made = self.make.function if issubclass(self.make, OwnMethod) else self.make
        ours = made is self.make and made.__module__.partition(".")[0] == "camlucida"
        return {} if ours else {"code": code_digest(made)}

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
    def source_in_words(self) -> str:
        """Such as ``"Selvaraju et al. 2017, equations 1, 2"``."""
        number = self.equation[:1].isdigit()
        several = re.match(r"\d+\s*[,-]\s*\d", self.equation)
        equation = f"equation{'s' if several else ''} {self.equation}"
        year = str(self.year) if self.year and str(self.year) not in self.paper else ""
        source = " ".join(filter(None, (self.paper, year)))
        return ", ".join(filter(None, (source, equation if number else self.equation)))

    @property
    def needs_gradients(self) -> bool:
        """Whether it differentiates the model."""
        return any("gradients" in need or "derivatives" in need for need in self.needs)

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


@dataclass(frozen=True)
class Library:
    """Another library whose explainers are methods here.

    Attributes:
        package: what is imported; our adapter's file has the same name.
        distribution: what is installed.
    """

    package: str
    distribution: str


LIBRARIES: Mapping[str, Library] = {
    "captum": Library("captum", "captum"),
    "zennit": Library("zennit", "zennit"),
    "pytorch-grad-cam": Library("pytorch_grad_cam", "grad-cam"),
}
"""By the name in front of the colon, as in ``captum:occlusion``."""

_OWN_CODE = "package.module:function or path/to/file.py:function"
_TWO_PARTS = re.compile(r"([^=]+?):([A-Za-z_][\w.+-]*)(?=:|$)")
"""``library:method``, ``package.module:function`` or ``path/to/file.py:function``."""


class Methods(Registry[MethodRow]):
    """The methods; other libraries' and functions of the user's own are found when they are asked for.

    A name in two parts, ``package.module:function``, runs the code that it names. It is only ever found where a user
    wrote it; :meth:`runs_code` tells.
    """

    def key(self, name: str) -> str:
        """As of every registry; the names of functions and files are compared letter by letter."""
        place, colon, _ = name.rpartition(":")
        return name if colon and plain(place) not in LIBRARIES else plain(name)

    def __getitem__(self, name: str) -> MethodRow:
        """As of every registry."""
        place, colon, _ = name.rpartition(":")
        if colon and name not in self and place not in self:
            if plain(place) in LIBRARIES:
                load_library(plain(place))
            else:
                instead = f"{', '.join(f'{one}:NAME' for one in LIBRARIES)}, {_OWN_CODE}"
                self._add_own(name, OwnCode(name, "the method", MethodError, instead).find())
        return super().__getitem__(name)

    def read(self, text: str) -> tuple[MethodRow, dict[str, Any]]:
        """As of every registry; ``library:method:key=value`` and ``package.module:function:key=value`` too."""
        found = _TWO_PARTS.match(text)
        if found is None or found[1] in self:
            return super().read(text)
        row = self[found[0]]
        return row, row.read(split(text[found.start(2) :], MethodError)[1])

    def runs_code(self, text: str) -> bool:
        """Whether a method of that text would run code of the user's own that has not been run yet."""
        found = _TWO_PARTS.match(text)
        if found is None or plain(found[1]) in LIBRARIES:
            return False
        return found[0] not in self and found[1] not in self

    def name_of(self, function: Explainer) -> str:
        """The name under which a function of the user's own is known from now on, ``module:function``."""
        place, _, name = code_name(function).partition(":")
        name = f"{place}:{name.rpartition('.')[2].strip('<>')}"
        known = self._known.get(name)
        if known is None or getattr(known.make, "function", None) is not function:
            self.remove(name)
            self._add_own(name, function)
        return name

    def _add_own(self, name: str, found: Any) -> None:
        is_method = isinstance(found, type) and issubclass(found, Method)
        if not is_method and (isinstance(found, type) or not callable(found)):
            raise MethodError(
                f"the method {name!r} is of type {type(found).__name__}; it must be a function (model, inputs, target) "
                "that returns maps"
            )
        make = found if is_method else as_method(found, name)
        self.add(MethodRow(name, make, needs=(), cost=Cost(times=("passes",))))


def load_library(name: str) -> None:
    """Have a library's explainers known; the library itself is imported when one of them is built."""
    importlib.import_module(f"camlucida.methods.peers.{LIBRARIES[name].package}")


METHODS = Methods(MethodRow)

WRAPPING = ("aug_smooth", "eigen_smooth", "both_sides")
"""Options that every method takes."""


def register(name: str, *, paper: str, year: int, equation: str, **facts: Any) -> Callable[[M], M]:
    """Decorator that makes a method known by name, also for methods outside the package.

    It decorates a class, or a function ``(model, inputs, target) -> maps``
    (:func:`camlucida.methods.own.as_method` says what it is given).

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
        made: Any = method
        if not isinstance(method, type):
            made = as_method(method, name, alone="library" in facts)
        METHODS.add(MethodRow(name, made, paper, year, equation, **facts))
        return method

    return add


def list_methods(
    *,
    libraries: bool = False,
    explains: Explains | None = None,
    gradients: bool | None = None,
    by_class: bool | None = None,
    few_passes: bool | None = None,
) -> tuple[MethodRow, ...]:
    """The registered methods, in the order of registration.

    Args:
        libraries: those that other libraries compute instead, also where these are not installed.
        explains: those whose map shows one ``"layer"``, several ``"layers"`` or the ``"input"``.
        gradients: those that need gradients, or that need none.
        by_class: those whose map depends on the explained class, or those whose map does not.
        few_passes: those of a few passes through the model, or those that repeat passes.

    Example:
        >>> "gradcam" in [row.name for row in camlucida.list_methods()]
        True
        >>> "captum:occlusion" in [row.name for row in camlucida.list_methods(libraries=True)]
        True
        >>> [row.name for row in camlucida.list_methods(gradients=False, few_passes=True, by_class=True)]
        ['cam']
    """
    if explains is not None and explains not in get_args(Explains):
        raise MethodError(f"explains is {', '.join(get_args(Explains))}, got {explains!r}")
    if libraries:
        for name in LIBRARIES:
            load_library(name)
    return tuple(
        row
        for row in METHODS
        if (row.library if libraries else ":" not in row.name)
        and explains in (None, row.explains)
        and gradients in (None, row.needs_gradients)
        and by_class in (None, row.discriminative)
        and few_passes in (None, not row.cost.times)
    )


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
