"""A data set from a table: one line per photo, or per box."""

from __future__ import annotations

import csv
import math
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from camlucida.common.errors import CamlucidaError, TargetError
from camlucida.data.classes import Classes
from camlucida.data.folders import Box, Skipped
from camlucida.data.masks import MaskedSample
from camlucida.data.samples import DataSet

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("file", "label", *_EDGES, "mask")
_LISTED = 100  # wrong rows that are listed one by one


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    label: str
    box: Box | None
    mask: str


class CsvList(DataSet):
    """The photos that a table lists; a million lines with boxes take some 240 MB.

    Columns: ``file`` and ``label`` (a class of the model by index, name or synonym; empty where it is not
    known); optionally ``xmin, ymin, xmax, ymax`` in pixels of the upright photo, the right and lower edges
    exclusive, empty where there is no box; and ``mask``, a lossless picture that is zero outside of the object.
    Several lines of one file are several boxes. Files are looked for beside the table, and opened when they
    are read.

    Args:
        table: the CSV or TSV file.
        class_names: the model's.
        root: folder of the files, instead of the table's own.

    Raises:
        CamlucidaError: the table cannot be read, lacks a column, or lists nothing that can be used.
        TargetError: the model knows none of the labels.
    """

    def __init__(
        self,
        table: str | os.PathLike[str],
        class_names: Sequence[str] | None,
        *,
        root: str | None = None,
    ) -> None:
        path = Path(table)
        self.name = path.stem
        self.root = path.parent if root is None else Path(root)
        self._files: list[str] = []
        self._labels = array("q")  # -1: not known
        self._names: list[str] = []  # shared text, one for each label
        self._boxes: dict[int, array[float]] = {}
        self._masks: dict[int, str] = {}
        classes, wrong = self._read(path, Classes(class_names))
        self.skipped = (*wrong, *classes.skipped(path, "line"))
        if not self._files and (reason := classes.reason()):
            raise TargetError(f"the model knows none of the labels in {str(path)!r}: {reason}")
        if not self._files:
            first = f"; {wrong[0][1]}" if wrong else ""
            raise CamlucidaError(f"{str(path)!r} lists no photo{first}")

    def __len__(self) -> int:
        return len(self._files)

    def sample(self, index: int) -> MaskedSample:
        """The sample at a position."""
        file, label = self._files[index], self._labels[index]
        edges = self._boxes.get(index, ())
        mask = self._masks.get(index)
        return MaskedSample(
            key=file,
            label=None if label < 0 else label,
            label_name=self._names[index],
            path=self.root / file,
            boxes=tuple(
                (edges[i], edges[i + 1], edges[i + 2], edges[i + 3])
                for i in range(0, len(edges), 4)
            ),
            mask_path=None if mask is None else self.root / mask,
        )

    def _read(self, path: Path, classes: Classes) -> tuple[Classes, list[Skipped]]:
        wrong: list[Skipped] = []
        more = 0
        known: dict[str, int] = {}
        shared: dict[str, str] = {}
        for row in _rows(path):
            problem = row if isinstance(row, str) else self._add(row, classes, known, shared)
            if problem and len(wrong) < _LISTED:
                wrong.append((path, problem))
            elif problem:
                more += 1
        if more:
            wrong.append((path, f"{more} more lines that cannot be used"))
        return classes, wrong

    def _add(
        self, row: _Row, classes: Classes, known: dict[str, int], shared: dict[str, str]
    ) -> str:
        """Take a row in; what is wrong with it, if anything."""
        index = known.get(row.file)
        if index is None:
            label = classes.find(row.label) if row.label else -1
            if label is None:
                return ""  # counted by the classes
            index = known[row.file] = len(self._files)
            self._files.append(row.file)
            self._labels.append(label)
            self._names.append(shared.setdefault(row.label, row.label))
        elif row.label != self._names[index]:
            return f"line {row.line}: {row.file!r} has the label {self._names[index]!r} above"
        if row.box is not None:
            self._boxes.setdefault(index, array("d")).extend(row.box)
        if row.mask:
            self._masks.setdefault(index, row.mask)
        return ""


def _rows(path: Path) -> Iterator[_Row | str]:
    """The lines of a table; those that cannot be used as a sentence that says why."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(
                file, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True
            )
            header = [name.strip().lower() for name in next(lines, [])]
            if missing := [name for name in _COLUMNS[:2] if name not in header]:
                raise CamlucidaError(
                    f"{str(path)!r} has no column {' and '.join(missing)}; its first line must name "
                    f"file, label and, where they are known, {', '.join(_COLUMNS[2:])}"
                )
            some = [name for name in _EDGES if name in header]
            if some and len(some) < 4:
                raise CamlucidaError(
                    f"{str(path)!r} has {', '.join(some)} only; a box needs {', '.join(_EDGES)}"
                )
            places = [header.index(name) if name in header else -1 for name in _COLUMNS]
            for cells in lines:
                if cells:
                    yield _row(
                        [cells[p].strip() if 0 <= p < len(cells) else "" for p in places],
                        lines.line_num,
                    )
    except OSError as error:
        raise CamlucidaError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CamlucidaError(f"{str(path)!r} is not a CSV table in UTF-8") from error


def _row(cells: Sequence[str], line: int) -> _Row | str:
    file, label, *edges, mask = cells
    if not file:
        return f"line {line}: the file is missing"
    box: Box | None = None
    if any(edges):
        try:
            left, top, right, bottom = map(float, edges)
        except ValueError:
            return f"line {line}: expected four numbers, got {', '.join(edges)}"
        finite = all(map(math.isfinite, (left, top, right, bottom)))
        if not finite or right <= left or bottom <= top:
            return (
                f"line {line}: {', '.join(edges)} is no box; expected xmin < xmax and ymin < ymax"
            )
        box = (left, top, right, bottom)
    return _Row(line, file, label, box, mask)


def open_csv(
    table: str | os.PathLike[str], class_names: Sequence[str] | None, *, root: str | None = None
) -> CsvList:
    """Open a table; see :class:`CsvList`."""
    return CsvList(table, class_names, root=root)
