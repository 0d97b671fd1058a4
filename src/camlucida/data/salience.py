"""Photos in class folders, and what people marked in them: one annotation map for each photo."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.jsonable import digest
from camlucida.data.folders import class_photos
from camlucida.data.images import find_images, open_picture, upright_size
from camlucida.data.samples import Skipped
from camlucida.engine.maps import normalise

Floats = npt.NDArray[np.float32]

_FORMATS = ("PNG", "BMP", "GIF", "TIFF", "PPM", "JPEG", "WEBP")
_EXPECTED = "a grey picture or a .npy array"
_SAME_SHAPE = 0.05  # of the aspect ratio


@dataclass(frozen=True)
class SalientPhoto:
    """A photo, its class, and where its annotation lies.

    Attributes:
        key: its path inside the folder.
        path: its file.
        label: the number of its class.
        map_path: the file with its map; ``None`` where no maps were asked for.
    """

    key: str
    path: Path
    label: int
    map_path: Path | None = None


@dataclass(frozen=True)
class SalientFolder:
    """The photos of a folder with one subfolder per class, each with its annotation map.

    Attributes:
        root: the folder.
        class_names: the subfolders in the order of their names, which numbers the classes.
        photos: sorted by path.
        skipped: photos without a map that were left out, and maps of no photo, with the reason.
    """

    root: Path
    class_names: tuple[str, ...]
    photos: tuple[SalientPhoto, ...]
    skipped: tuple[Skipped, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.photos)

    def describe(self) -> dict[str, Any]:
        """Name, size, classes and a hash of names, sizes of files and labels, ready for JSON."""
        rows = [
            [p.key, p.label, p.path.stat().st_size, p.map_path.stat().st_size if p.map_path else 0]
            for p in self.photos
        ]
        return {
            "name": Path(os.path.realpath(self.root)).name,
            "samples": len(self),
            "classes": list(self.class_names),
            "fingerprint": digest(rows),
        }


def salient_folder(
    root: str | os.PathLike[str],
    maps: str | os.PathLike[str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    skip_missing: bool = False,
) -> SalientFolder:
    """Find the photos ``root/CLASS/.../photo.jpg`` and their maps; headers are read, nothing is decoded.

    Args:
        root: the folder of photos.
        maps: a folder with a map for each photo: at the same place inside it
            (``maps/CLASS/.../photo.png``), or anywhere, if only one map and one photo have that name. A map is a
            grey picture, or a two-dimensional ``.npy`` array, bright or large where people looked; it has the
            photo's shape in any resolution, or is square, made for the squared photo. ``None``: no maps.
        class_names: number the classes as these names are ordered, such as those of the training photos.
        skip_missing: leave photos without a map out instead of refusing.

    Raises:
        ImageError: there is no photo, no folder of maps, or a file cannot be opened.
        CamlucidaError: a photo has no map or several, a map has another shape than its photo, or a class is
            not among the names.
    """
    root = Path(root)
    paths, labels = class_photos(root)
    names = tuple(sorted(set(labels))) if class_names is None else tuple(class_names)
    if unknown := sorted(set(labels) - set(names)):
        raise CamlucidaError(
            f"{str(root)!r} has class folders that the training photos have not: {_some(unknown)}; there are "
            f"{_some(names)}"
        )
    skipped: list[Skipped] = []
    found: dict[Path, Path | None] = dict.fromkeys(paths)
    if maps is not None:
        found, skipped = _with_maps(root, paths, Path(maps), skip_missing=skip_missing)
    photos = []
    for path, label in zip(paths, labels, strict=True):
        if path not in found:
            continue
        map_path = found[path]
        size = _size_of(path)  # now, not in the middle of a training
        if map_path is not None:
            _check_shape(size, map_path)
        key = path.relative_to(root).as_posix()
        photos.append(SalientPhoto(key, path, names.index(label), map_path))
    return SalientFolder(root, names, tuple(photos), tuple(skipped))


def hold_out(
    folder: SalientFolder, share: float = 0.2, seed: int = 0
) -> tuple[SalientFolder, SalientFolder]:
    """Split off a share of each class, at least one photo, for validation.

    Which photos these are depends on their names and the seed alone.

    Args:
        folder: all photos.
        share: in (0, 1).
        seed: another seed gives other photos.

    Returns:
        The photos to train on, and those held out.

    Raises:
        CamlucidaError: a class has one photo only, or the share is out of range.
    """
    if not 0 < share < 1:
        raise CamlucidaError(f"the share held out must be between 0 and 1, got {share}")
    held: set[str] = set()
    for label, name in enumerate(folder.class_names):
        mine = [p.key for p in folder.photos if p.label == label]
        if len(mine) == 1:
            raise CamlucidaError(
                f"class {name!r} of {str(folder.root)!r} has one photo only; give validation photos of their own"
            )
        mine.sort(key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).hexdigest())
        held.update(mine[: min(len(mine) - 1, max(1, round(share * len(mine))))])
    kept = tuple(p for p in folder.photos if p.key not in held)
    rest = tuple(p for p in folder.photos if p.key in held)
    return (
        SalientFolder(folder.root, folder.class_names, kept, folder.skipped),
        SalientFolder(folder.root, folder.class_names, rest),
    )


def read_map(path: str | os.PathLike[str]) -> Floats:
    """An annotation map as it was drawn.

    Args:
        path: a grey picture of 8 or 16 bits (or colours that are all grey), or a two-dimensional ``.npy`` array.

    Returns:
        ``(height, width)`` of any range.

    Raises:
        ImageError: it cannot be read, is coloured, transparent, too large, or holds values that are not finite.
    """
    path = Path(path)
    name = f"the annotation map {str(path)!r}"
    try:
        values = _array(path, name) if path.suffix.lower() == ".npy" else _picture(path, name)
    except ImageError:
        raise
    except Exception as error:  # Pillow and numpy raise many kinds for damaged files
        lines = str(error).splitlines() or [type(error).__name__]
        raise ImageError(f"{name} cannot be read ({lines[0]}); expected {_EXPECTED}") from error
    if not np.isfinite(values).all():
        raise ImageError(f"{name} holds values that are not finite")
    return values


def grid_map(values: Floats, size: tuple[int, int]) -> Tensor:
    """A map as the target of a loss: resized bilinearly as Pillow does, then scaled to [0, 1].

    Args:
        values: ``(height, width)``.
        size: height and width of the model's map, in cells.

    Returns:
        ``size``, zeros where the map is constant.
    """
    small = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return normalise(torch.from_numpy(np.array(small, np.float32))[None])[0]


# ---- files --------------------------------------------------------------------------------------


def _with_maps(
    root: Path, paths: Sequence[Path], maps: Path, *, skip_missing: bool
) -> tuple[dict[Path, Path | None], list[Skipped]]:
    """The map of each photo that has one, and what is left over."""
    if not maps.is_dir():
        raise ImageError(f"no such folder of annotation maps: {str(maps)!r}")
    files = _map_files(maps)
    placed: dict[str, list[Path]] = {}
    named: dict[str, list[Path]] = {}
    for file in files:
        placed.setdefault(file.relative_to(maps).with_suffix("").as_posix(), []).append(file)
        named.setdefault(file.stem, []).append(file)
    count: dict[str, int] = {}
    for path in paths:
        count[path.stem] = count.get(path.stem, 0) + 1
    found: dict[Path, Path | None] = {}
    missing: list[Path] = []
    for path in paths:
        place = path.relative_to(root).with_suffix("").as_posix()
        fitting = placed.get(place) or (named.get(path.stem, []) if count[path.stem] == 1 else [])
        if len(fitting) > 1:
            raise CamlucidaError(
                f"{str(path)!r} has several annotation maps: {_some(map(str, fitting))}; keep one"
            )
        if fitting:
            found[path] = fitting[0]
        else:
            missing.append(path)
    if missing and (not skip_missing or not found):
        wanted = maps / missing[0].relative_to(root).with_suffix(".png")
        raise CamlucidaError(
            f"{len(missing)} of {len(paths)} photos have no annotation map in {str(maps)!r}, such as "
            f"{_some(p.name for p in missing)}; expected {str(wanted)!r}"
            + ("" if not found else ", or leave such photos out with --skip-missing")
        )
    skipped: list[Skipped] = [(p, "no annotation map") for p in missing]
    used = set(found.values())
    skipped += [(f, "an annotation map of no photo") for f in files if f not in used]
    return found, skipped


def _map_files(maps: Path) -> Sequence[Path]:
    try:
        return find_images(maps)
    except ImageError as error:
        raise ImageError(
            f"no annotation map in {str(maps)!r}; expected grey pictures or .npy arrays"
        ) from error


def _check_shape(size: tuple[int, int], map_path: Path) -> None:
    """A map of another shape belongs to another photo, or to a crop of it."""
    height, width = _size_of(map_path)
    photo_height, photo_width = size
    ratio = (width / height) / (photo_width / photo_height)
    if height != width and not 1 / (1 + _SAME_SHAPE) <= ratio <= 1 + _SAME_SHAPE:
        raise CamlucidaError(
            f"the annotation map {str(map_path)!r} has {width} x {height} pixels, its photo {photo_width} x "
            f"{photo_height}: another shape, so it cannot lie on it; make both of one shape, or the map square"
        )


def _size_of(path: Path) -> tuple[int, int]:
    try:
        if path.suffix.lower() == ".npy":
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if len(shape) != 2 or min(shape) < 1:
                raise ImageError(  # noqa: TRY301 - it is the file that is refused
                    f"the annotation map {str(path)!r} has shape {shape}; expected (height, width)"
                )
            return int(shape[0]), int(shape[1])
        width, height = upright_size(path)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{str(path)!r} cannot be opened: {type(error).__name__}") from error
    return height, width


def _array(path: Path, name: str) -> Floats:
    values = np.load(path, allow_pickle=False)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise ImageError(
            f"{name} is an array of shape {values.shape} and type {values.dtype}; expected numbers (height, width)"
        )
    return np.asarray(values, np.float32)


def _picture(path: Path, name: str) -> Floats:
    with open_picture(path, name, _FORMATS, _EXPECTED) as image:
        if image.mode in {"L", "1", "F"} or image.mode.startswith("I"):
            return np.asarray(image).astype(np.float32)
        colours = np.asarray(image.convert("RGBA")).astype(np.float32)
    if colours[..., 3].min() < 255:
        raise ImageError(
            f"{name} is transparent in places; save it as a grey picture without transparency"
        )
    if np.ptp(colours[..., :3], axis=2).max() > 8:  # JPEG turns grey a little coloured
        raise ImageError(
            f"{name} is coloured, so it is not known what is much and what is little; save it in grey, bright where "
            "people looked"
        )
    return np.asarray(colours[..., :3].mean(axis=2), np.float32)


def _some(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
