"""Which photos were meant, and what their results are called."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from camlucida.cli.shared.console import complain, shown
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.printable import slug

_LONGEST = 120  # bytes of a name: room for a method and its options within the usual 255


def collect(given: Iterable[Path], out: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The photos of files and folders, each once, in the order given.

    Results of an earlier run that lie inside a folder are not photos.

    Args:
        given: Files and folders.
        out: Where results go.

    Returns:
        The photos, and what was given but cannot be used, with the reason.

    Raises:
        CamlucidaError: A photo lies in the out folder itself, where a result could replace it.
    """
    from camlucida.data import find_images
    from camlucida.data.images import skipped_kinds

    photos: dict[Path, Path] = {}
    failed: list[tuple[Path, str]] = []
    home = real(out)
    for path in given:
        found: Sequence[Path] = [path]
        try:
            folder = path.is_dir()
        except OSError as error:  # such as a name that is too long
            failed.append((path, f"'{shown(path)}' cannot be read: {error.strerror}"))
            continue
        if folder:
            for said in skipped_kinds(path):
                complain(f"note: '{shown(path)}': {said}")
            try:
                found = find_images(path)
            except ImageError as error:
                failed.append((path, str(error)))
                continue
            if not real(path).is_relative_to(home):
                found = [p for p in found if not real(p).is_relative_to(home)]
                if not found:
                    failed.append((path, f"no image in {str(path)!r} but results in {str(out)!r}"))
        for photo in found:
            photos.setdefault(real(photo), photo)
    for place, photo in photos.items():
        if real(photo.parent) == home or place.parent == home:
            raise CamlucidaError(
                f"{str(photo)!r} lies in the folder for the results; choose another one with --out"
            )
    return list(photos.values()), failed


def real(path: Path) -> Path:
    """The absolute path without links; a link that points to itself stays."""
    return Path(os.path.realpath(path))


def exact(photo: Path) -> str:
    """The absolute path of a photo as records hold it, which no other photo shares.

    Where a terminal cannot show the name as it is, a part of its SHA-256 follows.
    """
    place = real(photo)
    text, raw = shown(place), os.fsencode(place)
    if os.fsencode(text) == raw:
        return text
    return f"{text} (sha256 {hashlib.sha256(raw).hexdigest()[:16]})"


class Names:
    """Names for results, one for each photo or pair of photos, from the photos' own.

    Two photos never share one: where ``cat`` is taken, ``a/cat.jpg`` becomes ``a-cat``, and after that
    ``a-cat-2``. A name is also taken when the out folder holds the record of another photo under it, or the same
    photo's by another model, beside which it becomes ``cat-MODEL``.

    Args:
        out: The folder of the results.
        model: The name of the model that explains the photos.
        kind: The command's own ending of its names, such as ``.cells``.
    """

    def __init__(self, out: Path, model: str, kind: str = "") -> None:
        self._out = out
        self._model = model
        self._kind = kind
        self._taken: set[str] = set()

    def take(self, *photos: Path) -> str:
        """A name that no other photo or pair has, with the kind at its end."""
        places = [real(photo) for photo in photos]
        for name in self._candidates(photos, places):
            # Some file systems take names for equal that differ in case only.
            if name.casefold() not in self._taken and self._of(name, places) in (None, self._model):
                self._taken.add(name.casefold())
                return name + self._kind
        raise CamlucidaError(f"no name is left for {str(photos[0])!r} in {str(self._out)!r}")

    def held(self, photo: Path, facts: Mapping[str, Any]) -> Path | None:
        """The record of a photo that the out folder holds with these facts, all its files beside it.

        Args:
            photo: Whose.
            facts: Entries of the record; where one is another, the photo is not done.
        """
        places = [real(photo)]
        for name in self._candidates([photo], places):
            model = self._of(name, places)
            if model is None:
                return None
            if model != self._model:
                continue
            file = self._out / f"{name}{self._kind}.json"
            record = json.loads(file.read_text(encoding="utf-8"))
            if any(record.get(key) != value for key, value in facts.items()):
                return None
            written = [record["files"], *(method["files"] for method in record["methods"])]
            if not all(Path(one).exists() for files in written for one in files.values()):
                return None
            self._taken.add(name.casefold())
            return file
        return None

    def _candidates(self, photos: Sequence[Path], places: Sequence[Path]) -> Iterator[str]:
        from camlucida.data.place import Place

        stem = _file_name("-".join(Place.of(photo).name for photo in photos))
        parts = ((Place.of(place).name, Place.of(place).file.parent.name) for place in places)
        longer = _file_name("-".join(f"{folder}-{name}" for name, folder in parts))
        numbered = (f"{longer}-{n}" for n in range(2, 1_000_000))
        second = [_file_name(f"{stem}-{slug(self._model)}")] if self._of(stem, places) else []
        return chain([stem, *second, longer], numbered)

    def _of(self, name: str, places: Sequence[Path]) -> str | None:
        """The model by which a record holds these photos; empty where it holds others, ``None`` where there is none."""
        try:
            record = json.loads(
                (self._out / f"{name}{self._kind}.json").read_text(encoding="utf-8")
            )
            model = str(record.get("model") or record.get("embedder") or self._model)
            if "path" in record:
                return model if record["path"] in {None, exact(places[0])} else ""
            sources = [record[side]["source"] for side in ("probe", "gallery")]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # nobody's, or no record
        return model if [real(Path(source or "")) for source in sources] == [*places] else ""


def _file_name(stem: str) -> str:
    """A stem without what file systems or terminals choke on, and not too long."""
    name = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "-" for c in shown(stem))
    encoded = name.encode()
    if len(encoded) <= _LONGEST:
        return name or "photo"
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: _LONGEST - 9].decode('utf-8', 'ignore')}-{digest}"
