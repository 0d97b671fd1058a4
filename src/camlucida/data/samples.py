"""What a data set is: labelled photos, with boxes and masks where they are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from camlucida.common.jsonable import digest
from camlucida.data.images import read_image

Box: TypeAlias = tuple[float, float, float, float]
"""``(xmin, ymin, xmax, ymax)`` in pixels of the upright photo; the right and lower edges are exclusive."""

Skipped: TypeAlias = tuple[Path, str]
"""What could not be used, and why."""


@dataclass(frozen=True)
class Sample:
    """One photo of a data set; nothing is decoded before it is asked for.

    Attributes:
        key: its name in the data set, unique and the same on every machine, such as ``"n01440764/a.JPEG"``.
        label: the model's class of the photo, or ``None`` where it is not known.
        label_name: what the data set calls that class; empty where it has no name.
        path: its file, also as text; ``None`` for photos that do not lie in files.
        boxes: where the object is, in pixels of the upright photo; empty where that is not known.

    Example:
        >>> sample = camlucida.data.Sample("photo.jpg", label=3, path=photo)
        >>> sample.picture().size
        (64, 48)
    """

    key: str
    label: int | None = None
    label_name: str = ""
    path: Path | None = None
    boxes: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        """A path may come as text."""
        if self.path is not None:
            object.__setattr__(self, "path", Path(self.path))

    @property
    def file(self) -> Path:
        """Its file; only of photos that lie in one."""
        assert self.path is not None  # noqa: S101 - samples without a file say themselves how they are read
        return self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from; empty where it does not lie in files of its own."""
        return () if self.path is None else (self.path,)

    def picture(self) -> Image.Image:
        """The upright RGB photo.

        Raises:
            ImageError: it cannot be read.
        """
        return read_image(self.file)

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Where the object is, exactly: ``(height, width)`` of the upright photo; ``None`` where not known.

        Raises:
            ImageError: it cannot be read, or has another size than the photo.
        """
        return None


class DataSet(ABC, Sequence[Sample]):
    """Samples in a fixed order, which is the same on every machine that opens the data set.

    Attributes:
        name: what it is called in tables and records.
        skipped: what could not be used, with the reason; photos are not decoded to find out.

    Example:
        >>> data = camlucida.data.open_data(".")
        >>> isinstance(data, camlucida.data.DataSet), len(data), data[0].key
        (True, 1, 'photo.jpg')
    """

    name: str
    skipped: tuple[Skipped, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample at a position ``0 <= index < len``."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        """One sample, or those of a slice."""
        if isinstance(index, slice):
            return [self.sample(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.sample(index % len(self))

    def fingerprint(self) -> str:
        """A hash of all keys, labels and boxes, not of the pixels: the same data set gives the same hash."""
        return digest([s.key, s.label, [list(map(float, b)) for b in s.boxes]] for s in self)

    def describe(self) -> dict[str, Any]:
        """Name, size and fingerprint, ready for JSON."""
        return {"name": self.name, "samples": len(self), "fingerprint": self.fingerprint()}


class SampleList(DataSet):
    """A data set whose samples are all in memory.

    Args:
        name: what it is called in tables and records.
        samples: in their order; every key once.
        skipped: what could not be used, with the reason.

    Example:
        >>> data = camlucida.data.SampleList("mine", [camlucida.data.Sample("photo.jpg", 3, path=photo)])
        >>> data.describe()["samples"]
        1
    """

    def __init__(
        self, name: str, samples: Sequence[Sample], skipped: Sequence[Skipped] = ()
    ) -> None:
        self.name = name
        self.skipped = tuple(skipped)
        self._samples = tuple(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int) -> Sample:
        """The sample at a position."""
        return self._samples[index]
