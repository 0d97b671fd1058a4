"""Labelled photos to train on and to validate on, from a folder in one of the usual layouts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from camlucida.data.class_names import is_synset
from camlucida.data.folders import class_photos
from camlucida.data.imagenet import is_imagenet, open_imagenet
from camlucida.data.salience import SalientFolder, hold_out, salient_folder

_PARTS = ("train", "val")
_TRAIN = ("train", "Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/train", "ILSVRC2012_img_train")
_IMAGENET = 1000


@dataclass(frozen=True)
class Part:
    """Photos to train on, or to validate on.

    Attributes:
        root: the folder that they lie in.
        paths: their files.
        names: the name of each one's class.
    """

    root: Path
    paths: list[Path]
    names: list[str]


def photos_of(data: str | os.PathLike[str]) -> dict[str, Part]:
    """The photos ``"train"`` and ``"val"`` of a folder, and the classes of each.

    Args:
        data: a folder with ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``; ImageNet as its archives unpack, also with
            validation images that lie flat beside a list of labels (see
            :func:`camlucida.data.imagenet.open_imagenet`); or ``CLASS/*.jpg``, of which a fifth of each class is held
            out.

    Raises:
        ImageError: there are no photos in class folders.
        CamlucidaError: a class to be split has one photo only, or no validation image has a label.
    """
    root = Path(data)
    train = next((root / place for place in _TRAIN if (root / place).is_dir()), None)
    if train is None:
        both = hold_out(salient_folder(root))
        return {name: _of_folder(part) for name, part in zip(_PARTS, both, strict=True)}
    training = Part(train, *class_photos(train))
    val = train.parent / "val"
    if val.is_dir() and any(child.is_dir() for child in val.iterdir()):
        return {"train": training, "val": Part(val, *class_photos(val))}
    if not is_imagenet(root):
        return {"train": training, "val": Part(val, *class_photos(val))}  # tells what it expects
    classes = sorted(set(training.names))
    samples = list(open_imagenet(root, None))
    # Without a synset the label is the class's place among ImageNet's.
    names = [
        s.label_name
        if is_synset(s.label_name) or len(classes) != _IMAGENET
        else classes[s.label or 0]
        for s in samples
    ]
    return {"train": training, "val": Part(root, [s.path for s in samples if s.path], names)}


def _of_folder(folder: SalientFolder) -> Part:
    return Part(
        folder.root,
        [photo.path for photo in folder.photos],
        [folder.class_names[photo.label] for photo in folder.photos],
    )


def named(part: Part) -> list[list[str]]:
    """The photos as they are numbered, wherever the folder lies."""
    both = zip(part.paths, part.names, strict=True)
    return [[p.relative_to(part.root).as_posix(), n] for p, n in both]
