"""One table, drawn four ways: a web page, CSV, LaTeX, and the terminal."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from camlucida.common.errors import CamlucidaError
from camlucida.report.template import page

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Mark: TypeAlias = Literal["", "best", "tied"]
Direction: TypeAlias = Literal["higher", "lower", "none"]

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
WORDS = {"higher": "higher is better", "lower": "lower is better", "none": ""}
SYMBOLS = {"": "", "best": "★", "tied": "≈"}
MEANINGS = {"": "", "best": "best", "tied": "not told apart from the best"}
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


@dataclass(frozen=True)
class Cell:
    """One number, or a word.

    Attributes:
        value: ``None`` or NaN where there is nothing, which is drawn as a dash.
        low: lower end of its interval.
        high: upper end.
        published: what a paper reports for the same.
        mark: whether it is the best of its column, or not told apart from the best.

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
        >>> rows = (("gradcam", (Cell(0.41),)), ("fame", (Cell(0.52),)))
        >>> print(Table("iou", "Mean IoU", (Column("IoU", "higher"),), rows).marked().csv(), end="")
        method,IoU,IoU mark
        gradcam,0.41,
        fame,0.52,best
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    stub: str = "method"
    legend: str = ""
    interval: str = "95 % interval"
    best: str = "best"

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
        records: Iterable[Mapping[str, Any]],
        columns: Mapping[str, Column],
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
        (first, stub), *others = columns.items()
        rows = tuple(
            (str(record[first]), tuple(Cell(record[key]) for key, _ in others))
            for record in records
        )
        return cls(name, caption, tuple(c for _, c in others), rows, stub.title, **options)

    @classmethod
    def of_rows(
        cls,
        name: str,
        caption: str,
        columns: Sequence[str | Column],
        rows: Iterable[Sequence[float | str | None]],
        legend: str = "",
    ) -> Table:
        """A table of plain values.

        Args:
            name: the name of its files and its place in a page.
            caption: what it shows.
            columns: headings; the first stands over the row headings.
            rows: the heading and the values of each row.
            legend: below the table.
        """
        stub, *others = (c if isinstance(c, Column) else Column(c) for c in columns)
        found = tuple((str(heading), tuple(map(Cell, values))) for heading, *values in rows)
        return cls(name, caption, tuple(others), found, stub.title, legend)

    def values(self) -> dict[str, Any]:
        """Headings and plain values, ready for JSON."""
        return {
            "title": self.caption,
            "columns": [self.stub, *(column.heading for column in self.columns)],
            "rows": [[heading, *(cell.value for cell in cells)] for heading, cells in self.rows],
            "note": self.legend,
        }

    def marked(self) -> Table:
        """The same with the best number of every judging column marked, all of them where several are equal."""
        marks: list[list[Mark]] = [["" for _ in self.columns] for _ in self.rows]
        for c, column in enumerate(self.columns):
            numbers = [cells[c].number for _, cells in self.rows]
            known = [n for n in numbers if n is not None]
            if column.direction == "none" or len(known) < 2:
                continue
            best = max(known) if column.direction == "higher" else min(known)
            for r, number in enumerate(numbers):
                marks[r][c] = "best" if number == best else ""
        rows = tuple(
            (heading, tuple(replace(cell, mark=m) for cell, m in zip(cells, line, strict=True)))
            for (heading, cells), line in zip(self.rows, marks, strict=True)
        )
        return replace(self, rows=rows)

    # ------------------------------------------------------------------------------------- as text

    def text(self, row: int, column: int) -> str:
        """The value of a cell as it is written, ``"–"`` where there is none."""
        return self._written(self.rows[row][1][column].value, self.places(row)[column])

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

    def places(self, row: int) -> tuple[int, ...]:
        """Decimal places of the cells of a row."""
        return tuple(
            common if column.digits is None else _places([cell.value], column.digits)
            for column, common, cell in zip(
                self.columns, self._widest, self.rows[row][1], strict=True
            )
        )

    @staticmethod
    def _written(value: float | str | None, places: int) -> str:
        if isinstance(value, str):
            return value
        if _finite(value) is None:
            return "–"
        return number(value, places)

    def _interval(self, cell: Cell, places: int, between: str) -> str:
        low, high = _finite(cell.low), _finite(cell.high)
        if low is None or high is None or cell.number is None:
            return ""
        return f"{number(low, places)}{between}{number(high, places)}"

    # --------------------------------------------------------------------------------------- drawn

    def html(self, *, sortable: bool = True, legend: bool = True) -> str:
        """A fragment of a web page; it looks right in a :class:`camlucida.report.page.Document`.

        Args:
            sortable: let readers sort by a column, where their browser runs scripts.
            legend: write the legend and what the marks mean below it.
        """
        rows = [
            (
                heading,
                [
                    {
                        "text": self._written(cell.value, places[c]),
                        "sort": cell.value if isinstance(cell.value, str) else cell.number,
                        "interval": self._interval(cell, places[c], " to "),
                        "published": ""
                        if cell.published is None
                        else number(cell.published, places[c]),
                        "mark": cell.mark,
                    }
                    for c, cell in enumerate(cells)
                ],
            )
            for r, (heading, cells) in enumerate(self.rows)
            for places in [self.places(r)]
        ]
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
        present = self._present()
        head = [self.stub]
        for column, (interval, published, marks) in zip(self.columns, present, strict=True):
            title = column.heading
            head += [title]
            head += [f"{title} low", f"{title} high"] if interval else []
            head += [f"{title} published"] if published else []
            head += [f"{title} mark"] if marks else []
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([_harmless(h) for h in head])
        for heading, cells in self.rows:
            line: list[Any] = [_harmless(heading)]
            for cell, (interval, published, marks) in zip(cells, present, strict=True):
                line.append(
                    _harmless(cell.value) if isinstance(cell.value, str) else _full(cell.value)
                )
                line += [_full(cell.low), _full(cell.high)] if interval else []
                line += [_full(cell.published)] if published else []
                line += [cell.mark] if marks else []
            writer.writerow(line)
        return buffer.getvalue()

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
        for r, (heading, cells) in enumerate(self.rows):
            drawn = [latex_escape(heading)]
            for cell, p in zip(cells, self.places(r), strict=True):
                text = latex_escape(self._written(cell.value, p))
                text = {"best": rf"\textbf{{{text}}}", "tied": rf"\underline{{{text}}}"}.get(
                    cell.mark, text
                )
                if interval := self._interval(cell, p, ", "):
                    text += rf" {{\scriptsize [{latex_escape(interval)}]}}"
                if cell.published is not None:
                    text += f" ({latex_escape(number(cell.published, p))})"
                drawn.append(text)
            lines.append(" & ".join(drawn) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def rich(self) -> RichTable:
        """For the terminal; intervals are left out."""
        from rich.markup import escape
        from rich.table import Table as Drawn

        drawn = Drawn(
            box=None,
            header_style="bold",
            title=escape(self.caption),
            title_justify="left",
            caption=escape(self.legend) or None,
            caption_justify="left",
        )
        drawn.add_column(escape(self.stub), overflow="fold")
        for column, words in zip(self.columns, self._words, strict=True):
            drawn.add_column(
                escape(f"{column.heading} {ARROWS[column.direction]}".rstrip()),
                justify="left" if words else "right",
                overflow="fold",
            )
        for r, (heading, cells) in enumerate(self.rows):
            line = [escape(heading)]
            for cell, p in zip(cells, self.places(r), strict=True):
                text = escape(self._written(cell.value, p))
                text = f"[bold]{text}[/]" if cell.mark == "best" else text
                text += f" {SYMBOLS[cell.mark]}" if cell.mark else ""
                if cell.published is not None:
                    text += f" ({number(cell.published, p)})"
                line.append(text)
            drawn.add_row(*line)
        return drawn

    def __rich__(self) -> RichTable:
        """Printed by rich as :meth:`rich` says."""
        return self.rich()

    def _present(self) -> list[tuple[bool, bool, bool]]:
        """Of each column, whether it has intervals, published values and marks."""
        return [
            (
                any(_finite(cells[c].low) is not None for _, cells in self.rows),
                any(cells[c].published is not None for _, cells in self.rows),
                any(cells[c].mark for _, cells in self.rows),
            )
            for c in range(len(self.columns))
        ]


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


def _full(value: float | str | None) -> str:
    found = _finite(value)
    if found is None:
        return ""
    return str(value) if isinstance(value, int) else repr(found)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
