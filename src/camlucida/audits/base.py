"""What every audit returns.

An audit puts methods to a test and says of each, in words that need no paper, how it did, with the number and
the bound behind the word.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Outcome: TypeAlias = Literal["pass", "warn", "fail", "not tested"]

OUTCOMES: dict[Outcome, str] = {
    "pass": "passed",
    "warn": "passed with a caution",
    "fail": "failed",
    "not tested": "not tested",
}
"""The outcomes, worst last but one, and how they are said."""


@dataclass(frozen=True)
class Verdict:
    """What an audit says of one method.

    Attributes:
        subject: the method, as tables name it.
        outcome: ``"pass"``, ``"warn"`` (passed, but read the text), ``"fail"`` or ``"not tested"``.
        text: why, in a sentence or two for people who know no paper, with the number and the bound.
        value: the number that decided; ``None`` where nothing was measured.
        threshold: the bound it was held against.
        measure: what the number is.
        details: anything else that was measured, ready for JSON.
    """

    subject: str
    outcome: Outcome
    text: str
    value: float | None = None
    threshold: float | None = None
    measure: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the outcome.

        Raises:
            CamlucidaError: it is none of the four.
        """
        if self.outcome not in OUTCOMES:
            raise CamlucidaError(
                f"the outcome of a verdict is one of {', '.join(OUTCOMES)}, got {self.outcome!r}"
            )


@dataclass(frozen=True)
class Table:
    """Numbers in rows; the first column names the row.

    Attributes:
        title: what is shown.
        columns: one heading per column.
        rows: cells as text or numbers; ``None`` is shown as a dash.
        note: what a reader must know.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Check that every row has a cell for every column.

        Raises:
            CamlucidaError: naming the row that has not.
        """
        for row in self.rows:
            if len(row) != len(self.columns):
                raise CamlucidaError(
                    f"table {self.title!r}: row {row[:1]} has {len(row)} cells for {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes:
        name: of its file, without suffix.
        caption: what is to be seen.
        content: PNG bytes.
        alt: the picture in words, for those who cannot see it; the caption by default.
    """

    name: str
    caption: str
    content: bytes = field(repr=False)
    alt: str = ""

    @classmethod
    def of(cls, name: str, caption: str, figure: Figure, alt: str = "") -> Picture:
        """A picture of a matplotlib figure."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        return cls(name, caption, buffer.getvalue(), alt)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        audit: its name, such as ``"deadzone"``.
        title: for people.
        tested: what was put to the test and how, in words.
        summary: the outcome in one or two sentences.
        verdicts: of each method.
        tables: the numbers.
        pictures: to be looked at.
        record: everything that is needed to run it again, ready for JSON.
    """

    audit: str
    title: str
    tested: str
    summary: str
    verdicts: tuple[Verdict, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, subject: str) -> Verdict:
        """The verdict on a method.

        Raises:
            KeyError: it is not in the report.
        """
        for verdict in self.verdicts:
            if verdict.subject == subject:
                return verdict
        raise KeyError(subject)

    def count(self, outcome: Outcome) -> int:
        """Number of methods with an outcome."""
        return sum(v.outcome == outcome for v in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures' bytes, ready for JSON."""
        return {
            "camlucida": __version__,
            "torch": str(torch.__version__),
            "audit": self.audit,
            "title": self.title,
            "tested": self.tested,
            "summary": self.summary,
            "verdicts": [asdict(v) for v in self.verdicts],
            "tables": [asdict(t) for t in self.tables],
            "pictures": [
                {"name": p.name, "caption": p.caption, "file": f"{self.audit}-{p.name}.png"}
                for p in self.pictures
            ],
            "record": self.record,
        }

    def html(self) -> str:
        """One page with everything in it; nothing is fetched."""
        return audit_page(self)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the page, the JSON and the pictures, each whole or not at all.

        Args:
            folder: made if need be.

        Returns:
            The files, the page first.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        root = Path(folder)
        contents = {
            f"{self.audit}.html": self.html().encode(),
            f"{self.audit}.json": to_json(self.to_dict()).encode(),
            **{f"{self.audit}-{p.name}.png": p.content for p in self.pictures},
        }
        return tuple(write_bytes(root / name, content) for name, content in contents.items())

    def __rich__(self) -> Any:
        """The verdicts as a table on a terminal."""
        from rich.table import Table as RichTable

        shown = RichTable(box=None, header_style="bold", title_justify="left")
        for column in ("method", "verdict", "why"):
            shown.add_column(column)
        for verdict in self.verdicts:
            shown.add_row(verdict.subject, OUTCOMES[verdict.outcome], verdict.text)
        return shown


def rounded(value: float | None, places: int = 1) -> str:
    """A number for a cell; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{places}f}"  # noqa: PLR0124


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
