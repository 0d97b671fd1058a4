"""COCO: photos with boxes and masks from one ``instances`` file."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.files import read_bytes
from camlucida.common.optional import require
from camlucida.data.annotation_xml import inside
from camlucida.data.class_names import Classes
from camlucida.data.images import MAX_PIXELS
from camlucida.data.masks import check_size
from camlucida.data.samples import Box, Sample, SampleList, Skipped

LabelOf: TypeAlias = Literal["largest", "first", "none"]
"""Which object names a photo: the one with the largest area, the first, or none of them."""

_LARGEST = 2**32  # bytes of an instances file; COCO's largest has 470 MB


@dataclass(frozen=True)
class CocoSample(Sample):
    """A photo with the segmentations of its objects.

    Attributes:
        size: ``(width, height)`` as the file says it.
        segmentations: polygons or run lengths of the objects of the label's class, as they stand in the file.
    """

    size: tuple[int, int] = (0, 0)
    segmentations: tuple[Any, ...] = field(default=(), repr=False)

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """The pixels of all objects of the label's class; ``None`` where an object has no segmentation.

        Raises:
            ImageError: a segmentation is damaged or has another size than the photo.
        """
        if not self.segmentations or None in self.segmentations:
            return None
        width, height = self.size
        found = np.zeros((height, width), dtype=np.bool_)
        for segmentation in self.segmentations:
            found |= _pixels(segmentation, width, height, self.key)
        check_size(found, self.path)
        return found


def is_coco(path: Path) -> bool:
    """Whether a path is a JSON file, or a folder with an ``instances`` file."""
    return bool(_instances(path)) or (path.suffix.lower() == ".json" and path.is_file())


def _instances(root: Path) -> list[Path]:
    return sorted([*root.glob("annotations/instances_*.json"), *root.glob("instances_*.json")])


def find_instances(root: Path, split: str | None) -> Path:
    """The ``instances`` file of a COCO folder.

    Args:
        root: the folder, with ``annotations/instances_SPLIT.json``.
        split: which split, such as ``val2017``; by default the only one, or else a validation split.

    Raises:
        CamlucidaError: there is none, or more than one.
    """
    found = _instances(root)
    named = {path.stem.removeprefix("instances_"): path for path in found}
    if split is not None and split in named:
        return named[split]
    for choice in (found, [path for name, path in named.items() if name.startswith("val")]):
        if split is None and len(choice) == 1:
            return choice[0]
    wanted = f"no instances_{split}.json" if split else "no single instances file"
    raise CamlucidaError(f"{wanted} in {str(root)!r}; there are {', '.join(named) or 'none'}")


def open_coco(
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    *,
    images: str | None = None,
    split: str | None = None,
    label: LabelOf = "largest",
) -> SampleList:
    """Open a COCO ``instances`` file: one sample per photo.

    A photo's label is the class of its largest object whose category the model knows, and its boxes and mask
    are those of all objects of that category, crowds left out. Photos without such an object are skipped.

    Args:
        path: the JSON file, or the folder that holds ``annotations/instances_SPLIT.json``.
        class_names: the model's; a category is called as the model calls it, or by a synonym.
        images: folder of the photos; looked for beside the annotations.
        split: which split, such as ``val2017``, where the folder has several.
        label: ``"first"`` takes the first object instead of the largest; ``"none"`` leaves photos without a
            label and keeps the objects of all categories.

    Raises:
        CamlucidaError: the file cannot be read or is no COCO file.
        ImageError: the folder of the photos cannot be found.
        TargetError: the model knows none of the categories.
    """
    path = Path(path)
    file = find_instances(path, split) if path.is_dir() else path
    content = _read(file)
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for note in content["annotations"]:
        if not note.get("iscrowd"):
            by_image[note["image_id"]].append(note)
    classes = Classes(class_names)
    categories = {row["id"]: str(row["name"]) for row in content["categories"]}
    known = {i: classes.find(name) for i, name in categories.items()} if label != "none" else {}
    if label != "none" and all(index is None for index in known.values()):
        raise TargetError(f"the model knows none of the categories: {classes.reason()}")
    skipped: list[Skipped] = classes.skipped(file, "category") if label != "none" else []
    folder = _images(file, images, content["images"])
    samples: list[Sample] = []
    for row in sorted(content["images"], key=lambda r: str(r["file_name"])):
        name = PurePosixPath(str(row["file_name"]).replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            skipped.append((Path(name), "a file outside of the folder of images"))
            continue
        size = (int(row["width"]), int(row["height"]))
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            skipped.append((folder / name, f"{size[0]} x {size[1]} is no size of a photo"))
            continue
        own = by_image.get(row["id"], [])
        if label != "none":
            own = [note for note in own if known.get(note["category_id"]) is not None]
            own = _of_one_class(own, label)
        if not own and label != "none":
            skipped.append((folder / name, "no object of a category that the model knows"))
            continue
        category = own[0]["category_id"] if label != "none" else None
        samples.append(
            CocoSample(
                key=name.as_posix(),
                label=None if category is None else known[category],
                label_name="" if category is None else categories[category],
                path=folder / name,
                boxes=_boxes(own, size),
                size=size,
                segmentations=tuple(note.get("segmentation") or None for note in own),
            )
        )
    if not samples:
        raise CamlucidaError(f"{str(file)!r} holds no photo that can be used")
    return SampleList(f"coco:{file.stem.removeprefix('instances_')}", samples, skipped)


def _of_one_class(notes: list[Mapping[str, Any]], label: LabelOf) -> list[Mapping[str, Any]]:
    if not notes:
        return []
    chosen = notes[0] if label == "first" else max(notes, key=_area)
    return [note for note in notes if note["category_id"] == chosen["category_id"]]


def _area(note: Mapping[str, Any]) -> float:
    _, _, width, height = note["bbox"]
    return float(note.get("area") or width * height)


def _boxes(notes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> tuple[Box, ...]:
    found = []
    for note in notes:
        left, top, width, height = map(float, note["bbox"])
        found.append(inside((left, top, left + width, top + height), *size))
    return tuple(box for box in found if box is not None)


def _read(file: Path) -> dict[str, Any]:
    text = read_bytes(file, "instances file", most=_LARGEST)
    try:
        content = json.loads(text)
        for note in content["annotations"]:
            _, _, width, height = map(_number, note["bbox"])
            _number(note.get("area") or width * height)
            _ = _identity(note["image_id"]), _identity(note["category_id"])
        for row in content["images"]:
            _ = _identity(row["id"]), _number(row["width"]), _number(row["height"])
            if not isinstance(row["file_name"], str) or "\0" in row["file_name"]:
                raise TypeError(f"a file is called {row['file_name']!r}")  # noqa: TRY301 - one sentence for all of it
        for row in content["categories"]:
            _ = _identity(row["id"]), row["name"]
    except RecursionError as error:
        raise CamlucidaError(f"{str(file)!r} is nested too deeply") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CamlucidaError(
            f"{str(file)!r} is no COCO instances file ({type(error).__name__}: {error}); expected images, "
            "annotations with boxes, and categories"
        ) from error
    return dict(content)


def _number(value: Any) -> float:
    if isinstance(value, bool | str) or not math.isfinite(value):
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)


def _identity(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"expected an id, got {value!r}")
    return value


def _images(file: Path, images: str | None, rows: Sequence[Mapping[str, Any]]) -> Path:
    if images is not None:
        folder = Path(images)
        for place in (folder, file.parent / folder, file.parent.parent / folder):
            if place.is_dir():
                return place
        raise ImageError(f"no such folder of images: {images!r}")
    split = file.stem.removeprefix("instances_")
    first = [str(row["file_name"]) for row in rows[:5]]
    base = file.parent.parent
    for folder in (base / split, base / "images" / split, base / "images", file.parent / "images",
                   file.parent / split, file.parent, base):  # fmt: skip
        if any((folder / name).is_file() for name in first):
            return folder
    raise ImageError(
        f"the photos of {str(file)!r} were not found in {str(base / split)!r} nor beside it; give "
        "images=FOLDER"
    )


def _pixels(segmentation: Any, width: int, height: int, key: str) -> npt.NDArray[np.bool_]:
    """Polygons or run lengths as pixels, as COCO's own tools draw them."""
    try:
        if isinstance(segmentation, list):
            tools = require("pycocotools.mask", "data")
            polygons = [[float(v) for v in p] for p in segmentation]
            if any(len(p) < 6 or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
                raise ValueError("a polygon needs three corners or more")  # noqa: TRY301
            limit = 4.0 * max(width, height)  # far outside, lines would be drawn without end
            clipped = [np.clip(p, -limit, limit).tolist() for p in polygons]
            runs = tools.merge(tools.frPyObjects(clipped, height, width))
            counts = run_lengths(runs["counts"])
        else:
            if [int(v) for v in segmentation["size"]] != [height, width]:
                raise ValueError(f"its size is {segmentation['size']}")  # noqa: TRY301
            counts = segmentation["counts"]
            if not isinstance(counts, list):
                counts = run_lengths(counts)
        if min(counts, default=0) < 0 or sum(counts) != width * height:
            raise ValueError("its run lengths do not fill the photo")  # noqa: TRY301
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return np.ascontiguousarray(flat.reshape(width, height).T)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise ImageError(
            f"a segmentation of {key!r} ({width} x {height} pixels) cannot be used: {error}"
        ) from error


def run_lengths(text: str | bytes) -> list[int]:
    """COCO's compressed run lengths as numbers: six bits a character, differences from the one before last.

    Decoded here, so that lengths can be checked before pixels are written.

    Raises:
        ValueError: the text ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii") if isinstance(text, str) else text:
        bits = code - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths are cut off")
    return counts
