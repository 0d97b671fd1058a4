"""Masks from files, and whether they fit their photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from camlucida.common.errors import ImageError
from camlucida.data.samples import Sample

_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM")
_MAX_PIXELS = 100_000_000
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width


@dataclass(frozen=True)
class MaskedSample(Sample):
    """A photo with a mask in a file: the object is where the mask is not zero.

    Attributes:
        mask_path: a PNG or another lossless picture; ``None`` where there is none.
    """

    mask_path: Path | None = None

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
    name = f"the mask {str(path)!r}"
    try:
        with Image.open(path, formats=_LOSSLESS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ImageError(  # noqa: TRY301 - it is the picture that is refused
                    f"{name} has {image.width} x {image.height} pixels, which is too many"
                )
            if image.mode not in {"L", "P", "1"}:
                bright = np.asarray(image.convert("RGB")).max(axis=2)
                return np.asarray(bright, np.uint8)
            return np.asarray(image).astype(np.uint8)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        lines = str(error).splitlines() or [type(error).__name__]
        raise ImageError(
            f"{name} cannot be read ({lines[0]}); expected PNG or another lossless picture"
        ) from error


def check_size(mask: npt.NDArray[np.bool_], photo: Path | None) -> None:
    """Compare with the upright photo, of which only the header is read.

    Raises:
        ImageError: the sizes differ, or the photo cannot be opened.
    """
    if photo is None:
        return
    try:
        with Image.open(photo) as image:
            width, height = image.size
            if image.getexif().get(0x0112) in _TURNED:
                width, height = height, width
    except Exception as error:
        raise ImageError(f"{str(photo)!r} cannot be opened as an image") from error
    if mask.shape != (height, width):
        raise ImageError(
            f"the mask of {str(photo)!r} has {mask.shape[1]} x {mask.shape[0]} pixels, the photo "
            f"{width} x {height}"
        )
