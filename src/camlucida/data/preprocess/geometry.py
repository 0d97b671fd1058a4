"""Where a photo's pixels go when it is resized and cropped."""

from __future__ import annotations

from typing import Literal

from camlucida.common.errors import ImageError

Size = tuple[int, int]
"""(height, width) in pixels."""

_MAX_RESIZED = 200_000_000  # pixels; a photo of 1 x 100 000 resized to a shorter side of 256


def resized(photo: Size, resize: int | Size | None, *, cover: bool = False) -> Size:
    """Height and width of a photo after the resize.

    Args:
        photo: Its height and width.
        resize: The length of the shorter side, a height and width, or None for no resize.
        cover: Whether a height and width keep the aspect ratio and are just covered, as in timm.

    Raises:
        ImageError: The photo is so elongated that the result would fill the memory.
    """
    height, width = photo
    if resize is None:
        return photo
    if isinstance(resize, tuple):
        if not cover:
            return resize
        ratio = min(height / resize[0], width / resize[1])
        result = (round(height / ratio), round(width / ratio))
    elif width <= height:
        result = (int(resize * height / width), resize)
    else:
        result = (resize, int(resize * width / height))
    if result[0] * result[1] > _MAX_RESIZED:
        raise ImageError(
            f"a photo of {width} x {height} pixels is too elongated: resized for this model it "
            f"would have {result[1]} x {result[0]} pixels; crop it first"
        )
    return result


def corner(photo: Size, crop: Size, offset: Literal["even", "down"]) -> tuple[int, int]:
    """Top and left of a crop about the centre; negative where the photo is padded.

    Args:
        photo: Height and width of the resized photo.
        crop: Height and width of the crop.
        offset: How half a pixel is rounded, see `Preprocess.offset`.
    """
    return _start(photo[0], crop[0], offset), _start(photo[1], crop[1], offset)


def _start(length: int, wanted: int, offset: Literal["even", "down"]) -> int:
    if wanted > length:
        return -((wanted - length) // 2)
    spare = length - wanted
    return round(spare / 2) if offset == "even" else spare // 2
