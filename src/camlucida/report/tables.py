"""One table, drawn four ways: a web page, CSV, LaTeX, and the terminal."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from camlucida.common.errors import CamlucidaError
from camlucida.report.template import page

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Mark: TypeAlias = Literal["", "best", "tied"]
Direction: TypeAlias = Literal["higher", "lower", "none"]

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
WORDS = {"higher": "higher is better", "lower": "lower is better", "none": ""}
SYMBOLS = {"": "", "best": "★", "tied": "≈"}
MEANINGS = {"": "", "best": "best beyond chance", "tied": "not told apart from the best"}
_LATEX_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "none": ""}
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "×": r"$\times$",
    "≈": r"$\approx$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "μ": r"$\mu$", "µ": r"$\mu$",
    "σ": r"$\sigma$", "α": r"$\alpha$", "★": r"$\star$", "–": "--", "…": r"\dots{}", "“": "``", "”": "''",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FIGURE = re.compile(r"[-+−±<>≤≥≈ ]*\.?\d|(nan|inf|–)$")


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        title: its heading.
        direction: which way is better; an arrow in the heading says so.
        unit: empty for a plain number or share.
        places: decimal places; ``None`` for three significant digits of its largest number.
        digits: significant digits of every number instead, for numbers of very different size.
        note: a sentence that explains the column, shown where there is room for it.

    Example:
        >>> camlucida.report.Column("IoU", "higher", "%").heading
        'IoU [%]'
    """

    title: str
    direction: Direction = "none"
    unit: str = ""
    places: int | None = None
    note: str = ""
    digits: int | None = None

    @property
    def heading(self) -> str:
        """Title and unit, without the arrow."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    def with_std(self) -> tuple[Column, Column]:
        """This column of means, and one beside it for their standard deviation."""
        return self, replace(self, title=f"{self.title}, std", direction="none")


@dataclass(frozen=True)
class Cell:
    """One number, or a word.

    Attributes:
        value: ``None`` or NaN where there is nothing, which is drawn as a dash.
        low: lower end of its interval.
        high: upper end.
        published: what a paper reports for the same.
        mark: whether it is the best of its column beyond chance, or not told apart from the best.

    Example:
        >>> camlucida.report.Cell(0.5, low=0.4, high=0.6).number
        0.5
    """

    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    published: float | None = None
    mark: Mark = ""

    @property
    def number(self) -> float | None:
        """The value where it is a finite number."""
        return _finite(self.value)

    @property
    def ends(self) -> tuple[float, ...]:
        """Both ends of its interval, where they are known."""
        known = tuple(e for end in (self.low, self.high) if (e := _finite(end)) is not None)
        return known if len(known) == 2 and self.number is not None else ()

    def written(self, places: int) -> Written:
        """The cell as people read it, with so many decimal places."""
        return Written(
            self.value if isinstance(self.value, str) else number(self.value, places),
            tuple(number(end, places) for end in self.ends),
            "" if self.published is None else number(self.published, places),
            self.mark,
            self.value if isinstance(self.value, str) else self.number,
        )


class Written(NamedTuple):
    """A cell as people read it: value, ends of its interval, published number, mark, and what it is sorted by."""

    text: str
    ends: tuple[str, ...]
    published: str
    mark: Mark
    sort: float | str | None


@dataclass(frozen=True)
class Table:
    """A table with one heading per row and per column.

    Attributes:
        name: the name of its files and its place in a page: small letters, digits and hyphens.
        caption: what it shows, in a sentence.
        columns: what stands over the cells.
        rows: the heading and the cells of each row.
        stub: heading of the row headings.
        legend: below the table, such as how intervals were made.
        interval: what the ends of its cells are.
        best: what it means to be marked so.

    Example:
        >>> from camlucida.report import Cell, Column, Table
        >>> rows = (("gradcam", (Cell(0.41, 0.40, 0.42),)), ("fame", (Cell(0.52, 0.50, 0.54),)))
        >>> print(Table("iou", "Mean IoU", (Column("IoU", "higher"),), rows).marked().csv(), end="")
        method,IoU,IoU low,IoU high,IoU mark
        gradcam,0.41,0.4,0.42,
        fame,0.52,0.5,0.54,best
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    stub: str = "method"
    legend: str = ""
    interval: str = "95 % interval"
    best: str = MEANINGS["best"]

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            CamlucidaError: a row has more or fewer cells than there are columns.
        """
        for heading, cells in self.rows:
            if len(cells) != len(self.columns):
                raise CamlucidaError(
                    f"table {self.name!r} has {len(self.columns)} columns, its row {heading!r} has "
                    f"{len(cells)} cells"
                )

    @classmethod
    def of(
        cls,
        name: str,
        caption: str,
        records: Iterable[Mapping[Any, Any]],
        columns: Mapping[Any, Column],
        **options: Any,
    ) -> Table:
        """A table out of records, one a row.

        Args:
            name: as of the table.
            caption: as of the table.
            records: values by key; the value of the first key is the heading of the row.
            columns: what stands over the values, by key. The first is the stub of the table.
            **options: further fields of the table, such as ``legend``.
        """
        rows = ([record[key] for key in columns] for record in records)
        return cls.of_rows(name, caption, list(columns.values()), rows, **options)

    @classmethod
    def of_rows(
        cls,
        name: str,
        caption: str,
        columns: Sequence[str | Column],
        rows: Iterable[Sequence[Any]],
        legend: str = "",
        **options: Any,
    ) -> Table:
        """A table of plain values, and of cells where something stands beside a value.

        Args:
            name: as of the table.
            caption: as of the table.
            columns: headings; the first stands over the row headings.
            rows: the heading of each row, and its values or cells.
            legend: as of the table.
            **options: further fields of the table, such as ``best``.
        """
        stub, *others = (c if isinstance(c, Column) else Column(c) for c in columns)
        found = tuple(
            (str(heading), tuple(v if isinstance(v, Cell) else Cell(v) for v in values))
            for heading, *values in rows
        )
        return cls(name, caption, tuple(others), found, stub.title, legend, **options)

    def values(self) -> dict[str, Any]:
        """Headings and plain values, ready for JSON."""
        return {
            "title": self.caption,
            "columns": [self.stub, *(column.heading for column in self.columns)],
            "rows": [[heading, *(cell.value for cell in cells)] for heading, cells in self.rows],
            "note": self.legend,
        }

    def marked(self, but: Collection[str] = ()) -> Table:
        """The same with what the intervals say marked in every judging column.

        The best number is the best where its interval has nothing in common with any other; else it and those whose
        intervals meet its own are not told apart. Without intervals nothing is marked. The rows ``but``, by their
        headings, are not judged.
        """
        judged = [cells for heading, cells in self.rows if heading not in but]
        marks = [
            _marks(column.direction, [cells[c] for cells in judged])
            for c, column in enumerate(self.columns)
        ]
        told = iter(zip(*marks, strict=True))
        rows = tuple(
            (heading, cells)
            if heading in but
            else (
                heading,
                tuple(replace(c, mark=m) for c, m in zip(cells, next(told), strict=True)),
            )
            for heading, cells in self.rows
        )
        return replace(self, rows=rows)

    # ------------------------------------------------------------------------------------- as text

    def text(self, row: int, column: int) -> str:
        """The value of a cell as it is written, ``"–"`` where there is none."""
        return self.written(row)[column].text

    @cached_property
    def _widest(self) -> tuple[int, ...]:
        return tuple(
            _places([cells[c].value for _, cells in self.rows])
            if column.places is None
            else column.places
            for c, column in enumerate(self.columns)
        )

    @cached_property
    def _words(self) -> tuple[bool, ...]:
        """Of each column whether it is read rather than compared; texts that begin with a figure are compared."""
        return tuple(
            any(
                isinstance(value := cells[c].value, str) and value and not _FIGURE.match(value)
                for _, cells in self.rows
            )
            for c in range(len(self.columns))
        )

    def written(self, row: int) -> list[Written]:
        """The cells of a row as people read them."""
        return [
            cell.written(common if column.digits is None else _places([cell.value], column.digits))
            for column, common, cell in zip(
                self.columns, self._widest, self.rows[row][1], strict=True
            )
        ]

    # --------------------------------------------------------------------------------------- drawn

    def html(self, *, sortable: bool = True, legend: bool = True) -> str:
        """A fragment of a web page; it looks right in a :class:`camlucida.report.page.Document`.

        Args:
            sortable: let readers sort by a column, where their browser runs scripts.
            legend: write the legend and what the marks mean below it.
        """
        rows = [(heading, self.written(r)) for r, (heading, _) in enumerate(self.rows)]
        return page(
            "report_table.html",
            table=self,
            rows=rows,
            words=self._words,
            legend=legend,
            sortable=sortable and len(self.rows) > 1,
            arrows=ARROWS,
            directions=WORDS,
            symbols=SYMBOLS,
            meanings={**MEANINGS, "best": self.best},
            used=[m for m in ("best", "tied") if any(c.mark == m for _, r in self.rows for c in r)],
        )

    def csv(self) -> str:
        """Every number in full, its interval, the published one and the mark in columns of their own.

        A heading or word that a spreadsheet would run as a formula is written behind an apostrophe.
        """
        beside = [self._beside(c) for c in range(len(self.columns))]
        head = [self.stub]
        for column, names in zip(self.columns, beside, strict=True):
            head += [column.heading, *(f"{column.heading} {name}" for name in names)]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([_harmless(h) for h in head])
        for heading, cells in self.rows:
            line = [_harmless(heading)]
            for cell, names in zip(cells, beside, strict=True):
                line += [_full(cell.value), *(_full(getattr(cell, name)) for name in names)]
            writer.writerow(line)
        return buffer.getvalue()

    def _beside(self, column: int) -> list[str]:
        """What stands beside the values of a column: the ends of intervals, published numbers, marks."""
        cells = [cells[column] for _, cells in self.rows]
        found = ["low", "high"] if any(_finite(cell.low) is not None for cell in cells) else []
        found += ["published"] if any(cell.published is not None for cell in cells) else []
        return found + (["mark"] if any(cell.mark for cell in cells) else [])

    def latex(self) -> str:
        """A ``table`` with booktabs rules; the best in bold, those not told apart from it underlined."""
        head = [latex_escape(self.stub)]
        head += [latex_escape(c.heading) + _LATEX_ARROWS[c.direction] for c in self.columns]
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escape(' '.join(filter(None, (self.caption, self.legend))))}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
        ]
        marks = {"best": r"\textbf{%s}", "tied": r"\underline{%s}", "": "%s"}
        for r, (heading, _) in enumerate(self.rows):
            drawn = [latex_escape(heading)]
            for cell in self.written(r):
                text = marks[cell.mark] % latex_escape(cell.text)
                if cell.ends:
                    text += rf" {{\scriptsize [{latex_escape(', '.join(cell.ends))}]}}"
                drawn.append(
                    text + (f" ({latex_escape(cell.published)})" if cell.published else "")
                )
            lines.append(" & ".join(drawn) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def rich(self) -> RichTable:
        """For the terminal; intervals are left out."""
        from rich.table import Table as Drawn
        from rich.text import Text

        drawn = Drawn(
            box=None,
            header_style="bold",
            title=Text(self.caption),
            title_justify="left",
            caption=Text(self.legend) if self.legend else None,
            caption_justify="left",
        )
        drawn.add_column(Text(self.stub), overflow="fold")
        for column, words in zip(self.columns, self._words, strict=True):
            drawn.add_column(
                Text(f"{column.heading} {ARROWS[column.direction]}".rstrip()),
                justify="left" if words else "right",
                overflow="fold",
            )
        for r, (heading, _) in enumerate(self.rows):
            line = [Text(heading)]
            for cell in self.written(r):
                text = Text(cell.text, "bold" if cell.mark == "best" else "", end="")
                beside = f" {SYMBOLS[cell.mark]}" if cell.mark else ""
                beside += f" ({cell.published})" if cell.published else ""
                line.append(Text.assemble(text, beside))
            drawn.add_row(*line)
        return drawn

    def __rich__(self) -> RichTable:
        """Printed by rich as :meth:`rich` says."""
        return self.rich()


# -------------------------------------------------------------------------------------------- numbers


def number(value: float | None, places: int = 3) -> str:
    """A number for people: a true minus sign, powers of ten where the places would show zeros only."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.5 * 10.0**-places and abs(value) < 1e-3:
        text = f"{value:.1e}"
    elif abs(value) >= 1e7:
        text = f"{value:.3e}"
    else:
        text = f"{value:,.{places}f}"
        if float(text.replace(",", "")) == 0:
            text = text.removeprefix("-")
    return text.replace("-", "−")


