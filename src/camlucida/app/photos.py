"""The photos and results that a page holds, in the memory of this process and nowhere else."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from camlucida.app.errors import GoneError
from camlucida.common.errors import ImageError
from camlucida.common.printable import name_of
from camlucida.data import DataSet, picture, picture_names, read_image
from camlucida.data.samples import Box, Sample
from camlucida.faces import demo_photos

T = TypeVar("T")

MOST_BYTES = 32 * 2**20
"""Of a file that is uploaded."""
MOST_PIXELS = 40_000_000
"""Of a photo that is uploaded."""
_KEPT_BYTES = 2**29
_NAME = 120  # letters of a file's name that are kept


@dataclass(frozen=True)
class Photo:
    """A photo of the page.

    Attributes:
        key: what the page calls it.
        name: for people.
        picture: 8-bit RGB.
        path: the file on this machine, of photos that were not uploaded.
        boxes: where the object is, in pixels of the photo; empty where that is not known.
        label: its class, where the data set says it.
        label_name: what the data set calls that class.
        mask: the exact mask of the object, where there is one.
    """

    key: str
    name: str
    picture: Image.Image = field(repr=False)
    path: Path | None = None
    boxes: tuple[Box, ...] = ()
    label: int | None = None
    label_name: str = ""
    mask: npt.NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self.picture.width * self.picture.height * 3


class Kept(Generic[T]):
    """The newest things, by keys that nobody can guess; the oldest go when there are too many.

    Args:
        most: what they may weigh together.
        weight: of one of them.
    """

    def __init__(self, most: float, weight: Callable[[T], float] = lambda _: 1) -> None:
        self._most = most
        self._weight = weight
        self._all: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, thing: T, key: str | None = None) -> str:
        """Keep a thing; its key."""
        key = key or secrets.token_urlsafe(12)
        with self._lock:
            self._all[key] = thing
            total = sum(map(self._weight, self._all.values()))
            while total > self._most and len(self._all) > 1:
                total -= self._weight(self._all.popitem(last=False)[1])
        return key

    def get(self, key: str) -> T | None:
        """The thing, which is then among the newest; ``None`` where it is not kept."""
        with self._lock:
            if key in self._all:
                self._all.move_to_end(key)
            return self._all.get(key)


class Album:
    """All photos that the page can show: uploads, the samples of the package, and a data set's.

    Args:
        data: the data set, where there is one.
    """

    def __init__(self, data: DataSet | None = None) -> None:
        self.data = data
        self._read: Kept[Photo] = Kept(_KEPT_BYTES, lambda photo: photo.bytes)

    def upload(self, content: bytes, name: str) -> Photo:
        """A photo from the bytes of its file, which are written to a temporary file while they are read.

        Raises:
            ImageError: they are no photo, or too large.
        """
        shown = name_of(name.replace("\0", "").replace("\\", "/"))[-_NAME:] or "photo"
        with tempfile.TemporaryDirectory(prefix="camlucida-") as folder:
            path = Path(folder, "upload")
            path.write_bytes(content)
            try:
                read = read_image(path, max_pixels=MOST_PIXELS)
            except ImageError as error:
                raise ImageError(str(error).replace(repr(str(path)), repr(shown))) from None
        key = "upload-" + secrets.token_urlsafe(12)
        photo = Photo(key, shown, read)
        self._read.add(photo, key)
        return photo

    def __getitem__(self, key: str) -> Photo:
        """The photo of a key.

        Raises:
            GoneError: there is none.
            ImageError: it cannot be read.
        """
        if (known := self._read.get(key)) is not None:
            return known
        photo = self._open(key)
        self._read.add(photo, key)
        return photo

    def _open(self, key: str) -> Photo:
        kind, _, name = key.partition(":")
        if kind == "sample" and name in picture_names():
            found = picture(name)
            return Photo(key, f"{name}.jpg", read_image(found.path), found.path)
        if kind == "face":
            for one in demo_photos():
                if one.path.name == name:
                    return Photo(key, name, read_image(one.path), one.path)
        number = int(name) if name.isdecimal() and len(name) < 10 else None
        if kind == "data" and number is not None and number < len(self.data or ()):
            return self._of_sample(key, self.data[number])  # type: ignore[index]
        raise GoneError(
            "this photo is not kept any more; drop it on the page again"
            if kind.startswith("upload-")
            else "there is no such photo"
        )

    def _of_sample(self, key: str, sample: Sample) -> Photo:
        """The photo of a data set's sample."""
        name = name_of(sample.key)[-_NAME:]
        return Photo(
            key,
            name,
            sample.picture(),
            sample.path,
            sample.boxes,
            sample.label,
            sample.label_name,
            sample.mask(),
        )
