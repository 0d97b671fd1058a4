"""Sets of equal classes out of folders of unequal ones, as links to the same files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import writable
from camlucida.common.jsonable import digest
from camlucida.data.folders import class_photos
from camlucida.data.salience import salient_folder

IRIS_PAD = {"train": 193, "val": 500, "test": 11_592}
"""Photos of each of the 7 classes in the published Iris PAD experiment (DiffGradCAM, section 6)."""


def balance(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    sizes: Mapping[str, int] = IRIS_PAD,
    *,
    maps: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, tuple[int, int]]]:
    """Resample photos to equal classes: ``out/train/CLASS``, ``out/val/CLASS`` and ``out/test/CLASS``.

    A part that has more photos of a class than asked for gets some of them, one that has fewer gets all, and some of
    them again. Which these are depends on their names and the seed alone. Files are linked where the disk allows it.

    Args:
        source: a folder with train, val and test, each with a subfolder for each class; or with subfolders for
            classes, whose photos are first dealt to the parts: to each as many as it asks for, the smallest first, or
            an equal share of what is left.
        out: made anew.
        sizes: photos of each class by part.
        maps: people's maps of the photos, which go to ``out/maps`` for those to train on; photos without one are
            not trained on.
        seed: another seed gives other photos.

    Returns:
        By part and class: how many photos there are, and how many different ones.

    Raises:
        CamlucidaError: the folder ``out`` holds something, a part has no photo of a class, or classes differ.

    Example:
        >>> camlucida.data.balance.balance("no-such-folder", "iris")
        Traceback (most recent call last):
        camlucida.common.errors.ImageError: ...
    """
    target = Path(out)
    if target.exists() and any(target.iterdir()):
        raise CamlucidaError(f"{str(target)!r} holds something already; name a new folder (--out)")
    parts = _parts(Path(source), sizes, seed)
    known: dict[Path, Path | None] = {}
    if maps is not None:
        root = Path(source) / "train" if (Path(source) / "train").is_dir() else Path(source)
        own = Path(maps) / "train" if (Path(maps) / "train").is_dir() else Path(maps)
        found = salient_folder(root, own, skip_missing=True)
        known = {photo.path: photo.map_path for photo in found.photos}
        parts["train"] = {
            name: [path for path in paths if path in known]
            for name, paths in parts["train"].items()
        }
    for part, classes in parts.items():
        if empty := [name for name, paths in classes.items() if not paths]:
            why = " that has a map" if maps is not None and part == "train" else ""
            raise CamlucidaError(f"the part {part} has no photo of class {empty[0]!r}{why}")
    found_counts: dict[str, dict[str, tuple[int, int]]] = {}
    for part, classes in parts.items():
        for name, paths in classes.items():
            drawn = _resampled(paths, sizes[part], f"{seed} {part}")
            found_counts.setdefault(part, {})[name] = (len(drawn), len({*drawn}))
            times: dict[str, int] = {}
            for path in drawn:
                stem = path.stem
                if path.parent.name != name:  # two folders of a class may have photos of one name
                    stem += f"-{digest([str(path)])[:8]}"
                stem = _unused(stem, times)
                _link(path, target / part / name / f"{stem}{path.suffix}")
                if part == "train" and (marked := known.get(path)):
                    _link(marked, target / "maps" / name / f"{stem}{marked.suffix}")
    return found_counts


def _parts(source: Path, sizes: Mapping[str, int], seed: int) -> dict[str, dict[str, list[Path]]]:
    """The photos of each part by class."""
    if (source / "train").is_dir():
        if lacking := [part for part in sizes if not (source / part).is_dir()]:
            raise ImageError(f"{str(source)!r} has no folder {', '.join(lacking)} beside train")
        found = {part: _by_class(source / part) for part in sizes}
        names = set(found["train"])
        for part, classes in found.items():
            if set(classes) != names:
                odd = ", ".join(sorted(set(classes) ^ names)[:3])
                raise CamlucidaError(f"{part} and train have other classes: {odd}")
        return found
    dealt: dict[str, dict[str, list[Path]]] = {part: {} for part in sizes}
    for name, paths in _by_class(source).items():
        if len(paths) < len(sizes):
            raise CamlucidaError(
                f"class {name!r} has {len(paths)} photos, too few for {', '.join(sizes)}; each needs one of its own"
            )
        order = _shuffled(paths, f"{seed} deal")
        # The smallest part first: it gets what it asks for, or an equal share of what is left.
        for i, part in enumerate(sorted(sizes, key=lambda part: sizes[part])):
            share = min(sizes[part], len(order) // (len(sizes) - i))
            dealt[part][name], order = order[:share], order[share:]
    return dealt


def _by_class(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path, name in zip(*class_photos(root), strict=True):
        found.setdefault(name, []).append(path)
    return found


def _shuffled(paths: Sequence[Path], seed: str) -> list[Path]:
    return sorted(
        paths, key=lambda p: hashlib.sha256(f"{seed} {p.parent.name}/{p.name}".encode()).hexdigest()
    )


def _resampled(paths: Sequence[Path], size: int, seed: str) -> list[Path]:
    order = _shuffled(paths, seed)
    return [order[i % len(order)] for i in range(size)]


def _unused(stem: str, times: dict[str, int]) -> str:
    """A stem that no other file has, whatever its case and suffix; a map is found by it."""
    found = stem
    while found.casefold() in times:
        times[stem.casefold()] += 1
        found = f"{stem}~{times[stem.casefold()]}"
    times[found.casefold()] = 1
    return found


def _link(file: Path, place: Path) -> None:
    with writable(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), place)
        except FileExistsError:  # a copy would write into the file that is linked there
            raise
        except OSError:
            shutil.copyfile(file, place)
