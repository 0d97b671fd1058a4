"""Pairs as a benchmark takes them, out of a list of files or out of one photo per person, varied.

Each pair makes its faces when its turn comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.data.images import read_image
from camlucida.faces.align import Crop
from camlucida.faces.detect import Face, choose, find_faces
from camlucida.faces.embedder import Embedder
from camlucida.faces.pair_side import WhichFace, face_photo
from camlucida.faces.pairs_file import PairList, impostors
from camlucida.faces.photos import FacePhoto, by_identity, face_photos
from camlucida.faces.variations import VARIATIONS, check_variations, varied_face


@dataclass(frozen=True, eq=False)
class BenchPair:
    """A pair of a benchmark.

    Attributes:
        key: what it is called in results.
        same: whether both faces are of one person.
        person: who is on the probe; whole people are resampled. Empty where nobody says.
        load: makes the aligned probe and gallery faces.
        files: that it reads; a run that goes on looks whether they have changed.

    Example:
        >>> from PIL import Image
        >>> crop = camlucida.faces.aligned(Image.new("RGB", (112, 112)))
        >>> pair = camlucida.faces.BenchPair("ann - ann", True, "ann", lambda: (crop, crop))
    """

    key: str
    same: bool
    person: str
    load: Callable[[], tuple[Crop, Crop]]
    files: tuple[Path, ...] = ()


def listed_pairs(
    embedder: Embedder,
    pairs: PairList,
    *,
    face: WhichFace = "largest",
    aligned: bool = False,
) -> tuple[BenchPair, ...]:
    r"""The pairs of a list of files, each photo searched for its face when its turn comes.

    Args:
        embedder: says how faces are aligned.
        pairs: as ``read_pairs`` returns them; those that do not say whether they show one person are left out.
        face: which one is meant of several faces.
        aligned: the photos are aligned crops.

    Raises:
        CamlucidaError: no pair says whether it shows one person.

    Example:
        >>> _ = open("pairs.csv", "w").write(f"probe,gallery,same\n{photo},{photo},1\n")
        >>> len(camlucida.faces.listed_pairs(embedder, camlucida.faces.read_pairs("pairs.csv")))
        1
    """

    @lru_cache(maxsize=512)
    def crop(path: Path) -> Crop:
        return face_photo(embedder, path, face=face, aligned=aligned).crop

    made = [
        BenchPair(
            f"{pair.probe.name} - {pair.gallery.name}",
            pair.same,
            pair.person,
            lambda pair=pair: (crop(pair.probe), crop(pair.gallery)),  # type: ignore[misc]
            (pair.probe, pair.gallery),
        )
        for pair in pairs.pairs
        if pair.same is not None
    ]
    if not made:
        raise CamlucidaError(
            f"'{pairs.source}' does not say which pairs show one person, which a threshold and an accuracy "
            "need; add the column same"
        )
    return tuple(made)


@dataclass(frozen=True, eq=False)
class VariedPairs:
    """Pairs of varied photos, and what they were made of.

    Attributes:
        pairs: as many impostors as genuine pairs.
        people: the people whose faces were found.
        variations: the variations that were used.
        skipped: photos that could not be used, with the reason.
    """

    pairs: tuple[BenchPair, ...]
    people: tuple[str, ...]
    variations: tuple[str, ...]
    skipped: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "people": len(self.people),
            "pairs": len(self.pairs),
            "variations": list(self.variations),
            "skipped": list(self.skipped),
        }


def varied_pairs(
    embedder: Embedder,
    photos: Sequence[FacePhoto] | str | os.PathLike[str] | None = None,
    *,
    variations: Sequence[str] = VARIATIONS,
    per_person: int = 2,
    people: int | None = None,
    seed: int = 0,
) -> VariedPairs:
    """Make genuine pairs by varying faces, and impostor pairs of different people.

    The gallery face is a person's photo as it is. The probe of a genuine pair is the same face varied; the
    probe of an impostor pair is that very probe, against another person's gallery face. Real pairs differ in
    age, expression and camera too, so that genuine pairs are easier here than in the data sets that the
    variations imitate.

    Args:
        embedder: says how faces are aligned.
        photos: one or more per person, or a folder ``IDENTITY/photo.jpg``; by default those of the package.
            Each person's first photo in which a face is found is used.
        variations: some of ``camlucida.faces.variations.VARIATIONS``; all by default.
        per_person: genuine pairs per person, the variations taken in turn.
        people: use at most that many people.
        seed: the seed of the variations and impostors.

    Raises:
        CamlucidaError: faces of fewer than two people are found, or a variation is unknown.

    Example:
        >>> found = camlucida.faces.varied_pairs(embedder, people=2, per_person=1)
        >>> [pair.same for pair in found.pairs]
        [True, False, True, False]
    """
    check_variations(variations)
    if photos is None or isinstance(photos, str | os.PathLike):
        photos = face_photos(photos)
    found: dict[str, tuple[FacePhoto, Face]] = {}
    skipped = []
    for name, own in by_identity(photos).items():
        for photo in own if people is None or len(found) < people else ():
            try:
                found[name] = (photo, choose(find_faces(photo), "largest"))
                break
            except ImageError as error:
                skipped.append(f"{name}: {error}")
    names = sorted(found)
    if len(names) < 2:
        raise CamlucidaError(
            f"faces of {len(names)} people were found; impostor pairs need at least two. {'; '.join(skipped)}"
        )

    @lru_cache(maxsize=4)
    def opened(name: str) -> Image.Image:
        return read_image(found[name][0])

    def gallery(name: str) -> Crop:
        return found[name][1].crop(opened(name), embedder.align)

    def probe(name: str, kind: str) -> Crop:
        own = seed * 100_003 + names.index(name)
        return varied_face(opened(name), found[name][1], kind, embedder.align, seed=own)[0]

    chosen = [
        (name, variations[(index * per_person + turn) % len(variations)])
        for index, name in enumerate(names)
        for turn in range(per_person)
    ]
    others = impostors([name for name, _ in chosen], names, seed)
    pairs = [
        BenchPair(
            f"{name} {kind} - {against}",
            against == name,
            name,
            lambda n=name, k=kind, a=against: (probe(n, k), gallery(a)),  # type: ignore[misc]
            (found[name][0].path, found[against][0].path),
        )
        for (name, kind), other in zip(chosen, others, strict=True)
        for against in (name, other)
    ]
    return VariedPairs(tuple(pairs), tuple(names), tuple(variations), tuple(skipped))
