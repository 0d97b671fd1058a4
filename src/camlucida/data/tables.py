"""Tables of photos: one line per photo or per box, as CSV or TSV."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import check_regular
from camlucida.data.samples import Box

EDGES = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("file", "label", *EDGES, "mask")


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        line: its number, from 1.
        file: the photo.
        label: its class; empty where it is not known.
        box: where the object is; ``None`` where that is not known.
        mask: the file of its mask; empty where there is none.
    """

    line: int
    file: str
    label: str
    box: Box | None
    mask: str


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[Row | str]:
    """The lines of a table; those that cannot be used as a sentence that says why.

    Args:
        path: the table, with a header that names at least the needed columns of ``file, label, xmin, ymin, xmax, ymax,
            mask``.
        needed: columns that it must have.

    Raises:
        CamlucidaError: it cannot be read or lacks a column.
    """
    optional = [name for name in _COLUMNS if name not in needed]
    check_regular(path, "table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(
                file, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True
            )
            header = [name.strip().lower() for name in next(lines, [])]
            if missing := [name for name in needed if name not in header]:
                raise CamlucidaError(
                    f"{str(path)!r} has no column {' and '.join(missing)}; its first line must name "
                    f"{', '.join(needed)} and, where they are known, {', '.join(optional)}"
                )
            some = [name for name in EDGES if name in header]
            if some and len(some) < 4:
                raise CamlucidaError(
                    f"{str(path)!r} has {', '.join(some)} only; a box needs {', '.join(EDGES)}"
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


def _row(cells: Sequence[str], line: int) -> Row | str:
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
    return Row(line, file, label, box, mask)


def read_boxes(table: str | os.PathLike[str]) -> dict[str, tuple[Box, ...]]:
    """The boxes of each file named in a table.

    Args:
        table: its file, with a header that holds at least ``file, xmin, ymin, xmax, ymax``.

    Raises:
        CamlucidaError: it cannot be read, lacks a column, or a row is no box; the text names the line.
    """
    path = Path(table)
    found: dict[str, list[Box]] = {}
    for row in read_rows(path, ("file", *EDGES)):
        if isinstance(row, str) or row.box is None:
            problem = row if isinstance(row, str) else f"line {row.line}: expected four numbers"
            raise CamlucidaError(f"{str(path)!r}, {problem}")
        found.setdefault(row.file, []).append(row.box)
    return {name: tuple(several) for name, several in found.items()}


def assign_boxes(
    boxes: Mapping[str, tuple[Box, ...]], paths: Sequence[Path], root: Path
) -> tuple[dict[Path, tuple[Box, ...]], list[str]]:
    """The boxes of each photo, and the names that fit no photo or more than one.

    Args:
        boxes: the boxes of each name, as :func:`read_boxes` returns them.
        paths: the photos, which lie in ``root``.
        root: the folder.
    """
    inside = {path.relative_to(root).as_posix(): path for path in paths}
    named: dict[str, list[Path]] = {}
    for path in paths:
        named.setdefault(path.name, []).append(path)
    known: dict[Path, tuple[Box, ...]] = {}
    unknown = []
    for name, several in boxes.items():
        plain = name.replace("\\", "/").removeprefix("./")
        fitting = [inside[plain]] if plain in inside else named.get(plain, [])
        if len(fitting) == 1:
            known[fitting[0]] = known.get(fitting[0], ()) + several
        else:
            unknown.append(name)
    return known, unknown
