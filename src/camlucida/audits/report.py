"""The report that every audit returns, and its page."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from camlucida.audits.verdicts import MARKS, OUTCOMES, Outcome, Verdict
from camlucida.common.jsonable import to_json
from camlucida.common.version import __version__
from camlucida.report import Document, Section, Table, save
from camlucida.report.page import details, figures, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ORDER: tuple[Outcome, ...] = ("fail", "unclear", "warn", "pass", "not tested")


@dataclass(frozen=True)
class Illustration:
    """A picture of a report.

    Attributes:
        name: of its file, without suffix.
        caption: what is to be seen.
        content: PNG bytes, or a chart as SVG.
        alt: the picture in words, for those who cannot see it; the caption by default.

    Example:
        >>> from camlucida.report.charts import Point, bars
        >>> points = [Point("gradcam", 0.4), Point("fame", 0.1)]
        >>> drawn = camlucida.audits.Illustration.chart(bars, "far", "Far", "It moves.", points, x_label="distance")
        >>> drawn.file("mine")
        'mine-far.svg'
    """

    name: str
    caption: str
    content: bytes = field(repr=False)
    alt: str = ""

    @classmethod
    def of(cls, name: str, caption: str, figure: Figure, alt: str = "") -> Illustration:
        """A picture of a matplotlib figure."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        return cls(name, caption, buffer.getvalue(), alt)

    @classmethod
    def chart(
        cls,
        draw: Callable[..., str],
        name: str,
        title: str,
        caption: str,
        *shown: Any,
        **options: Any,
    ) -> Illustration:
        """A chart of :mod:`camlucida.report.charts`.

        Args:
            draw: one of its functions, such as ``lines``.
            name: of the file and the chart.
            title: what the chart is called.
            caption: what is to be seen, also for those who cannot see it.
            *shown: what it draws.
            **options: of the function.
        """
        return cls(name, caption, draw(name, title, *shown, describe=caption, **options).encode())

    @property
    def is_chart(self) -> bool:
        """Whether it is SVG."""
        return self.content.startswith(b"<svg")

    def file(self, audit: str) -> str:
        """The name of its file."""
        return f"{audit}-{self.name}.{'svg' if self.is_chart else 'png'}"

    def html(self) -> str:
        """A fragment of a page."""
        if self.is_chart:
            return figures([(self.content.decode(), self.caption)])
        return picture(self.content, self.alt or self.caption, self.caption)


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

    Example:
        >>> verdict = camlucida.audits.Verdict("gradcam", "pass", "It stayed.")
        >>> report = camlucida.audits.AuditReport("mine", "My audit", "A try.", "One passed.", (verdict,))
        >>> report["gradcam"].outcome, report.count("fail")
        ('pass', 0)
        >>> [file.name for file in report.save("out")]
        ['mine.html', 'mine.json']
    """

    audit: str
    title: str
    tested: str
    summary: str
    verdicts: tuple[Verdict, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Illustration, ...] = ()
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

    @property
    def untested(self) -> dict[str, str]:
        """What could not be tested at all, with the reason."""
        return {v.subject: v.text for v in self.verdicts if v.outcome == "not tested"}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures' bytes, ready for JSON."""
        return {
            "camlucida": __version__,
            "torch": str(torch.__version__),
            "audit": self.audit,
            "title": self.title,
            "tested": self.tested,
            "summary": self.summary,
            "verdicts": [v.to_dict() for v in self.verdicts],
            "skipped": [{"method": m, "reason": why} for m, why in self.untested.items()],
            "tables": [t.values() for t in self.tables],
            "pictures": [
                {"name": p.name, "caption": p.caption, "file": p.file(self.audit)}
                for p in self.pictures
            ],
            "record": self.record,
        }

    def verdict_table(self) -> Table:
        """The verdicts in words, the failed first."""
        ordered = sorted(self.verdicts, key=lambda v: _ORDER.index(v.outcome))
        return Table.of_rows(
            "verdicts",
            "Verdicts",
            ("method", "verdict", "why"),
            # no line breaks between a figure and its percent sign
            (
                (v.subject, f"{MARKS[v.outcome]} {OUTCOMES[v.outcome]}", _PERCENT.sub("\u00a0%", v.text))
                for v in ordered
            ),
        )  # fmt: skip

    def html(self) -> str:
        """One page with everything in it; nothing is fetched."""
        record = f"<pre>{escape(to_json(self.record))}</pre>"
        parts: dict[str, Sequence[str | Table]] = {
            "Verdicts": [self.verdict_table()] if self.verdicts else [],
            "Pictures": [p.html() for p in self.pictures],
            "Numbers": self.tables,
            "Record": [details("What is needed to run this again", record)] if self.record else [],
        }
        sections = [Section(k.lower(), k, tuple(v)) for k, v in parts.items() if v]
        lead = [text for text in (self.summary, *self.tested.split("\n")) if text.strip()]
        return Document(self.title, lead, sections, sortable=False).html()

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the page, the JSON and the pictures, each whole or not at all.

        Args:
            folder: made if need be.

        Returns:
            The files, the page first.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        pictures = {p.file(self.audit): p.content for p in self.pictures}
        return save(folder, self.audit, self.html(), self.to_dict(), pictures=pictures)

    def __rich__(self) -> Any:
        """The verdicts as a table on a terminal."""
        return self.verdict_table().rich()


_PERCENT = re.compile(r"(?<=\d) %")
