"""A data set from a table: one line per photo, or per box."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

from camlucida.common.errors import CamlucidaError, TargetError
from camlucida.data.class_names import Classes
from camlucida.data.masks import MaskedSample
from camlucida.data.samples import DataSet, Skipped
from camlucida.data.tables import Row, read_rows

_LISTED = 100  # wrong rows that are listed one by one


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
        for row in read_rows(path, ("file", "label")):
            problem = row if isinstance(row, str) else self._add(row, classes, known, shared)
            if problem and len(wrong) < _LISTED:
                wrong.append((path, problem))
            elif problem:
                more += 1
        if more:
            wrong.append((path, f"{more} more lines that cannot be used"))
        return classes, wrong

    def _add(
        self, row: Row, classes: Classes, known: dict[str, int], shared: dict[str, str]
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


def is_table(path: Path) -> bool:
    """Whether a path is a CSV or TSV file."""
    return path.suffix.lower() in {".csv", ".tsv"} and path.is_file()
