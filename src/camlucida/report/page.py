"""A report as one self-contained web page: title, lead, sections; nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from camlucida.report.charts import COLOURS
from camlucida.report.tables import Table
from camlucida.report.template import page


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        name: of its place in the page, unique there: small letters, digits and hyphens.
        title: the heading.
        parts: HTML fragments, such as :func:`paragraph`, :func:`figures`, :func:`details` and tables.
        lead: one sentence below the heading, plain text.
    """

    name: str
    title: str
    parts: Sequence[str | Table]
    lead: str = ""

    @property
    def html(self) -> str:
        """Its parts, drawn."""
        return "\n".join(part.html() if isinstance(part, Table) else part for part in self.parts)


@dataclass(frozen=True)
class Document:
    """A whole page.

    Attributes:
        title: the heading, and the name of the browser's tab.
        lead: the answer, in sentences of plain text.
        sections: what follows, each in the table of contents.
        facts: short pairs below the title, such as ``("images", "5,000")``.
        language: of the text.
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    language: str = "en"

    def html(self) -> str:
        """The page, as it is written to a file."""
        return page("report_base.html", document=self, colours=COLOURS)


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def subheading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def answers(pairs: Sequence[tuple[str, str]]) -> str:
    """Questions and their answers, plain text."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
    return f'<dl class="answers">{rows}</dl>'


def side_by_side(given: Sequence[Table]) -> str:
    """Tables without their legends, side by side where there is room."""
    drawn = "".join(f"<div>{table.html(legend=False)}</div>" for table in given)
    return f'<div class="tables">{drawn}</div>'


def figures(charts: Sequence[tuple[str, str]]) -> str:
    """Charts side by side, as many as there is room for.

    Args:
        charts: an ``<svg>`` and its caption, plain text, each.
    """
    drawn = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        for svg, caption in charts
    )
    return f'<div class="charts">{drawn}</div>'


def details(summary: str, html: str) -> str:
    """What only some readers want to see, folded away; printed unfolded."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values, plain text."""
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{rows}</dl>'
