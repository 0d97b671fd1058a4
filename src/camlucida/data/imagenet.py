"""ImageNet's validation images (ILSVRC2012), in the layouts in which they are handed around."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.files import check_regular
from camlucida.common.optional import require
from camlucida.data.annotation_xml import Annotation, inside, read_annotation
from camlucida.data.class_names import Classes, imagenet_synsets, is_synset
from camlucida.data.samples import Box, Sample, SampleList, Skipped

_IMAGES = ("", "val", "ILSVRC2012_img_val", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val")
_BOXES = (
    "Annotations/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val", "ILSVRC2012_bbox_val_v3/val",
    "ILSVRC2012_bbox_val_v3", "Annotations/val", "annotations/val", "bbox/val", "Annotations",
)  # fmt: skip
_LABELS = (
    "LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", "val.txt",
    "ILSVRC2012_validation_ground_truth.txt", "data/ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)  # fmt: skip
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})$")
_SUFFIXES = {".jpeg", ".jpg", ".png"}


def is_imagenet(root: Path) -> bool:
    """Whether a folder looks like ImageNet's validation images, flat or with annotations."""
    for place in _IMAGES:
        if (root / place).is_dir():
            with os.scandir(root / place) as entries:
                if any(e.name.startswith("ILSVRC2012_val_") for e in islice(entries, 2000)):
                    return True
    return any((root / place).is_dir() for place in (*_IMAGES[3:], *_BOXES[:4]))


def open_imagenet(
    root: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    *,
    annotations: str | None = None,
    labels: str | None = None,
) -> SampleList:
    """Open ImageNet's validation images.

    They lie flat (``ILSVRC2012_val_00000001.JPEG``) or in a folder per synset, in ``root`` or where the
    archives put them. The label is the folder's synset; else it comes from a list of labels; else from the
    XML. All boxes of the label's class are kept in the order and with the numbers of the XML, cut at the
    photo's edges.

    Args:
        root: the folder; that of the images, or the one that holds images, annotations and labels.
        class_names: the model's. With 1000, or none, a synset's class is its place among the sorted synsets;
            other models must know one of its names.
        annotations: folder of the XML files; looked for in the usual places.
        labels: ``LOC_val_solution.csv``; a list with one synset per line; ``val.txt`` with file and class
            number; or ``ILSVRC2012_validation_ground_truth.txt``, which needs ``meta.mat`` beside it, because
            its numbers have an order of their own. Looked for in the usual places.

    Raises:
        ImageError: there are no images.
        CamlucidaError: the labels cannot be read, or an image has none.
        TargetError: the model knows none of the classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise ImageError(f"no such folder: {str(root)!r}")
    photos = _photos(root)
    folder = _given(annotations, root, _BOXES, is_folder=True)
    listed = _given(labels, root, _LABELS, is_folder=False)
    notes: dict[str, Annotation | str] = dict(_annotations(folder)) if folder else {}
    solution = _listed_labels(listed) if listed else {}
    classes = _Synsets(class_names)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for key, synset in photos:
        path = root / key
        note = notes.get(path.stem)
        if isinstance(note, str):
            skipped.append((path, note))
            note = None
        label = (
            synset
            or solution.get(path.stem)
            or (note.objects[0].name if note and note.objects else "")
        )
        if not label:
            skipped.append((path, "no label: neither a synset folder nor a list nor an annotation"))
            continue
        index = classes.find(label)
        if index is not None:
            samples.append(Sample(key, index, label, path, _boxes(note, label)))
    skipped += classes.skipped(root)
    if not samples and (reason := classes.reason()):
        raise TargetError(f"the model knows none of the classes in {str(root)!r}: {reason}")
    if not samples:
        raise CamlucidaError(
            f"no image in {str(root)!r} has a label; put them in a folder per synset, or give "
            "labels=LOC_val_solution.csv or annotations=FOLDER"
        )
    return SampleList("imagenet", samples, skipped)


def _photos(root: Path) -> list[tuple[str, str]]:
    """Path inside ``root`` and synset of each image, sorted by file name: the same order in both layouts."""
    for place in _IMAGES:
        folder = root / place
        if not folder.is_dir():
            continue
        found: list[tuple[str, str, str]] = []
        prefix = f"{place}/" if place else ""
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_synset(entry.name) and entry.is_dir():
                    found += [
                        (name, f"{prefix}{entry.name}/{name}", entry.name)
                        for name in os.listdir(entry.path)  # noqa: PTH208 - names only, fifty times faster
                        if _is_photo(name)
                    ]
                elif _is_photo(entry.name):
                    found.append((entry.name, f"{prefix}{entry.name}", ""))
        if found:
            return [(key, synset) for _, key, synset in sorted(found)]
    raise ImageError(
        f"no ImageNet images in {str(root)!r}; expected ILSVRC2012_val_00000001.JPEG or folders "
        "such as n01440764"
    )


def _is_photo(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES  # noqa: PTH122


def _given(
    written: str | None, root: Path, usual: Sequence[str], *, is_folder: bool
) -> Path | None:
    if written is not None:
        for path in (Path(written), root / written):
            if path.is_dir() if is_folder else path.is_file():
                return path
        raise CamlucidaError(f"no such {'folder' if is_folder else 'file'}: {written!r}")
    above = [parent / usual[0] for parent in root.resolve().parents[:4]]
    for path in (*(root / place for place in usual), *above):
        if path.is_dir() if is_folder else path.is_file():
            return path
    return None


def _annotations(folder: Path) -> Iterator[tuple[str, Annotation | str]]:
    """What each XML file says, or why it cannot be read."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".xml"))
    if not names:
        raise CamlucidaError(f"no XML annotations in {str(folder)!r}")
    for name in names:
        try:
            yield name[:-4], read_annotation(folder / name)
        except CamlucidaError as error:
            yield name[:-4], f"without boxes: {error}"


