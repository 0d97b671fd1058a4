"""Masks from files, and whether they fit their photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camlucida.common.errors import ImageError
from camlucida.data.images import open_picture, upright_size
from camlucida.data.samples import Sample

_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM")


@dataclass(frozen=True)
class MaskedSample(Sample):
    """A photo with a mask in a file: the object is where the mask is not zero.

    Attributes:
        mask_path: a PNG or another lossless picture; ``None`` where there is none.
    """

    mask_path: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Photo and mask."""
        return (*super().files, *(() if self.mask_path is None else (self.mask_path,)))

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Where the mask file is not zero, ``(height, width)``.

        Raises:
            ImageError: it cannot be read, or has another size than the photo.
        """
        if self.mask_path is None:
            return None
        found: npt.NDArray[np.bool_] = read_labels(self.mask_path) != 0
        check_size(found, self.path)
        return found


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """The numbers in a picture of labels: palette indices, or grey values.

    Args:
        path: a PNG, BMP, GIF, TIFF or PNM file. In coloured pictures the brightest channel counts.

    Returns:
        ``(height, width)``.

    Raises:
        ImageError: it cannot be read or is too large.
    """
    expected = "PNG or another lossless picture"
    with open_picture(path, f"the mask {str(path)!r}", _LOSSLESS, expected) as image:
        if image.mode not in {"L", "P", "1"}:
            bright = np.asarray(image.convert("RGB")).max(axis=2)
            return np.asarray(bright, np.uint8)
        return np.asarray(image).astype(np.uint8)


def check_size(mask: npt.NDArray[np.bool_], photo: Path | None) -> None:
    """Compare with the upright photo.

    Raises:
        ImageError: the sizes differ, or the photo cannot be opened.
    """
    if photo is None:
        return
    width, height = upright_size(photo)
    if mask.shape != (height, width):
        raise ImageError(
            f"the mask of {str(photo)!r} has {mask.shape[1]} x {mask.shape[0]} pixels, the photo "
            f"{width} x {height}"
        )
