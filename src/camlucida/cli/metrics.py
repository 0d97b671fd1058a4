"""``camlucida metrics``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from camlucida.cli.shared.console import console, print_json
from camlucida.cli.shared.listing import listing, word
from camlucida.cli.shared.options import AsJson

if TYPE_CHECKING:
    from camlucida.metrics import MetricRow, Number

_DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "none": "describes, does not judge",
}


def metrics(
    as_json: AsJson = False,
) -> None:
    """List the metrics: what they measure, direction, range, source, needs, cost and options."""
    from camlucida.metrics import list_metrics

    rows = list_metrics()
    if as_json:
        print_json([_record(row) for row in rows])
        return
    console().print(listing((row.name, _facts(row)) for row in rows))


def _facts(row: MetricRow) -> dict[str, str]:
    """What there is to say about a metric."""
    from camlucida.metrics.registry import MetricCost, range_in_words

    limits = range_in_words(row.range) + (f" {row.unit}" if row.unit else "")
    return {
        "what": row.summary.replace("``", ""),
        "range": f"{limits}; {_DIRECTIONS[row.direction]}",
        "numbers": ", ".join(_number(number, row) for number in _numbers(row)),
        "source": row.source,
        "needs": ", ".join(row.needs),
        "cost": "" if row.cost == MetricCost() else str(row.cost),
        "options": ", ".join(f"{k}={word(v)}" for k, v in row.options.items()),
        "remark": row.remark,
    }


def _numbers(row: MetricRow) -> list[Number]:
    """Facts of each number that the metric returns with its default options."""
    from camlucida.metrics import describe_number

    return [describe_number(name) for name in row.make().names]


def _number(number: Number, row: MetricRow) -> str:
    """A number's name, and its direction where it is not the metric's."""
    if number.direction == row.direction:
        return number.name
    return f"{number.name} ({_DIRECTIONS[number.direction]})"


def _record(row: MetricRow) -> dict[str, Any]:
    own = (
        "name",
        "title",
        "direction",
        "range",
        "unit",
        "question",
        "source",
        "needs",
        "options",
        "remark",
    )
    return {
        **{name: getattr(row, name) for name in own},
        "summary": row.summary.replace("``", ""),
        "cost": str(row.cost),
        "costs": asdict(row.cost),
        "numbers": [
            {n: getattr(number, n) for n in ("name", "title", "direction", "range", "unit")}
            for number in _numbers(row)
        ],
    }
