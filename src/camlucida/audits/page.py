"""The page of an audit: one file, pictures inside, no script, readable without colours."""

from __future__ import annotations

import base64
import re
from html import escape
from typing import TYPE_CHECKING, Any

from camlucida.audits.base import OUTCOMES, AuditReport, Outcome, Table, Verdict
from camlucida.plain import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 76rem;
  margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; border-top: 2px solid #111; padding-top: .6rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0 .3rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #bbb;
  font-size: .92rem; vertical-align: top; }
th:first-child, td:first-child, .word, .words td, .words th { text-align: left; }
td { white-space: nowrap; } .word, .words td { white-space: normal; }
.words td:nth-child(2) { white-space: nowrap; font-weight: 600; }
.fail td:nth-child(2) { color: #a1290f; } .warn td:nth-child(2) { color: #7a5200; }
.pass td:nth-child(2) { color: #1b5e20; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { font-size: .9rem; color: #333; max-width: 62rem; }
pre { font-size: .8rem; overflow-x: auto; background: #f4f4f4; padding: .8rem; }
"""

_FIGURE = re.compile(r"[-+−±<>≤≥≈ ]*\.?\d|(nan|inf|–)$")

_MARKS: dict[Outcome, str] = {"pass": "✓", "warn": "!", "fail": "✗", "not tested": "·"}
_ORDER: tuple[Outcome, ...] = ("fail", "warn", "pass", "not tested")


def audit_page(report: AuditReport) -> str:
    """The report as a page of HTML; all text is escaped."""
    verdicts = sorted(report.verdicts, key=lambda v: _ORDER.index(v.outcome))
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f"<p><strong>{escape(report.summary)}</strong></p>" if report.summary else "",
        *(f"<p>{escape(text)}</p>" for text in report.tested.split("\n") if text.strip()),
        _verdicts(verdicts) if verdicts else "",
    ]
    if report.pictures:
        parts.append("<h2>Pictures</h2>")
        for picture in report.pictures:
            address = base64.b64encode(picture.content).decode("ascii")
            alt = escape(picture.alt or picture.caption, quote=True)
            parts.append(
                f'<figure><img src="data:image/png;base64,{address}" alt="{alt}">'
                f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
            )
    if report.tables:
        parts.append("<h2>Numbers</h2>")
        parts += [_table(table) for table in report.tables]
    if report.record:
        parts.append(
            "<h2>Record</h2><details><summary>What is needed to run this again</summary>"
            f"<pre>{escape(to_json(report.record))}</pre></details>"
        )
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n"
        "</html>\n"
    )


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    rows = "".join(
        f'<tr class="{verdict.outcome.split()[0]}"><th scope="row">{escape(verdict.subject)}</th>'
        f"<td>{_MARKS[verdict.outcome]} {escape(OUTCOMES[verdict.outcome])}</td>"
        f"<td>{_unbroken(verdict.text)}</td></tr>\n"
        for verdict in verdicts
    )
    return (
        '<h2>Verdicts</h2><div class="scroll"><table class="words"><thead><tr><th scope="col">method</th>'
        f'<th scope="col">verdict</th><th scope="col">why</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _table(table: Table) -> str:
    kinds = [
        ' class="word"' if any(_is_word(row[i]) for row in table.rows if i < len(row)) else ""
        for i in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column)}</th>'
        for column, kind in zip(table.columns, kinds, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(
            f"<td{kind}>{_cell(value)}</td>"
            for value, kind in zip(row[1:], kinds[1:], strict=False)
        )
        + "</tr>\n"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table><caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _unbroken(text: str) -> str:
    """Escaped, and no line breaks between a figure and its percent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", escape(text))


def _is_word(value: Any) -> bool:
    """Whether a cell is read rather than compared; texts that begin with a figure are compared."""
    return isinstance(value, str) and bool(value) and not _FIGURE.match(value)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
