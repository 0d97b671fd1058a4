"""The plan of a run as tables that people read."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from camlucida.benchmark.report.results import RunResults
from camlucida.common.version import __version__
from camlucida.report.page import Section, facts, paragraph
from camlucida.report.tables import Cell, Column, Table

_LONG = 300


def provenance(results: RunResults) -> tuple[Section, list[Table]]:
    """What was done with what, so that anybody can do it again."""
    plan = results.plan
    how = plan.get("how") or {}
    head = [
        ("plan's digest", str(plan.get("digest") or "unknown")),
        ("measured by", f"camlucida {plan.get('camlucida', '?')}"),
        ("reported by", f"camlucida {__version__}, Python {platform.python_version()}"),
    ]
    spent = _spent(results)
    if spent:
        head.append(("time spent", spent))
    methods = Table(
        "plan-methods",
        "Methods",
        (Column("name"), Column("options")),
        tuple(
            (
                str(m.get("label") or m.get("name")),
                (Cell(str(m.get("name"))), Cell(_options(m.get("options")))),
            )
            for m in plan.get("methods") or []
        ),
    )
    metrics = Table(
        "plan-metrics",
        "Metrics",
        (Column("numbers"), Column("options")),
        tuple(
            (
                str(m.get("name")),
                (
                    Cell(", ".join(map(str, m.get("numbers") or [])) or "–"),
                    Cell(_options(m.get("options"))),
                ),
            )
            for m in plan.get("metrics") or []
        ),
        stub="metric",
    )
    rest = {
        k: v
        for k, v in plan.items()
        if k not in {"methods", "metrics", "digest", "about", "how", "format"}
    }
    settings = Table(
        "plan-settings",
        "Everything else that decides the numbers",
        (Column("value"),),
        tuple((name, (Cell(value),)) for name, value in _leaves(rest)),
        stub="setting",
    )
    tables = [methods, metrics, settings]
    if how:
        tables.append(
            Table(
                "plan-how",
                "How it was run; this does not decide the numbers, but what they cost",
                (Column("value"),),
                tuple((name, (Cell(value),)) for name, value in _leaves(how)),
                stub="setting",
            )
        )
    parts: list[str | Table] = [facts(head)]
    parts += [t.html(sortable=False) for t in tables if t.rows]
    parts.append(paragraph("The same plan in full is the run's plan.json.", note=True))
    return Section("provenance", "How these numbers were made", parts), [
        t for t in tables if t.rows
    ]


def _spent(results: RunResults) -> str:
    total, found = 0.0, False
    for shard in results.table.folder.facts():
        for name in ("explaining", "measuring"):
            if isinstance(value := shard.get(name), int | float):
                total, found = total + value, True
    if not found:
        return ""
    return (
        f"{total:.0f} s"
        if total < 120
        else f"{total / 60:.0f} min"
        if total < 7200
        else f"{total / 3600:.1f} h"
    )


def _options(options: Any) -> str:
    if not isinstance(options, Mapping) or not options:
        return "defaults"
    return ", ".join(f"{name}={_text(value)}" for name, value in options.items())


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
