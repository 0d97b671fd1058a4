"""``camlucida metrics``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from camlucida.cli.shared.console import console, print_json
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
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(Text(row.name), _facts(row))
    console().print(table)


def _facts(row: MetricRow) -> Table:
    """What there is to say about a metric."""
    from camlucida.metrics.registry import MetricCost, range_in_words

    limits = range_in_words(row.range) + (f" {row.unit}" if row.unit else "")
    facts = {
        "what": row.summary.replace("``", ""),
        "range": f"{limits}; {_DIRECTIONS[row.direction]}",
        "numbers": ", ".join(_number(number, row) for number in _numbers(row)),
        "source": row.source,
        "needs": ", ".join(row.needs),
        "cost": "" if row.cost == MetricCost() else str(row.cost),
        "options": ", ".join(f"{k}={_word(v)}" for k, v in row.options.items()),
        "remark": row.remark,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True, min_width=7)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact:
            table.add_row(name, Text(fact))
    return table


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
    return {
        "name": row.name,
        "title": row.title,
        "summary": row.summary.replace("``", ""),
        "direction": row.direction,
        "range": row.range,
        "unit": row.unit,
        "source": row.source,
        "needs": row.needs,
        "cost": str(row.cost),
        "costs": asdict(row.cost),
        "options": row.options,
        "numbers": [
            {
                "name": number.name,
                "title": number.title,
                "direction": number.direction,
                "range": number.range,
                "unit": number.unit,
            }
            for number in _numbers(row)
        ],
        "remark": row.remark,
    }


def _word(value: Any) -> str:
    """A default as a user reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_word, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
