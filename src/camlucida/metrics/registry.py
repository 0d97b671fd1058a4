"""The registry of metrics: feeds ``camlucida metrics``, the documentation, the benchmark and its tables."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, get_args

from camlucida.common.errors import CamlucidaError
from camlucida.common.registry import Registry, Row, plain
from camlucida.metrics.base import Metric, MetricNeed, Question
from camlucida.report.tables import Direction

M = TypeVar("M", bound=type[Metric])
Range = tuple[float, float]


@dataclass(frozen=True)
class Number:
    """What a column of a table shows: one of the numbers that a metric returns.

    Attributes:
        name: as in a metric's ``names``, such as ``"iou@0.3"``.
        title: for people, such as ``"IoU at 0.3"``.
        direction: which way is better; ``"none"`` where the number describes and does not judge.
        range: smallest and largest possible value, ``inf`` where there is no limit.
        unit: empty for a plain number or share.
        metric: registered name of the metric that it belongs to.
        question: what that metric asks of a map.
        over: what its curve runs over, where it sums up a curve, such as ``"threshold"``.
        height: what the curve's heights are; empty for the title.

    Example:
        >>> camlucida.metrics.describe_number("iou@0.3").header
        'IoU at 0.3 ↑'
    """

    name: str
    title: str
    direction: Direction = "none"
    range: Range = (-math.inf, math.inf)
    unit: str = ""
    metric: str = ""
    question: Question = "other"
    over: str = "position"
    height: str = ""

    @property
    def arrow(self) -> str:
        """``"↑"`` where higher is better, ``"↓"`` where lower is, empty otherwise."""
        return {"higher": "↑", "lower": "↓", "none": ""}[self.direction]

    @property
    def header(self) -> str:
        """Title, unit and arrow, as they stand over a column."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{self.title}{unit} {self.arrow}".rstrip()


@dataclass(frozen=True)
class Facts:
    """How a number differs from the row of its metric; ``None`` where it does not.

    Attributes:
        title: for people.
        direction: which way is better.
        range: smallest and largest possible value.
        unit: empty for a plain number or share.

    Example:
        >>> camlucida.metrics.Facts("Effective area", "none", (0.0, 1.0)).direction
        'none'
    """

    title: str
    direction: Direction | None = None
    range: Range | None = None
    unit: str | None = None


@dataclass(frozen=True)
class MetricCost:
    """What a metric costs per image and method with its default options, beside the explanation itself.

    Attributes:
        forwards: forward passes.
        pixels: of an image of H x W pixels, H W / ``pixels`` forward passes more; 0 for none.
        explanations: further explanations by the same method.
        references: explanations by the reference method, which all methods share.
        imputations: images whose removed pixels are filled.

    Example:
        >>> str(camlucida.metrics.MetricCost(forwards=18, imputations=18))
        '18 forward passes and 18 imputations'
    """

    forwards: int = 0
    pixels: int = 0
    explanations: int = 0
    references: int = 0
    imputations: int = 0

    def __str__(self) -> str:
        said = [f"H W / {self.pixels} forward passes"] if self.pixels else []
        for count, one, several in (
            (self.forwards, "forward pass", "forward passes"),
            (self.explanations, "explanation", "explanations"),
            (self.imputations, "imputation", "imputations"),
        ):
            said += [f"{count} {one if count == 1 else several}"] if count else []
        said += ["the reference's explanation"] if self.references else []
        return " and ".join(said) or "none"


@dataclass(frozen=True)
class MetricRow(Row[Metric]):
    """A row of the registry; ``make`` is the metric's class, whose fields are its options.

    Attributes:
        title: for people.
        direction: which way is better.
        range: smallest and largest possible value, ``inf`` where there is no limit.
        source: paper and equation or section.
        unit: empty for a plain number or share.
        question: what it asks of a map; groups of metrics and the order of reports follow from it.
        needs: what the data, the model and the run must have.
        cost: per image and method, beside the explanation itself.
        remark: anything a user must know.
        numbers: facts of the numbers that have a name of their own.
        on_request: it fits special models only, and is in no group.
        slow: it takes more passes than all other metrics together, and is not measured by default.
        over: what its curves run over, such as ``"threshold"``.
        height: what the heights of its curves are; empty for their titles.

    Raises:
        CamlucidaError: a word of ``needs``, ``direction`` or ``question`` is unknown, or a range is empty.

    Example:
        >>> row = camlucida.metrics.metric_row("box_iou")
        >>> row.question, row.needs
        ('localisation', ('boxes', 'labels', 'logits'))
    """

    what: ClassVar[str] = "metric"

    make: type[Metric]
    title: str
    direction: Direction
    range: Range
    source: str
    unit: str = ""
    question: Question = "other"
    needs: tuple[MetricNeed, ...] = ()
    cost: MetricCost = field(default_factory=MetricCost)
    remark: str = ""
    numbers: Mapping[str, Facts] = field(default_factory=dict)
    on_request: bool = False
    slow: bool = False
    over: str = "position"
    height: str = ""

    def __post_init__(self) -> None:
        """Check the words and ranges."""
        directions = {self.direction, *(f.direction for f in self.numbers.values())} - {None}
        for what, given, words in (
            ("needs", set(self.needs), MetricNeed),
            ("direction", directions, Direction),
            ("question", {self.question}, Question),
        ):
            if unknown := given - set(get_args(words)):
                raise CamlucidaError(
                    f"metric {self.name!r}: {what} cannot be {', '.join(map(str, unknown))}; known words: "
                    f"{', '.join(get_args(words))}"
                )
        for limits in (self.range, *(f.range for f in self.numbers.values() if f.range)):
            if not limits[0] < limits[1]:
                raise CamlucidaError(f"metric {self.name!r}: the range {limits} is empty")

    def lacking(self, available: Iterable[str]) -> tuple[MetricNeed, ...]:
        """What the metric needs and is not among ``available``; a benchmark refuses early by it."""
        there = set(available)
        return tuple(need for need in self.needs if need not in there)


