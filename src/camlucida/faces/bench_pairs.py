"""Pairs as a benchmark takes them: each makes its faces when its turn comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from camlucida.common.errors import CamlucidaError
from camlucida.faces.align import Crop
from camlucida.faces.embedder import Embedder
from camlucida.faces.pair_side import Which, face_photo
from camlucida.faces.pairs_file import PairList


@dataclass(frozen=True, eq=False)
class BenchPair:
    """A pair of a benchmark.

    Attributes:
        key: what it is called in results.
        same: whether both faces are of one person.
        person: who is on the probe; whole people are resampled. Empty where nobody says.
        load: makes the aligned probe and gallery faces.
    """

    key: str
    same: bool
    person: str
    load: Callable[[], tuple[Crop, Crop]]


def listed_pairs(
    embedder: Embedder,
    pairs: PairList,
    *,
    face: Which = "largest",
    already_aligned: bool = False,
) -> tuple[BenchPair, ...]:
    """The pairs of a list of files, each photo searched for its face when its turn comes.

    Args:
        embedder: says how faces are aligned.
        pairs: as ``read_pairs`` returns them; those that do not say whether they show one person are left out.
        face: which of several faces.
        already_aligned: the photos are aligned crops.

    Raises:
        CamlucidaError: no pair says whether it shows one person.
    """
    recent: dict[Path, Crop] = {}

    def crop(path: Path) -> Crop:
        if path not in recent:
            if len(recent) > 512:
                recent.pop(next(iter(recent)))
            found = face_photo(embedder, path, face=face, already_aligned=already_aligned)
            recent[path] = found.crop
        return recent[path]

    made = [
        BenchPair(
            f"{pair.probe.name} - {pair.gallery.name}",
            pair.same,
            pair.person,
            lambda pair=pair: (crop(pair.probe), crop(pair.gallery)),  # type: ignore[misc]
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
