"""What a reproduced table is, and how it is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from camlucida.benchmark import Bench
from camlucida.benchmark.local import run
from camlucida.benchmark.summary import Summary, summarise
from camlucida.common.progress import Say, part
from camlucida.common.version import __version__
from camlucida.report import Cell, Column, Document, Section, Table, save
from camlucida.report.page import facts, paragraph, picture
from camlucida.report.tables import Direction


@dataclass(frozen=True)
class Reproduced:
    """Published numbers and ours beside them.

    Attributes:
        name: the name of the files: ``"fame-table2"``.
        title: its title, for people.
        lead: what was measured, on what, and what of it can be compared; sentences of plain text.
        tables: one per data set.
        record: everything that is needed to do it again, ready for JSON.
        pictures: PNG bytes by what is to be seen; written as NAME-1.png and so on.
        complete: whether all of the work was done; ``False`` after Ctrl-C.

    Example:
        >>> from camlucida.report import Cell, Column, Table
        >>> rows = (("gradcam", (Cell(0.41, published=0.40),)),)
        >>> table = Table("iou", "Mean IoU", (Column("IoU", "higher"),), rows)
        >>> found = camlucida.studies.published.Reproduced("iou", "IoU", ("As published.",), (table,))
        >>> [file.name for file in found.save("iou")]
        ['iou.html', 'iou.json', 'iou.csv', 'iou.tex']
    """

    name: str
    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = True
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

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
        seen = tuple(picture(content, said, said) for said, content in self.pictures.items())
        sections = [Section("pictures", "Pictures", seen)] if seen else []
        sections += [Section(table.name, table.caption, (table,)) for table in self.tables]
        known = [
            (key, str(value)) for key, value in self.record.items() if isinstance(value, str | int)
        ]
        sections.append(
            Section("provenance", "Provenance", (facts(known) if known else paragraph("–"),))
        )
        return Document(self.title, self.lead, sections).html()

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the page, the JSON, and each table as CSV and LaTeX; the page is the first of the files.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        pictures = {
            f"{self.name}-{i}.png": content for i, content in enumerate(self.pictures.values(), 1)
        }
        return save(folder, self.name, self.html(), self.to_dict(), self.tables, pictures)

    def __rich__(self) -> Group:
        """The tables on a terminal."""
        return Group(*self.tables)


def slug(text: str) -> str:
    """A name for files and places in a page: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def evaluated(
    bench: Bench, folder: Path, say: Say | None, what: str, *, batch_size: int, seed: int
) -> tuple[Summary | None, bool]:
    """Do a benchmark, or go on with it.

    Returns:
        Its summary, ``None`` where no image was done; and whether all of it was done.
    """
    done = run(bench, folder, batch_size=batch_size, progress=part(say, what))
    return summarise(folder, seed=seed) if done.images else None, not done.interrupted


def mean_cell(
    summary: Summary, label: str, number: str, scale: float, published: float | None = None
) -> Cell:
    """A method's mean with its 95 % interval and what the tests say, ours beside what was published."""
    row = summary.cell(label, number)
    mean, low, high = (scale * float(row[key]) for key in ("mean", "low", "high"))
    return Cell(mean, low, high, published, row["mark"])


def beside(places: int, direction: Direction = "lower") -> tuple[Column, ...]:
    """Columns for mean and standard deviation, ours and as published."""
    return tuple(
        column
        for who in ("ours", "published")
        for column in Column(who, direction, places=places).with_std()
    )
