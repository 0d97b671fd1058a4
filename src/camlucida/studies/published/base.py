"""What a reproduced table is, and how it is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.progress import Say
from camlucida.common.version import __version__
from camlucida.report import Document, Section, Table
from camlucida.report.page import facts, paragraph


@dataclass(frozen=True)
class Reproduced:
    """Published numbers and ours beside them.

    Attributes:
        name: of the files: ``"fame-table2"``.
        title: for people.
        lead: what was measured, on what, and what of it can be compared; sentences of plain text.
        tables: one per data set.
        record: everything that is needed to do it again, ready for JSON.
        complete: whether all of the work was done; ``False`` after Ctrl-C.
    """

    name: str
    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "camlucida": __version__,
            "name": self.name,
            "title": self.title,
            "lead": list(self.lead),
            "complete": self.complete,
            "record": dict(self.record),
        }

    def html(self) -> str:
        """One page with everything in it; nothing is fetched."""
        sections = [Section(table.name, table.caption, (table,)) for table in self.tables]
        known = [
            (key, str(value)) for key, value in self.record.items() if isinstance(value, str | int)
        ]
        sections.append(
            Section("provenance", "Provenance", (facts(known) if known else paragraph("–"),))
        )
        return Document(self.title, self.lead, sections).html()

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the page, the JSON, and each table as CSV and LaTeX.

        Args:
            folder: made if need be.

        Returns:
            The files, the page first.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        root = Path(folder)
        contents = {
            f"{self.name}.html": self.html(),
            f"{self.name}.json": to_json(self.to_dict()),
        }
        for table in self.tables:
            contents |= {f"{table.name}.csv": table.csv(), f"{table.name}.tex": table.latex()}
        return tuple(write_bytes(root / name, text.encode()) for name, text in contents.items())

    def __rich__(self) -> Group:
        """The tables on a terminal."""
        return Group(*self.tables)


def share(say: Say | None, what: str) -> Callable[[int, int], object] | None:
    """A benchmark's progress as a part of the whole."""
    return None if say is None else lambda done, total: say(what, done, total)


def slug(text: str) -> str:
    """A name for files and places in a page: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def means(
    summary: Any, methods: Sequence[str], number: str
) -> dict[str, tuple[float, float, float, int]]:
    """Of each method: mean, ends of the 95 % interval, and the images that count."""
    found = {}
    for method in methods:
        row = summary.cell(method, number)
        found[method] = (float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"]))
    return found
