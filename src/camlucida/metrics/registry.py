"""The registry of metrics: feeds ``camlucida metrics``, the documentation, the benchmark and its tables."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_args

from camlucida.common.errors import CamlucidaError
from camlucida.metrics.base import Direction, Metric, Need, Question

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
    """

    name: str
    title: str
    direction: Direction
    range: Range
    unit: str
    metric: str
    question: Question

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
    """

    title: str
    direction: Direction | None = None
    range: Range | None = None
    unit: str | None = None


@dataclass(frozen=True)
class MetricEntry:
    """A row of the registry.

    Attributes:
        name: what users type.
        metric: the class, a frozen dataclass whose fields are the metric's options.
        title: for people.
        direction: which way is better.
        range: smallest and largest possible value.
        unit: empty for a plain number or share.
        question: what it asks of a map.
        source: paper and equation or section.
        needs: what the data, the model and the run must have, words of :data:`camlucida.metrics.Need`.
        cost: per image and method, beside the explanation itself.
        remark: anything a user must know.
        numbers: facts of the numbers that have a name of their own.
    """

    name: str
    metric: type[Metric]
    title: str
    direction: Direction
    range: Range
    unit: str
    question: Question
    source: str
    needs: tuple[Need, ...]
    cost: str
    remark: str
    numbers: Mapping[str, Facts]

    @property
    def summary(self) -> str:
        """First line of the metric's documentation."""
        return (inspect.getdoc(self.metric) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the metric's options."""
        return {
            f.name: f.default_factory() if f.default_factory is not MISSING else f.default
            for f in fields(self.metric)
        }

    def lacking(self, available: Iterable[str]) -> tuple[Need, ...]:
        """What the metric needs and is not among ``available``; a benchmark refuses early by it."""
        there = set(available)
        return tuple(need for need in self.needs if need not in there)


_REGISTRY: dict[str, MetricEntry] = {}


def register(
    name: str,
    *,
    direction: Direction,
    range: Range,  # noqa: A002
    unit: str = "",
    question: Question = "other",
    source: str,
    needs: tuple[Need, ...] = (),
    cost: str = "none",
    remark: str = "",
    title: str = "",
    numbers: Mapping[str, Facts] | None = None,
) -> Callable[[M], M]:
    """Class decorator that makes a metric known by name; also for metrics outside the package.

    A metric's numbers are called ``name`` or ``name@parameter`` (``"iou@0.3"``). One that is called
    otherwise, or differs in direction, range or unit, is named in ``numbers`` without its parameter. A title
    takes the parameter at its ``{}`` (``"MSE to {}"``), or else behind ``at``.

    Args:
        name: the name, unique.
        direction: ``"higher"`` or ``"lower"`` is better, or ``"none"``.
        range: smallest and largest possible value, ``inf`` where there is no limit.
        unit: empty for a plain number or share.
        question: what it asks of a map, of ``"localisation"``, ``"faithfulness"``, ``"stability"``,
            ``"agreement"``, ``"concentration"``, ``"dead zones"``, ``"other"``, ``"cost"``; reports are ordered by it.
        source: paper and equation or section.
        needs: what must be there, of ``"boxes"``, ``"masks"``, ``"labels"``, ``"logits"``, ``"preprocess"``,
            ``"model"``, ``"reference"``.
        cost: per image and method, such as ``"10 forward passes"``.
        remark: anything a user must know.
        title: for people; the name by default.
        numbers: facts of numbers with a name of their own.

    Raises:
        CamlucidaError: the name or a number's name is taken, a word of ``needs``, ``direction`` or ``question`` is
            unknown, or the range is empty.
    """
    if unknown := [need for need in needs if need not in get_args(Need)]:
        known = ", ".join(get_args(Need))
        raise CamlucidaError(f"metric {name!r} needs {', '.join(unknown)}; known words: {known}")
    if question not in get_args(Question):
        known = ", ".join(get_args(Question))
        raise CamlucidaError(f"metric {name!r} asks {question!r}; known questions: {known}")
    for facts in ({"": Facts(title, direction, range)} | dict(numbers or {})).values():
        if facts.direction is not None and facts.direction not in get_args(Direction):
            raise CamlucidaError(
                f"metric {name!r}: direction must be 'higher', 'lower' or 'none', got "
                f"{facts.direction!r}"
            )
        if facts.range is not None and not facts.range[0] < facts.range[1]:
            raise CamlucidaError(f"metric {name!r}: the range {facts.range} is empty")

    def add(metric: M) -> M:
        known = _REGISTRY.get(name)
        if known is not None and known.metric.__qualname__ != metric.__qualname__:
            raise CamlucidaError(f"metric name {name!r} is taken by {known.metric.__qualname__}")
        for number in (name, *(numbers or {})):
            owner = next(
                (r.name for r in _REGISTRY.values() if number in (r.name, *r.numbers)), name
            )
            if owner != name:
                raise CamlucidaError(f"number name {number!r} is taken by metric {owner!r}")
        _REGISTRY[name] = MetricEntry(
            name,
            metric,
            title or name,
            direction,
            range,
            unit,
            question,
            source,
            tuple(needs),
            cost,
            remark,
            dict(numbers or {}),
        )
        return metric

    return add


def metrics() -> tuple[MetricEntry, ...]:
    """All registered metrics, in the order of registration."""
    return tuple(_REGISTRY.values())


def metric_entry(name: str) -> MetricEntry:
    """The registry's row of a name; case, spaces, hyphens and underscores do not matter.

    Raises:
        CamlucidaError: for an unknown name, with the nearest ones.
    """
    plain = {_plain(known): row for known, row in _REGISTRY.items()}
    if (row := plain.get(_plain(name))) is not None:
        return row
    if ":" in name:
        raise CamlucidaError(
            f"unknown metric {name!r}: name:key=value is how the command line writes options; in Python pass "
            "them to build_metric as keyword arguments"
        )
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    names = [plain[n].name for n in near] or list(_REGISTRY)
    raise CamlucidaError(
        f"unknown metric {name!r}; {'nearest' if near else 'known'}: {', '.join(names)}"
    )


def build_metric(name: str, **options: Any) -> Metric:
    """A metric from a registered name and options.

    Args:
        name: registered name.
        **options: the metric's fields.

    Raises:
        CamlucidaError: for an unknown name or option, with the nearest, or an invalid value.
    """
    row = metric_entry(name)
    known = row.options
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            listed = f"options: {', '.join(known)}" if known else "it has none"
            raise CamlucidaError(f"{row.name} has no option {option!r}{hint} ({listed})")
    try:
        return row.metric(**options)
    except CamlucidaError as error:
        raise type(error)(f"{row.name}: {error}") from error


def describe_number(name: str) -> Number:
    """Title, direction, range and unit of one of a metric's numbers.

    Args:
        name: as in a metric's ``names``, with its parameter: ``"iou@0.3"``.

    Raises:
        CamlucidaError: no registered metric has such a number.
    """
    stem, _, parameter = name.partition("@")
    for row in _REGISTRY.values():
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
        )
    known = [n for row in _REGISTRY.values() for n in (row.name, *row.numbers)]
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


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
