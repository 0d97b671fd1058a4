"""Photos in folders: one folder per class, or photos without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.data.class_names import class_of
from camlucida.data.images import find_images, skipped_kinds
from camlucida.data.masks import MaskedSample
from camlucida.data.samples import Sample, SampleList, Skipped
from camlucida.data.tables import assign_boxes, read_boxes


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


def open_folder(
    root: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    *,
    labels: bool | None = None,
    boxes: str | None = None,
    masks: str | None = None,
    unlabelled: bool = False,
) -> SampleList:
    """The photos of a folder, sorted by path: one subfolder per class, or photos without labels.

    Args:
        root: the folder; photos of known classes lie in ``root/CLASS/.../photo.jpg``.
        class_names: the model's; a subfolder is called by an index, a name or a synonym, see
            :func:`camlucida.data.class_names.class_of`; for ImageNet's 1000 classes also by a synset such as
            ``n02123045``. Without names only indices are understood.
        labels: whether the subfolders are classes; if there are subfolders with photos, unless told.
        boxes: a table with the columns ``file, xmin, ymin, xmax, ymax``, in pixels of the upright photo; a file
            is a path inside ``root``, or a name that only one photo has. Several rows are several boxes.
        masks: a folder with a mask ``CLASS/photo.png`` for ``CLASS/photo.jpg``, where there is one.
        unlabelled: where the model knows none of the classes, open the photos with the names of their classes
            and without labels, instead of refusing them.

    Raises:
        ImageError: the folder does not exist or holds no photo, or, with ``labels``, none in subfolders.
        TargetError: the model knows none of the classes.
        CamlucidaError: the table cannot be read, a row is no box, or there is no folder of masks.
    """
    base = Path(root)
    if base.is_file():
        raise ImageError(f"{str(base)!r} is a file; give a folder with one subfolder per class")
    if masks is not None and not Path(masks).is_dir():
        raise CamlucidaError(f"no such folder of masks: {masks!r}")
    paths: Sequence[Path] = find_images(base)
    names = dict.fromkeys(paths, "")
    classes: dict[str, int] = {}
    skipped: list[Skipped] = []
    if labels or (labels is None and any(path.parent != base for path in paths)):
        loose = sum(path.parent == base for path in paths)
        paths, found = class_photos(base)
        names = dict(zip(paths, found, strict=True))
        for name in dict.fromkeys(found):
            try:
                classes[name] = class_of(name, class_names)
            except TargetError as error:
                skipped.append((base / name, str(error)))
        if classes:
            paths = [path for path in paths if names[path] in classes]
        elif not unlabelled:
            raise TargetError(f"no subfolder of {str(base)!r} names a class: {skipped[0][1]}")
        else:
            skipped = []
        if loose:
            skipped.append((base, f"{loose} photos outside of the class folders"))
    skipped += [(base, said) for said in skipped_kinds(base)]
    known, unknown = assign_boxes(read_boxes(boxes), paths, base) if boxes else ({}, [])
    skipped += [(Path(name), "a box for a photo that is not there") for name in unknown]
    samples = [
        MaskedSample(
            key := path.relative_to(base).as_posix(),
            classes.get(names[path]),
            names[path],
            path,
            known.get(path, ()),
            mask_path=_mask_of(key, masks),
        )
        for path in paths
    ]
    return SampleList(Path(os.path.realpath(base)).name or "folder", samples, skipped)


def _mask_of(key: str, masks: str | None) -> Path | None:
    mask = None if masks is None else (Path(masks) / key).with_suffix(".png")
    return mask if mask is not None and mask.is_file() else None


def read_photos(
    photos: Sequence[Sample], size: int, skipped: list[Skipped]
) -> Iterator[list[tuple[Sample, Image.Image]]]:
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
                read.append((photo, photo.picture()))
            except ImageError as error:
                skipped.append((photo.file, str(error)))
        yield read