def _boxes(note: Annotation | None, label: str) -> tuple[Box, ...]:
    if note is None:
        return ()
    own = [inside(o.box, note.width, note.height) for o in note.objects if o.name == label]
    return tuple(box for box in own if box is not None)


class _Synsets(Classes):
    """Synsets as classes of models with 1000 classes, and by their names of any other."""

    def find(self, label: str) -> int | None:
        if is_synset(label) and self.class_names is not None and len(self.class_names) != 1000:
            return super().find(_lemma(label))
        return super().find(label)

    def __init__(self, class_names: Sequence[str] | None) -> None:
        # a model without names is taken to have ImageNet's classes in their order
        super().__init__([str(i) for i in range(1000)] if class_names is None else class_names)


def _lemma(synset: str) -> str:
    """The first name of a synset, such as "tench"; the synset itself where timm does not know it."""
    known = imagenet_synsets()
    if known is None or synset not in known:
        return synset
    from timm.data import ImageNetInfo

    return str(ImageNetInfo().index_to_description(known[synset])).split(",")[0]


# ---- lists of labels ----------------------------------------------------------------------------


def _listed_labels(path: Path) -> dict[str, str]:
    """The label of each image: a synset, or the number of a class."""
    check_regular(path, "list of labels", most=2**30)
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return {row[0]: row[1].split()[0] for row in csv.reader(file) if _is_solution(row)}
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CamlucidaError(f"the labels in {str(path)!r} cannot be read: {error}") from error
    rows = [line.split() for line in lines if line.strip()]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise CamlucidaError(f"{str(path)!r} is no list of labels: its lines differ in form")
    if len(rows[0]) == 2:
        return {os.path.splitext(name)[0].rpartition("/")[2]: label for name, label in rows}  # noqa: PTH122
    if len(rows[0]) != 1:
        raise CamlucidaError(
            f"{str(path)!r} is no list of labels: expected one or two words a line"
        )
    names = [row[0] for row in rows]
    if not is_synset(names[0]):
        known = _devkit(path.parent / "meta.mat")
        try:
            names = [known[int(name)] for name in names]
        except (ValueError, KeyError) as error:
            raise CamlucidaError(f"{str(path)!r}: meta.mat lists no class {error}") from error
    return {f"ILSVRC2012_val_{number:08d}": name for number, name in enumerate(names, 1)}


def _is_solution(row: Sequence[str]) -> bool:
    return len(row) == 2 and _NUMBER.match(row[0]) is not None and bool(row[1].split())


def _devkit(path: Path) -> Mapping[int, str]:
    """The synset of each of the devkit's own class numbers, 1 to 1000."""
    if not path.is_file():
        raise CamlucidaError(
            f"the numbers of the ground truth need the devkit's {str(path)!r}; or give "
            "labels=LOC_val_solution.csv, or a list of synsets"
        )
    io = require("scipy.io", "data")
    try:
        rows: Any = io.loadmat(path, squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    except Exception as error:
        raise CamlucidaError(f"{str(path)!r} is not the devkit's meta.mat") from error