METRICS = Registry(MetricRow)


def register(
    name: str, *, direction: Direction, range: Range, source: str, title: str = "", **facts: Any  # noqa: A002
) -> Callable[[M], M]:  # fmt: skip
    """Class decorator that makes a metric known by name; also for metrics outside the package.

    A metric's numbers are called ``name`` or ``name@parameter`` (``"iou@0.3"``). One that is called
    otherwise, or differs in direction, range or unit, is named in ``numbers`` without its parameter. A title
    takes the parameter at its ``{}`` (``"MSE to {}"``), or else behind ``at``.

    Args:
        name: the name, unique.
        direction: ``"higher"`` or ``"lower"`` is better, or ``"none"``.
        range: smallest and largest possible value, ``inf`` where there is no limit.
        source: paper and equation or section.
        title: for people; the name by default.
        **facts: the other fields of :class:`MetricRow`.

    Raises:
        CamlucidaError: the name or a number's name is taken, or a fact is not one of the known words.

    Example:
        >>> @camlucida.metrics.register("brightest", direction="none", range=(0, 1), source="this example")
        ... class Brightest(camlucida.metrics.OneNumber):
        ...     "The largest value of the map."
        ...
        ...     def value(self, scene, explanation):
        ...         return explanation.maps.amax((1, 2)).double()
        >>> camlucida.metrics.registry.METRICS.remove("brightest")
    """
    row = MetricRow(name, Metric, title or name, direction, range, source, **facts)

    def add(metric: M) -> M:
        for number in (name, *row.numbers):
            for other in METRICS:
                if plain(other.name) != plain(name) and number in (other.name, *other.numbers):
                    raise CamlucidaError(
                        f"number name {number!r} is taken by metric {other.name!r}"
                    )
        METRICS.add(replace(row, make=metric))
        if "named" not in vars(metric):
            metric.named = (name, *row.numbers)
        return metric

    return add


def list_metrics() -> tuple[MetricRow, ...]:
    """All registered metrics, in the order of registration.

    Example:
        >>> "road" in [row.name for row in camlucida.metrics.list_metrics()]
        True
    """
    return tuple(METRICS)


def metric_groups() -> dict[str, tuple[str, ...]]:
    """The names of the metrics by the question that they ask, those of ``"all"``, and the ``"default"`` ones.

    By default localisation and faithfulness are measured, without the slow metrics.

    Metrics that fit special models only are in no group.

    Example:
        >>> camlucida.metrics.metric_groups()["agreement"]
        ('similarity', 'rank_correlation', 'ssim')
    """
    rows = [row for row in METRICS if not row.on_request]
    asked = [q for q in get_args(Question) if any(row.question == q for row in rows)]
    groups = {q: tuple(row.name for row in rows if row.question == q) for q in asked}
    usual = tuple(
        row.name
        for row in rows
        if row.question in {"localisation", "faithfulness"} and not row.slow
    )
    return {**groups, "default": usual, "all": tuple(row.name for row in rows)}


def metric_row(name: str) -> MetricRow:
    """The registry's row of a name; case, spaces, hyphens and underscores do not matter.

    Raises:
        CamlucidaError: for an unknown name, with the nearest ones.

    Example:
        >>> str(camlucida.metrics.metric_row("Average Drop").cost)
        '1 forward pass'
    """
    return METRICS[name]


def build_metric(name: str, **options: Any) -> Metric:
    """A metric from a registered name and options.

    Args:
        name: registered name, also with options as the command line writes them: ``iou:points=5``.
        **options: the metric's fields; they win over those of the text.

    Raises:
        CamlucidaError: for an unknown name or option, with the nearest, or an invalid value.

    Example:
        >>> camlucida.metrics.build_metric("iou", thresholds=(0.5,)).names
        ('iou@0.5', 'iou_area')
    """
    row, written = METRICS.read(name)
    return row.build(**{**written, **options})


def describe_number(name: str) -> Number:
    """Title, direction, range and unit of one of a metric's numbers.

    Args:
        name: as in a metric's ``names``, with its parameter: ``"iou@0.3"``.

    Raises:
        CamlucidaError: no registered metric has such a number.

    Example:
        >>> camlucida.metrics.describe_number("cam_entropy_bits").unit
        'bits'
    """
    stem, _, parameter = name.partition("@")
    for row in METRICS:
        if stem != row.name and stem not in row.numbers:
            continue
        facts = row.numbers.get(stem) or Facts(row.title)
        title = facts.title.replace("{}", parameter)
        if parameter and title == facts.title:
            title += f" at {parameter}"
        return Number(
            name,
            title,
            facts.direction or row.direction,
            facts.range or row.range,
            row.unit if facts.unit is None else facts.unit,
            row.name,
            row.question,
            row.over,
            row.height,
        )
    known = [n for row in METRICS for n in (row.name, *row.numbers)]
    near = difflib.get_close_matches(stem, known, n=3, cutoff=0.5) or known
    raise CamlucidaError(f"no metric has a number {name!r}; nearest: {', '.join(near)}")


def range_in_words(limits: Range) -> str:
    """``"0 to 1"``, ``"at least 0"``, ``"any"``."""
    low, high = limits
    if math.isinf(low) and math.isinf(high):
        return "any"
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:.4g}"
