"""The plan of a run as tables that people read."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

from camlucida.benchmark.report.results import RunResults
from camlucida.common.store import leaves
from camlucida.common.version import __version__
from camlucida.report.page import Section, facts, paragraph
from camlucida.report.tables import Table

_LONG = 300


def provenance(results: RunResults) -> tuple[Section, list[Table]]:
    """What was done with what, so that anybody can do it again."""
    plan = results.plan
    head = [
        ("plan's digest", str(plan.get("digest") or "unknown")),
        ("measured by", f"camlucida {plan.get('camlucida', '?')}"),
        ("reported by", f"camlucida {__version__}, Python {platform.python_version()}"),
    ]
    spent = _spent(results)
    if spent:
        head.append(("time spent", spent))
    rest = {k: v for k, v in plan.items() if k not in {"methods", "metrics", "format"}}
    tables = [
        Table.of_rows(
            "plan-methods",
            "Methods",
            ["method", "name", "options"],
            [(m["label"], m["name"], _options(m["options"])) for m in plan["methods"]],
        ),
        Table.of_rows(
            "plan-metrics",
            "Metrics",
            ["metric", "numbers", "options"],
            [
                (m["name"], ", ".join(m["numbers"]) or "–", _options(m["options"]))
                for m in plan["metrics"]
            ],
        ),
        _settings("plan-settings", "Everything else that decides the numbers", rest),
        _settings(
            "plan-how",
            "How it was run; this does not decide the numbers, but what they cost",
            plan.get("how") or {},
        ),
    ]
    tables = [table for table in tables if table.rows]
    parts: list[str | Table] = [facts(head)]
    parts += [t.html(sortable=False) for t in tables]
    parts.append(paragraph("The same plan in full is the run's plan.json.", note=True))
    return Section("provenance", "How these numbers were made", parts), tables


def _settings(name: str, caption: str, values: Mapping[str, Any]) -> Table:
    rows = [(path, _text(value)) for path, value in leaves(values) if path]
    return Table.of_rows(name, caption, ["setting", "value"], rows)


def _spent(results: RunResults) -> str:
    total = sum(
        shard.get(name) or 0.0
        for shard in results.folder.facts()
        for name in ("explaining", "measuring")
    )
    if not total:
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


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