def probability(p: float) -> str:
    """A p value for people: ``"p = 0.03"``, ``"p < 0.001"``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def latex_escape(text: str) -> str:
    """Text with everything escaped that LaTeX would take for a command."""
    return "".join(_LATEX.get(character, character) for character in text)


def _finite(value: float | str | None) -> float | None:
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(value)


def _places(values: Sequence[float | str | None], digits: int = 3) -> int:
    """Decimal places that show so many digits of the largest number; none for whole numbers."""
    known = [abs(n) for v in values if (n := _finite(v)) is not None]
    if not known or all(isinstance(v, int) for v in values if _finite(v) is not None):
        return 0
    largest = max(known)
    if largest == 0:
        return 3
    return min(max(digits - 1 - math.floor(math.log10(largest)), 0), 6)


def _marks(direction: Direction, cells: Sequence[Cell]) -> list[Mark]:
    """What the intervals of a column say."""
    known = [c for c in cells if c.number is not None]
    marks: list[Mark] = [""] * len(cells)
    if direction == "none" or len(known) < 2 or not all(c.ends for c in known):
        return marks
    best = (max if direction == "higher" else min)(known, key=lambda c: c.number or 0.0)
    low, high = best.ends
    level = [c for c in known if c.ends[0] <= high and c.ends[1] >= low]
    return [("best" if level == [best] else "tied") if c in level else "" for c in cells]


def _full(value: float | str | None) -> str:
    """A value for machines: every digit of a number, and words that no spreadsheet runs."""
    if isinstance(value, str):
        return _harmless(value)
    found = _finite(value)
    if found is None:
        return ""
    return str(value) if isinstance(value, int) else repr(found)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
