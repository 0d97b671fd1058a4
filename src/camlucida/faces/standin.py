"""Pairs for a verification benchmark out of one photo per person: the same face, varied, against others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.data.images import read_image
from camlucida.faces.align import Crop
from camlucida.faces.bench_pairs import BenchPair
from camlucida.faces.detect import Face, choose, find_faces
from camlucida.faces.embedder import Embedder
from camlucida.faces.pairs_file import impostors
from camlucida.faces.photos import FacePhoto, by_identity, face_photos
from camlucida.faces.variations import KINDS, varied_face


@dataclass(frozen=True, eq=False)
class StandIn:
    """The pairs, and what they were made of.

    Attributes:
        pairs: as many impostors as genuine pairs.
        people: whose faces were found.
        variations: that were used.
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


def standin_pairs(
    embedder: Embedder,
    photos: Sequence[FacePhoto] | str | os.PathLike[str] | None = None,
    *,
    variations: Sequence[str] = KINDS,
    per_person: int = 2,
    people: int | None = None,
    seed: int = 0,
) -> StandIn:
    """Make genuine pairs by varying faces, and impostor pairs of different people.

    The gallery face is a person's photo as it is. The probe of a genuine pair is the same face varied; the
    probe of an impostor pair is that very probe, against another person's gallery face. Real pairs differ in
    age, expression and camera too, so that genuine pairs are easier here than in the data sets that the
    variations imitate.

    Args:
        embedder: says how faces are aligned.
        photos: one or more per person, or a folder ``IDENTITY/photo.jpg``; by default those of the package.
            Each person's first photo in which a face is found is used.
        variations: of ``camlucida.faces.variations.KINDS``; all by default.
        per_person: genuine pairs per person, the variations taken in turn.
        people: that many people at most.
        seed: of the variations and impostors.

    Raises:
        CamlucidaError: faces of fewer than two people are found, or a variation is unknown.
    """
    _check(variations)
    if photos is None or isinstance(photos, str | os.PathLike):
        photos = face_photos(photos)
    found, skipped = _faces(photos, people)
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
        photo, face = opened(name), found[name][1]
        own = seed * 100_003 + names.index(name)
        return varied_face(photo, face, kind, embedder.align, seed=own)[0]

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
        )
        for (name, kind), other in zip(chosen, others, strict=True)
        for against in (name, other)
    ]
    return StandIn(tuple(pairs), tuple(names), tuple(variations), tuple(skipped))


def _check(variations: Sequence[str]) -> None:
    unknown = [v for v in variations if any(part not in KINDS for part in v.split("+"))]
    if unknown or not variations:
        what = f"unknown variation {unknown[0]!r}" if unknown else "no variation was given"
        raise CamlucidaError(f"{what}; there are {', '.join(KINDS)}")


def _faces(
    photos: Sequence[FacePhoto], people: int | None
) -> tuple[dict[str, tuple[FacePhoto, Face]], list[str]]:
    """Of each person the first photo in which a face is found, and what could not be used."""
    found: dict[str, tuple[FacePhoto, Face]] = {}
    skipped = []
    for name, own in by_identity(photos).items():
        if people is not None and len(found) >= people:
            break
        for photo in own:
            try:
                found[name] = (photo, choose(find_faces(photo), "largest"))
                break
            except ImageError as error:
                skipped.append(f"{name}: {error}")
    return found, skipped
