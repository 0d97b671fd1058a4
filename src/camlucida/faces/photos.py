"""Photos of people to try face verification on: a few in the package, more from packages one fetches."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from camlucida.common.errors import ImageError
from camlucida.common.files import write_bytes
from camlucida.data.images import find_images

_LARGEST = 20_000_000


@dataclass(frozen=True)
class FacePhoto(os.PathLike[str]):
    """A photo of one person; usable wherever a path is.

    Attributes:
        identity: who it is; photos of the same person share it.
        path: the file.

    Example:
        >>> camlucida.faces.demo_photos()[-1].identity
        'grace-hopper'
    """

    identity: str
    path: Path

    def __fspath__(self) -> str:
        """The path as a string."""
        return str(self.path)


@dataclass(frozen=True)
class Source:
    r"""A package that carries photos of people.

    Attributes:
        archive: how the name of its file begins.
        fetch: the command that fetches it.
        licence: the licence of the package; it names no other for the photos.
        photos: pattern of the paths in it, and the identity, in which ``\1`` is the first group.
        without: identities to leave out: no face is found, it is hardly to be seen, or the person is there
            already.
    """

    archive: str
    fetch: str
    licence: str
    photos: tuple[tuple[str, str], ...]
    without: tuple[str, ...] = ()


SOURCES = (
    Source(
        "tabler-ui-0.0.34",
        "npm pack tabler-ui@0.0.34",
        "MIT",
        (
            (r"package/dist/demo/faces/male/(\d+)\.jpg", r"tabler-m\1"),
            (r"package/dist/demo/faces/female/(\d+)\.jpg", r"tabler-f\1"),
        ),
        (
            *(f"tabler-m{i}" for i in (14, 18, 21, 24, 26, 28, 29, 32, 33, 39, 42)),
            *(f"tabler-f{i}" for i in (11, 17, 18, 25, 27, 30, 31)),
        ),
    ),
    Source(
        "admin-lte-3.2.0",
        "npm pack admin-lte@3.2.0",
        "MIT",
        ((r"package/dist/img/(user[1246])-\d+x\d+\.jpg", r"admin-lte-\1"),),
    ),
    Source(
        "face_recognition-1.3.0",
        "pip download face-recognition==1.3.0 --no-deps --no-binary :all:",
        "MIT",
        (
            (r"[^/]+/tests/test_images/obama\d?\.jpg", "barack-obama"),
            (r"[^/]+/tests/test_images/biden\.jpg", "joe-biden"),
        ),
    ),
    Source(
        "insightface-2.1",
        "pip download insightface==2.1 --no-deps --no-binary :all:",
        "MIT",
        ((r"[^/]+/insightface/data/images/Tom_Hanks_54745\.png", "tom-hanks"),),
    ),
)
"""Packages with photos of people, as tried; the photos themselves are nobody's to pass on but theirs."""


def demo_photos() -> tuple[FacePhoto, ...]:
    """The pictures in the package: two people, each photo a second time mirrored, turned and darker (``ORIGIN.md``).

    Example:
        >>> len(camlucida.faces.demo_photos())
        4
    """
    folder = Path(str(files("camlucida.faces") / "pictures"))
    return tuple(
        FacePhoto(path.stem.rpartition("-")[0], path) for path in sorted(folder.glob("*.jpg"))
    )


def face_photos(folder: str | os.PathLike[str] | None = None) -> tuple[FacePhoto, ...]:
    """Photos of people, each with a name.

    Args:
        folder: with a subfolder for each person, ``IDENTITY/photo.jpg``, or with the packages that the commands
            of :func:`how_to_get` fetch, whose photos are then taken into its subfolder ``people``; by default
            the photos in the package.

    Returns:
        Sorted by identity and name. Photos are not opened, and no face is searched yet.

    Raises:
        ImageError: the folder is missing, holds no photo, or photos that lie in no person's folder only.

    Example:
        >>> people = {photo.identity for photo in camlucida.faces.face_photos()}
        >>> sorted(people)
        ['eileen-collins', 'grace-hopper']
    """
    if folder is None:
        return demo_photos()
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"no such folder of photos: {str(root)!r}")
    if any(_archives(root, source) for source in SOURCES):
        return gather_photos(root, root / "people")
    found = [
        FacePhoto(path.relative_to(root).parts[0], path)
        for path in find_images(root)
        if path.parent != root
    ]
    if not found:
        raise ImageError(
            f"{str(root)!r} has no folder for each person; expected IDENTITY/photo.jpg, such as ann/1.jpg, or "
            f"packages with photos, fetched there with:\n{how_to_get()}"
        )
    return tuple(sorted(found, key=lambda photo: (photo.identity, photo.path)))


def how_to_get() -> str:
    """The commands that fetch the packages with photos, one a line; run them in an empty folder."""
    return "\n".join(source.fetch for source in SOURCES)


def gather_photos(
    archives: str | os.PathLike[str], into: str | os.PathLike[str]
) -> tuple[FacePhoto, ...]:
    """Take the photos of people out of packages that were fetched, and add those of this package.

    Only the files named in :data:`SOURCES` are read; nothing in a package is run.

    Args:
        archives: a folder with the files that the commands of :func:`how_to_get` fetch; those that are
            missing are passed over.
        into: a folder that is made, ``IDENTITY/photo.jpg``; photos that are there stay.

    Returns:
        As :func:`face_photos` finds them in ``into``.

    Raises:
        ImageError: no such folder, none of the packages is in it, or one is damaged.

    Example:
        >>> camlucida.faces.gather_photos(".", "people")
        Traceback (most recent call last):
        camlucida.common.errors.ImageError: none of the packages with photos lies in ...
    """
    folder, root = Path(archives), Path(into)
    if not folder.is_dir():
        raise ImageError(f"no such folder: {str(folder)!r}")
    taken = 0
    for source in SOURCES:
        for path in _archives(folder, source):
            taken += _take(path, source, root)
    if not taken:
        raise ImageError(
            f"none of the packages with photos lies in {str(folder)!r}; fetch them there with:\n{how_to_get()}"
        )
    have = {path.name for path in root.iterdir()}
    for photo in demo_photos():
        if photo.identity not in have:
            _write(root / photo.identity / photo.path.name, photo.path.read_bytes())
    return face_photos(root)


def _archives(folder: Path, source: Source) -> list[Path]:
    return [
        path
        for path in sorted(folder.glob(f"{source.archive}*"))
        if path.is_file() and path.name.endswith((".tgz", ".tar.gz"))
    ]


def _take(path: Path, source: Source, root: Path) -> int:
    count = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                identity = _identity(member.name, source)
                if identity is None or not member.isfile() or member.size > _LARGEST:
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    _write(root / identity / PurePosixPath(member.name).name, stream.read())
                    count += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ImageError(f"{str(path)!r} cannot be read: {error}; fetch it again") from error
    return count


def _identity(name: str, source: Source) -> str | None:
    for pattern, identity in source.photos:
        match = re.fullmatch(pattern, name)
        if match:
            found = match.expand(identity)
            return None if found in source.without else found
    return None


def _write(path: Path, content: bytes) -> None:
    if not path.exists():
        write_bytes(path, content)


def by_identity(photos: Sequence[FacePhoto]) -> dict[str, list[FacePhoto]]:
    """The photos of each person, in their order."""
    found: dict[str, list[FacePhoto]] = {}
    for photo in photos:
        found.setdefault(photo.identity, []).append(photo)
    return found
