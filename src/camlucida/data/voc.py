"""Pascal VOC: photos with boxes and, for some, masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.files import read_text
from camlucida.data.annotation_xml import Annotation, XmlObject, inside, read_annotation
from camlucida.data.class_names import Classes
from camlucida.data.coco import LabelOf
from camlucida.data.masks import check_size, read_labels
from camlucida.data.samples import Box, Sample, SampleList, Skipped

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes; number ``i`` is drawn as ``i + 1`` in its class masks."""

_VOID = 255  # the border around objects


@dataclass(frozen=True)
class VocSample(Sample):
    """A photo with the mask pictures that VOC has for some of them.

    Attributes:
        mask_path: the picture of classes or of objects; ``None`` where there is none.
        numbers: what is drawn there for the label's class; empty for every object.
    """

    mask_path: Path | None = None
    numbers: tuple[int, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Photo and mask."""
        return (*super().files, *(() if self.mask_path is None else (self.mask_path,)))

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """The pixels of the label's class, without the border that VOC leaves undecided.

        Raises:
            ImageError: the picture cannot be read, or has another size than the photo.
        """
        if self.mask_path is None:
            return None
        drawn = read_labels(self.mask_path)
        found = np.isin(drawn, self.numbers) if self.numbers else (drawn != 0) & (drawn != _VOID)
        check_size(found, self.path)
        return found


def is_voc(root: Path) -> bool:
    """Whether a folder is a VOC year, or holds one."""
    return bool(_years(root))


def open_voc(
    root: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    *,
    year: int | None = None,
    split: str | None = None,
    task: Literal["main", "segmentation"] = "main",
    label: LabelOf = "largest",
) -> SampleList:
    """Open VOC2007 or VOC2012 (or your own data in their layout): one sample per photo.

    A photo's label is the class of its largest object that the model knows; its boxes and mask are those of
    all objects of that class. VOC counts pixels from 1: boxes are moved by one to the left and up.

    Args:
        root: the folder with ``JPEGImages`` and ``Annotations``, or one that holds such folders (VOCdevkit).
        class_names: the model's; a class is called as the model calls it, or by a synonym.
        year: where there are several.
        split: a list in ``ImageSets``; ``val``, else ``test``, else all annotations, unless told.
        task: which lists; those of ``segmentation`` hold only photos with masks.
        label: ``"first"`` takes the first object instead of the largest; ``"none"`` leaves photos without a
            label and keeps all objects.

    Raises:
        CamlucidaError: the layout is another, or nothing can be used.
        ImageError: the folder does not exist.
        TargetError: the model knows none of the classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise ImageError(f"no such folder: {str(root)!r}")
    base = _year(root, year)
    chosen, names = _split(base, split, task)
    classes = Classes(class_names)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    suffixes = {path.stem: path.name for path in sorted((base / "JPEGImages").iterdir())}
    for name in names:
        path = base / "JPEGImages" / suffixes.get(name, f"{name}.jpg")
        try:
            note = read_annotation(base / "Annotations" / f"{name}.xml")
        except CamlucidaError as error:
            skipped.append((path, str(error)))
            continue
        found = _sample(base, path, note, classes, label)
        if found is None:
            skipped.append((path, "no object of a class that the model knows"))
        else:
            samples.append(found)
    if not samples and classes.reason():
        raise TargetError(f"the model knows none of the classes: {classes.reason()}")
    if not samples:
        raise CamlucidaError(f"{str(base)!r} holds no photo that can be used")
    skipped += classes.skipped(base, "object")
    return SampleList(f"{base.name}:{chosen}", samples, skipped)


def _sample(
    base: Path, path: Path, note: Annotation, classes: Classes, label: LabelOf
) -> VocSample | None:
    mask = next(
        (
            p
            for kind in ("Class", "Object")
            if (p := base / f"Segmentation{kind}" / f"{path.stem}.png").is_file()
        ),
        None,
    )
    if label == "none":
        boxes = [_box(o, note) for o in note.objects]
        kept = tuple(box for box in boxes if box is not None)
        return VocSample(path.name, None, "", path, kept, mask_path=mask)
    objects = [
        (number, o.name, box)
        for number, o in enumerate(note.objects, 1)
        if classes.find(o.name) is not None and (box := _box(o, note)) is not None
    ]
    if not objects:
        return None
    name = (objects[0] if label == "first" else max(objects, key=lambda o: _area(o[2])))[1]
    own = [(number, box) for number, other, box in objects if other == name]
    numbers: tuple[int, ...] = tuple(number for number, _ in own)
    if mask is not None and mask.parent.name == "SegmentationClass":
        numbers = (CLASSES.index(name) + 1,) if name in CLASSES else ()
        if not numbers:  # data of one's own: their numbers are not known
            mask = None
    return VocSample(
        path.name,
        classes.find(name),
        name,
        path,
        tuple(box for _, box in own),
        mask_path=mask,
        numbers=numbers,
    )


def _box(o: XmlObject, note: Annotation) -> Box | None:
    left, top, right, bottom = o.box
    return inside((left - 1, top - 1, right, bottom), note.width, note.height)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _years(root: Path) -> list[Path]:
    places = [root, *sorted(root.glob("VOC*")), *sorted(root.glob("VOCdevkit/VOC*"))]
    return [p for p in places if (p / "JPEGImages").is_dir() and (p / "Annotations").is_dir()]


def _year(root: Path, year: int | None) -> Path:
    found = _years(root)
    if year is not None:
        found = [path for path in found if path.resolve().name == f"VOC{year}"]
    if len(found) == 1:
        return found[0]
    if found:
        raise CamlucidaError(
            f"{str(root)!r} holds {', '.join(path.name for path in found)}; choose with year=2012"
        )
    raise CamlucidaError(
        f"{str(root)!r} holds no {f'VOC{year}' if year else 'VOC data'}; expected JPEGImages and Annotations"
    )


def _split(base: Path, split: str | None, task: str) -> tuple[str, list[str]]:
    """The name of the list, and the photos on it."""
    folder = base / "ImageSets" / task.capitalize()
    lists = {path.stem: path for path in folder.glob("*.txt") if "_" not in path.stem}
    chosen = split or next((name for name in ("val", "test") if name in lists), None)
    if chosen is None and task == "main":
        return "all", sorted(path.stem for path in (base / "Annotations").glob("*.xml"))
    if chosen not in lists:
        raise CamlucidaError(
            f"no list {chosen or 'val'}.txt in {str(folder)!r}; there are {', '.join(sorted(lists)) or 'none'}"
        )
    lines = read_text(lists[chosen], "list of photos").splitlines()
    words = [line.split()[0] for line in lines if line.split()]
    if outside := [word for word in words if "/" in word or "\\" in word or word.startswith(".")]:
        raise CamlucidaError(
            f"{str(lists[chosen])!r} names {outside[0]!r}, which is no name of a photo"
        )
    return str(chosen), words
