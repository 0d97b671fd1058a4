"""What every audit returns.

An audit puts methods to a test and says of each, in words that need no paper, how it did, with the number and
the bound behind the word.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from camlucida.errors import CamlucidaError
from camlucida.plain import to_json
from camlucida.version import __version__
from camlucida.writing import write_bytes

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
        from camlucida.audits.page import audit_page

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
