"""Labelled photos: one folder per class, and boxes from a table beside them."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.data.classes import class_of
from camlucida.data.images import find_images, read_image

Box: TypeAlias = tuple[float, float, float, float]
"""``(xmin, ymin, xmax, ymax)`` in pixels of the upright photo; the right and lower edges are exclusive."""

Skipped: TypeAlias = tuple[Path, str]

_COLUMNS = ("file", "xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and what is known to be in it.

    Attributes:
        path: its file.
        label: the name of its class folder.
        class_index: the model's class of that name.
        boxes: where the object is, where that is known.
    """

    path: Path
    label: str
    class_index: int
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class LabelledFolder:
    """The photos of a folder with one subfolder per class.

    Attributes:
        root: the folder.
        photos: those whose class the model knows, sorted by path.
        classes: the model's class of each subfolder.
        skipped: folders, files and rows that could not be used, with the reason.
    """

    root: Path
    photos: tuple[LabelledPhoto, ...]
    classes: Mapping[str, int]
    skipped: tuple[Skipped, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.photos)

    def of_class(self, class_index: int) -> tuple[LabelledPhoto, ...]:
        """The photos labelled with a class of the model."""
        return tuple(photo for photo in self.photos if photo.class_index == class_index)


def class_photos(root: str | os.PathLike[str]) -> tuple[list[Path], list[str]]:
    """The photos ``root/CLASS/.../photo.jpg``, and the name of each one's class folder.

    Raises:
        ImageError: the folder does not exist, holds no photo, or holds none in class folders.
    """
    root = Path(root)
    if root.is_file():
        raise ImageError(f"{str(root)!r} is a file; give a folder with one subfolder per class")
    paths = [path for path in find_images(root) if path.parent != root]
    if not paths:
        raise ImageError(
            f"{str(root)!r} holds no class folders; expected photos in {str(root / 'CLASS' / 'photo.jpg')!r}"
        )
    return paths, [path.relative_to(root).parts[0] for path in paths]


def labelled_folder(
    root: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    *,
    boxes: str | os.PathLike[str] | None = None,
) -> LabelledFolder:
    """Find the photos ``root/CLASS/.../photo.jpg``, and the class that each folder's name means.

    Nothing is decoded yet; :func:`read_photos` leaves out what cannot be read.

    Args:
        root: the folder.
        class_names: the model's; a subfolder is called by an index, a name or a synonym, as
            :func:`camlucida.models.resolve_class` finds it; for ImageNet's 1000 classes also by a synset such
            as ``n02123045``. Without names only indices are understood.
        boxes: a CSV table with the columns ``file, xmin, ymin, xmax, ymax``, in pixels of the upright photo; a
            file is a path inside ``root``, or a name that only one photo has. Several rows are several boxes.

    Raises:
        ImageError: the folder does not exist, holds no photo, or holds none in class folders.
        TargetError: the model knows none of the classes.
        CamlucidaError: the table cannot be read or a row is no box.
    """
    root = Path(root)
    paths, labels = class_photos(root)
    classes: dict[str, int] = {}
    skipped: list[Skipped] = []
    for label in dict.fromkeys(labels):
        try:
            classes[label] = class_of(label, class_names)
        except TargetError as error:
            skipped.append((root / label, str(error)))
    if not classes:
        raise TargetError(f"no subfolder of {str(root)!r} names a class: {skipped[0][1]}")
    photos = [
        LabelledPhoto(path, label, classes[label])
        for path, label in zip(paths, labels, strict=True)
        if label in classes
    ]
    if boxes is not None:
        known, unknown = assign_boxes(read_boxes(boxes), [photo.path for photo in photos], root)
        photos = [replace(photo, boxes=known.get(photo.path, ())) for photo in photos]
        skipped += [(Path(name), "a box for a photo that is not there") for name in unknown]
    return LabelledFolder(root, tuple(photos), classes, tuple(skipped))


def read_photos(
    photos: Sequence[LabelledPhoto], size: int, skipped: list[Skipped]
) -> Iterator[list[tuple[LabelledPhoto, Image.Image]]]:
    """Read photos a few at a time.

    Args:
        photos: which.
        size: how many at a time.
        skipped: gets those that cannot be read, with the reason.

    Yields:
        Lists of photos with their pictures; a list is empty when none of its files could be read.
    """
    for start in range(0, len(photos), size):
        read = []
        for photo in photos[start : start + size]:
            try:
                read.append((photo, read_image(photo.path)))
            except ImageError as error:
                skipped.append((photo.path, str(error)))
        yield read


def read_boxes(table: str | os.PathLike[str]) -> dict[str, tuple[Box, ...]]:
    """The boxes of each file named in a CSV table.

    Args:
        table: with a header that holds at least ``file, xmin, ymin, xmax, ymax``.

    Raises:
        CamlucidaError: it cannot be read, lacks a column, or a row is no box; the text names the line.
    """
    path = Path(table)
    found: dict[str, list[Box]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip().lower() for name in rows.fieldnames or ()]
            if missing := [name for name in _COLUMNS if name not in header]:
                raise CamlucidaError(
                    f"{str(path)!r} has no column {', '.join(missing)}; its first line must name "
                    f"{', '.join(_COLUMNS)}"
                )
            rows.fieldnames = header
            for row in rows:
                name, box = _box(row, f"{str(path)!r}, line {rows.line_num}")
                found.setdefault(name, []).append(box)
    except OSError as error:
        raise CamlucidaError(
            f"the boxes in {str(path)!r} cannot be read: {error.strerror or error}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CamlucidaError(f"{str(path)!r} is not a CSV table in UTF-8") from error
    return {name: tuple(several) for name, several in found.items()}


def _box(row: Mapping[str, str | None], where: str) -> tuple[str, Box]:
    name = (row["file"] or "").strip()
    try:
        left, top, right, bottom = (float(row[column] or "") for column in _COLUMNS[1:])
    except ValueError:
        raise CamlucidaError(f"{where}: expected four numbers after the file") from None
    if not name:
        raise CamlucidaError(f"{where}: the file is missing")
    if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
        raise CamlucidaError(
            f"{where}: {left:g}, {top:g}, {right:g}, {bottom:g} is no box; expected xmin < xmax and "
            "ymin < ymax"
        )
    return name, (left, top, right, bottom)


def assign_boxes(
    boxes: Mapping[str, tuple[Box, ...]], paths: Sequence[Path], root: Path
) -> tuple[dict[Path, tuple[Box, ...]], list[str]]:
    """The boxes of each photo, and the names that fit no photo or more than one.

    Args:
        boxes: as :func:`read_boxes` returns them.
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
