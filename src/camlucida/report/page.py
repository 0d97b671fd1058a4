"""A report as one self-contained web page: title, lead, sections; nothing is fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json
from camlucida.report.charts import COLOURS
from camlucida.report.tables import Table
from camlucida.report.template import data_uri, page


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        name: the name of its place in the page, unique there: small letters, digits and hyphens.
        title: the heading.
        parts: tables, and HTML fragments such as :func:`paragraph`, :func:`figures` and :func:`picture` make them.
        lead: one sentence below the heading, plain text.

    Example:
        >>> from camlucida.report.page import paragraph
        >>> section = camlucida.report.Section("care", "Take care", [paragraph("One photo is few.")])
    """

    name: str
    title: str
    parts: Sequence[str | Table]
    lead: str = ""


@dataclass(frozen=True)
class Document:
    """A whole page.

    Attributes:
        title: the heading, and the name of the browser's tab.
        lead: the answer, in sentences of plain text.
        sections: what follows, each in the table of contents.
        facts: short pairs below the title, such as ``("images", "5,000")``.
        parts: tables and fragments before the first section, as of a section.
        language: the language of the text.
        sortable: let readers sort tables by a column; without it the page holds no script but its own.
        style: CSS of its own, after that of all pages.
        script: JavaScript of its own.

    Example:
        >>> page = camlucida.report.Document("Two models", ["They agree."], [])
        >>> "They agree." in page.html()
        True
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    parts: Sequence[str | Table] = ()
    language: str = "en"
    sortable: bool = True
    style: str = ""
    script: str = ""

    def html(self) -> str:
        """The page, as it is written to a file."""
        opening, *sections = (
            "\n".join(p.html(sortable=self.sortable) if isinstance(p, Table) else p for p in parts)
            for parts in (self.parts, *(section.parts for section in self.sections))
        )
        return page(
            "report_base.html", document=self, opening=opening, drawn=sections, colours=COLOURS
        )


def save(
    folder: str | os.PathLike[str],
    name: str,
    html: str,
    record: Mapping[str, Any],
    tables: Sequence[Table] = (),
    pictures: Mapping[str, bytes] | None = None,
    *,
    page_name: str = "",
) -> tuple[Path, ...]:
    """Write a page, its numbers, its tables and its pictures, each file whole or not at all.

    Args:
        folder: made if need be.
        name: the name of the page, ``NAME.html``, and of the numbers, ``NAME.json``.
        html: the page.
        record: the numbers, ready for JSON.
        tables: each is written as ``.csv`` and ``.tex`` under its own name.
        pictures: their content by file name.
        page_name: the name of the page, where it is another than that of the numbers.

    Returns:
        The files, the page first.

    Raises:
        CamlucidaError: the folder cannot be written to.

    Example:
        >>> files = camlucida.report.save("out", "means", "<p>0.5</p>", {"mean": 0.5})
        >>> [file.name for file in files]
        ['means.html', 'means.json']
    """
    contents = {
        f"{page_name or name}.html": html.encode(),
        f"{name}.json": to_json(record).encode(),
    }
    contents |= pictures or {}
    for table in tables:
        contents[f"{table.name}.csv"] = table.csv().encode()
        contents[f"{table.name}.tex"] = table.latex().encode()
    return tuple(write_bytes(Path(folder) / file, content) for file, content in contents.items())


# ---------------------------------------------------------------------------------- parts of sections


@dataclass(frozen=True)
class Tile:
    """One picture of a :class:`Strip`.

    Attributes:
        title: below it.
        text: below that.
        alt: what it shows.
        picture: JPEG bytes.
        small: it has few pixels, and is enlarged pixel by pixel.
    """

    title: str
    text: str
    alt: str
    picture: bytes
    small: bool = False

    @property
    def address(self) -> str:
        """The picture as an address that holds it."""
        return data_uri(self.picture, "image/jpeg")


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, such as a photo and its maps.

    Attributes:
        caption: what they are.
        tiles: the pictures.
    """

    caption: str
    tiles: tuple[Tile, ...]


def strips(given: Sequence[Strip]) -> str:
    """Strips below each other; those of two pictures side by side where there is room."""
    return page("report_gallery.html", strips=given) if given else ""


def picture(content: bytes, alt: str, caption: str = "") -> str:
    """A picture inside the page, at most as wide as the page.

    Args:
        content: PNG or JPEG bytes.
        alt: what it shows, for who cannot see it.
        caption: above it; by default the same.
    """
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
    return (
        f"<figure><figcaption>{escape(caption or alt)}</figcaption>"
        f'<img class="drawn" alt="{escape(alt)}" src="{data_uri(content, kind)}"></figure>'
    )


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """A list of sentences, plain text."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


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
    """Charts side by side, as many as there is room for."""
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
