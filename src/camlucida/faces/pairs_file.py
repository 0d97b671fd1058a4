"""Lists of face pairs in the layouts of LFW, CFP, AR and SCface, and as a table of one's own."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import check_regular, is_there, read_text
from camlucida.common.grammar import split as split_text
from camlucida.data.images import find_images

ListLayout: TypeAlias = Literal["auto", "csv", "lfw", "cfp-fp", "cfp-ff", "ar", "scface"]
Wear: TypeAlias = Literal["glass", "scarf", "neutral"]
Distance: TypeAlias = Literal["far", "medium", "close"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".JPEG", ".PNG", ".BMP")
_SAME = {
    **dict.fromkeys(("1", "true", "yes", "same", "genuine"), True),
    **dict.fromkeys(("0", "false", "no", "different", "impostor"), False),
}


@dataclass(frozen=True)
class FacePair:
    """Two photos, and whether they show one person.

    Attributes:
        probe: the photo that is tested, and altered by the Delete and Insert protocol.
        gallery: the photo that it is compared with.
        same: whether both show the same person; ``None`` where nobody says.
        fold: the data set's fold, from 1; 0 where it has none.
        person: who is on the probe, where the list says; pairs of a person are resampled together.
    """

    probe: Path
    gallery: Path
    same: bool | None
    fold: int = 0
    person: str = ""


@dataclass(frozen=True)
class PairList:
    r"""Pairs, and where they come from.

    Attributes:
        pairs: in the order of the list.
        layout: ``"csv"``, ``"lfw"``, ``"cfp-fp"``, ``"cfp-ff"``, ``"ar"`` or ``"scface"``.
        source: the file or folder.
        skipped: what could not be used, in words.
        probes: of AR and SCface, which photos are probes.

    Example:
        >>> written = open("pairs.csv", "w").write("probe,gallery,same\na.png,b.png,1\n")
        >>> camlucida.faces.read_pairs("pairs.csv").genuine
        1
    """

    pairs: tuple[FacePair, ...]
    layout: str
    source: Path
    skipped: tuple[str, ...] = field(default=())
    probes: str = ""

    @property
    def data(self) -> str:
        """The layout and which of its photos are probes, such as ``"ar-glass"``."""
        return "-".join(filter(None, (self.layout, self.probes)))

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def genuine(self) -> int:
        """Number of pairs that show the same person."""
        return sum(pair.same is True for pair in self.pairs)

    @property
    def impostor(self) -> int:
        """Number of pairs that show different people."""
        return sum(pair.same is False for pair in self.pairs)


def read_pairs(
    source: str | os.PathLike[str],
    layout: str = "auto",
    *,
    root: str | os.PathLike[str] | None = None,
    split: int | None = None,
    wear: Wear = "glass",
    distance: Distance = "medium",
    seed: int = 0,
) -> PairList:
    r"""Read a list of pairs, or make the list of a data set that has none.

    Args:
        source: a table ``.csv`` (columns ``probe, gallery`` and, where known, ``same``; paths relative to it),
            LFW's ``pairs.txt``, or the folder of CFP (with ``Protocol``), AR or SCface.
        layout: recognised by itself (``"auto"``, default), or given: ``"csv"``, ``"lfw"``, ``"cfp-fp"``,
            ``"cfp-ff"``, ``"ar"`` or ``"scface"``, also with its option, as in ``"scface:distance=far"``.
        root: the folder of LFW's photos, ``NAME/NAME_0001.jpg``; by default the first of the list's own folder,
            ``lfw`` in it and folders called ``lfw*`` in it that holds the first pair. For a table, what its
            paths are relative to.
        split: one fold of LFW or CFP, from 1; all by default.
        wear: of AR, the probes: dark glasses (default), scarfs, or the neutral photos of the second session.
        distance: of SCface, the probes' cameras: ``"far"`` (4.2 m), ``"medium"`` (2.6 m, default) or
            ``"close"`` (1 m).
        seed: draws the impostors of AR and SCface, one for each genuine pair.

    Returns:
        The pairs. For CFP the probe is the second photo of a pair, which is the profile in ``"cfp-fp"``. For
        AR the gallery is a person's first neutral photo, for SCface the frontal mug shot.

    Raises:
        CamlucidaError: nothing is recognised, a row is malformed, or no pair is left; the text names the
            file and the row.

    Example:
        >>> written = open("pairs.csv", "w").write("probe,gallery,same\na.png,b.png,1\na.png,c.png,0\n")
        >>> [pair.same for pair in camlucida.faces.read_pairs("pairs.csv").pairs]
        [True, False]
    """
    path = Path(source)
    named, options = split_text(layout)
    if wrong := [key for key in options if key != {"ar": "wear", "scface": "distance"}.get(named)]:
        raise CamlucidaError(
            f"layout {named!r} has no option {wrong[0]!r}; there are ar:wear=glass|scarf|neutral and "
            "scface:distance=far|medium|close"
        )
    if not is_there(path):
        raise CamlucidaError(f"there is no list of pairs at '{path}'")
    if named not in get_args(ListLayout):
        known = ", ".join(get_args(ListLayout))
        raise CamlucidaError(f"unknown layout {named!r} of a list of pairs; known: {known}")
    kind = _recognise(path) if named == "auto" else named
    probes = {"ar": options.get("wear", wear), "scface": options.get("distance", distance)}
    base = None if root is None else Path(root)
    skipped: list[str] = []
    if kind == "csv":
        pairs = _csv(path, base)
    elif kind == "lfw":
        pairs = _lfw(path, base, skipped)
    elif kind in {"cfp-fp", "cfp-ff"}:
        pairs = _cfp(path, kind[-2:].upper(), skipped)
    elif kind == "ar":
        pairs = _ar(path, probes[kind], seed)
    else:
        pairs = _scface(path, probes[kind], seed)
    if split is not None:
        folds = sorted({pair.fold for pair in pairs})
        pairs = [pair for pair in pairs if pair.fold == split]
        if not pairs:
            raise CamlucidaError(f"'{path}' has no split {split}; it has {folds}")
    if not pairs:
        reason = f": {skipped[0]}" if skipped else ""
        raise CamlucidaError(f"'{path}' holds no usable pair{reason}")
    return PairList(tuple(pairs), kind, path, tuple(skipped), probes.get(kind, ""))


def _recognise(path: Path) -> str:
    if path.is_file():
        return "csv" if path.suffix.lower() == ".csv" else "lfw"
    if (path / "Protocol").is_dir():
        return "cfp-fp"
    names = [file.stem for file in _pictures(path)]
    counts = {
        kind: sum(pattern.fullmatch(name) is not None for name in names)
        for kind, pattern in (("ar", _AR), ("scface", _SCFACE))
    }
    best = max(counts, key=lambda kind: counts[kind])
    if counts[best] == 0:
        if (path / "pairs.txt").is_file():
            raise CamlucidaError(f"give the list itself, '{path / 'pairs.txt'}', not its folder")
        raise CamlucidaError(
            f"'{path}' is no known list of pairs: neither a .csv with probe,gallery,same, nor LFW's pairs.txt, "
            "nor a folder of CFP (with Protocol), AR (m-001-01.bmp) or SCface (001_cam1_1.jpg)"
        )
    return best


def _pictures(folder: Path) -> list[Path]:
    with suppress(ImageError):
        return list(find_images(folder))
    return []


# ------------------------------------------------------------------------------------------------ a table


def _csv(path: Path, root: Path | None) -> list[FacePair]:
    base = path.parent if root is None else root
    pairs = []
    check_regular(path, "table of pairs")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = [name.strip().lower() for name in table.fieldnames or ()]
            if not {"probe", "gallery"} <= set(columns):
                raise CamlucidaError(
                    f"'{path}': the first line must name the columns probe, gallery and (where known) same, it "
                    f"names {', '.join(columns) or 'nothing'}"
                )
            table.fieldnames = columns
            for row in table:
                where = f"'{path}', line {table.line_num}"
                probe, gallery, same, person = (
                    (row.get(name) or "").strip() for name in ("probe", "gallery", "same", "person")
                )
                if not probe or not gallery:
                    raise CamlucidaError(f"{where}: expected a probe and a gallery photo")
                if same and same.lower() not in _SAME:
                    raise CamlucidaError(f"{where}: same must be 1 or 0 (or empty), got {same!r}")
                known = _SAME.get(same.lower())
                pairs.append(FacePair(base / probe, base / gallery, known, person=person))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CamlucidaError(f"'{path}' is no readable table: {error}") from error
    except OSError as error:
        raise CamlucidaError(f"cannot read '{path}': {error.strerror or error}") from error
    return pairs


# ---------------------------------------------------------------------------------------------------- LFW


def _lfw(path: Path, root: Path | None, skipped: list[str]) -> list[FacePair]:
    lines = _lines(path)
    head = lines[0][1].split() if lines else []
    numbers = [int(word) for word in head if word.isdecimal()]
    if not head or len(head) > 2 or len(numbers) < len(head) or min(numbers) < 1:
        raise CamlucidaError(
            f"'{path}' is not LFW's list: its first line must be the numbers of folds and of pairs, such as "
            "'10 300' (or one number); a table of your own must be called .csv"
        )
    per_fold = 2 * numbers[-1]
    base: Path | None = root
    pairs: list[FacePair] = []
    expected = "'NAME n m' or 'NAME n NAME m', with the numbers of two photos"
    rows = _parsed(path, r"(.+?)\s+(\d+)\s+(?:(.+?)\s+)?(\d+)", expected, lines[1:])
    for index, (where, row) in enumerate(rows):
        stems = [
            f"{name}/{name}_{int(n):04d}"
            for name, n in ((row[1], row[2]), (row[3] or row[1], row[4]))
        ]
        if base is None:
            base = _lfw_root(path, stems[0])
        found = [_with_suffix(base / stem) for stem in stems]
        if found[0] is None or found[1] is None:
            skipped.append(f"{where}: no photo {base / stems[found.index(None)]}.jpg")
            continue
        fold = index // per_fold + 1 if len(head) == 2 else 0
        pairs.append(FacePair(found[0], found[1], row[3] is None, fold, row[1]))
    return pairs


def _lfw_root(path: Path, stem: str) -> Path:
    near = [path.parent, path.parent / "lfw", *sorted(path.parent.glob("lfw*"))]
    return next((f for f in near if _with_suffix(f / stem) is not None), path.parent)


def _with_suffix(stem: Path) -> Path | None:
    files = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    text = read_text(path, "list of pairs")
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _parsed(
    path: Path, pattern: str, expected: str, lines: list[tuple[int, str]] | None = None
) -> Iterator[tuple[str, re.Match[str]]]:
    """What is read of each line, and how an error about it begins."""
    for number, line in _lines(path) if lines is None else lines:
        where = f"'{path}', line {number}"
        found = re.fullmatch(pattern, line.strip())
        if found is None:
            raise CamlucidaError(f"{where}: expected {expected}, got {line.strip()!r}")
        yield where, found


# ---------------------------------------------------------------------------------------------------- CFP


def _cfp(path: Path, kind: str, skipped: list[str]) -> list[FacePair]:
    protocol = path / "Protocol"
    frontal = _cfp_photos(protocol / "Pair_list_F.txt")
    other = _cfp_photos(protocol / "Pair_list_P.txt") if kind == "FP" else frontal
    folder = protocol / "Split" / kind
    splits = sorted(f for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []
    if not splits:
        raise CamlucidaError(f"'{folder}' holds no splits; expected '{folder / '01' / 'same.txt'}'")
    pairs = []
    for (fold, split), same in product(enumerate(splits, 1), (True, False)):
        file = split / ("same.txt" if same else "diff.txt")
        if not file.is_file():
            raise CamlucidaError(f"'{split}' has no {file.name}")
        for where, row in _parsed(file, r"(\d+)\s*,\s*(\d+)", "two numbers 'i,j'"):
            gallery, probe = frontal.get(int(row[1])), other.get(int(row[2]))
            if gallery is None or probe is None:
                raise CamlucidaError(f"{where}: photo {row[0]} is not in the photo lists")
            missing = next((f for f in (gallery, probe) if not f.is_file()), None)
            if missing is not None:
                skipped.append(f"{where}: no photo {missing}")
                continue
            pairs.append(FacePair(probe, gallery, same, fold, probe.parent.parent.name))
    return pairs


def _cfp_photos(path: Path) -> dict[int, Path]:
    """Numbers and files of a photo list, ``1 ../Data/Images/001/frontal/01.jpg``."""
    if not path.is_file():
        raise CamlucidaError(f"CFP's photo list '{path}' is missing")
    # Relative to the list, whose ".." is the data set's folder also where Protocol is a link.
    return {
        int(row[1]): path.parent.parent / re.sub(r"^(\.\./)+", "", row[2].replace("\\", "/"))
        for _, row in _parsed(path, r"(\d+)\s+(.+)", "'number file'")
    }


# ------------------------------------------------------------------------------------------ AR and SCface

_AR = re.compile(r"([mw]-?\d{3})-(\d{1,2})", re.IGNORECASE)
_AR_WEAR: dict[str, tuple[int, ...]] = {
    "glass": (8, 9, 10, 21, 22, 23),
    "scarf": (11, 12, 13, 24, 25, 26),
    "neutral": (14,),
}
_SCFACE = re.compile(r"(\d{3})_(frontal|cam[1-5]_([123]))", re.IGNORECASE)
_SCFACE_DISTANCE = {"far": "1", "medium": "2", "close": "3"}


def _ar(path: Path, wear: str, seed: int) -> list[FacePair]:
    if wear not in _AR_WEAR:
        raise CamlucidaError(f"wear must be one of {', '.join(_AR_WEAR)}, got {wear!r}")
    named = list(_named(path, _AR))
    gallery = [(found[1], file) for file, found in named if int(found[2]) == 1]
    probes = [(found[1], file) for file, found in named if int(found[2]) in _AR_WEAR[wear]]
    return _balanced(path, probes, gallery, seed, f"{wear} photos", "m-001-01")


def _scface(path: Path, distance: str, seed: int) -> list[FacePair]:
    if distance not in _SCFACE_DISTANCE:
        raise CamlucidaError(
            f"distance must be one of {', '.join(_SCFACE_DISTANCE)}, got {distance!r}"
        )
    named = list(_named(path, _SCFACE))
    gallery = [(found[1], file) for file, found in named if found[3] is None]
    probes = [(f[1], file) for file, f in named if f[3] == _SCFACE_DISTANCE[distance]]
    return _balanced(path, probes, gallery, seed, f"{distance} photos", "001_frontal")


def _named(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str]]]:
    seen: set[str] = set()
    for file in _pictures(folder):
        found = pattern.fullmatch(file.stem.lower())
        if found is not None and found[0] not in seen:
            seen.add(found[0])  # SCface holds its photos twice
            yield file, found


def _balanced(
    path: Path,
    probes: Sequence[tuple[str, Path]],
    references: Sequence[tuple[str, Path]],
    seed: int,
    what: str,
    example: str,
) -> list[FacePair]:
    """For each probe its own gallery photo, and another person's."""
    gallery = dict(reversed(references))  # the first of each person
    usable = [(person, file) for person, file in probes if person in gallery]
    if not usable or len(gallery) < 2:
        raise CamlucidaError(
            f"'{path}' holds {len(probes)} {what} and the gallery photos (such as {example}) of "
            f"{len(gallery)} people; at least one probe with its own and one other gallery photo are needed"
        )
    genuine = [FacePair(file, gallery[person], True, person=person) for person, file in usable]
    pick = impostors([person for person, _ in usable], list(gallery), seed)
    others = [
        FacePair(file, gallery[other], False, person=person)
        for (person, file), other in zip(usable, pick, strict=True)
    ]
    return [*genuine, *others]


def impostors(people: Iterable[str], gallery: Sequence[str], seed: int) -> list[str]:
    """For each person another one of the gallery, drawn evenly."""
    draw = np.random.default_rng(seed)
    known = sorted(gallery)
    chosen = []
    for person in people:
        others = [name for name in known if name != person]
        chosen.append(others[int(draw.integers(len(others)))])
    return chosen
