"""What a preprocess may hold, and how the libraries' own words for it are read."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

from PIL import Image

from camlucida.common.errors import ModelError

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels: TypeAlias = Literal["rgb", "bgr", "gray"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def channel_order(count: int) -> Channels:
    """Grey for one channel, RGB for three."""
    if count not in {1, 3}:
        raise ModelError(f"preprocess: {count} input channels, but only 1 and 3 are supported")
    return "gray" if count == 1 else "rgb"


def per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """Mean or std for that many channels: the average where a colour model was made grey."""
    given = tuple(float(value) for value in values)
    if channels == 1:
        return (sum(given) / len(given),)
    return given * channels if len(given) == 1 else given


def interpolation(value: Any) -> Interpolation:
    """From a name, a PIL number, or torchvision's enumeration."""
    text = getattr(value, "value", value)  # InterpolationMode.BICUBIC.value == "bicubic"
    if isinstance(text, int):
        try:
            text = Image.Resampling(text).name
        except ValueError:
            text = f"number {text}"
    text = str(text).lower().removesuffix("-exact")
    if text not in RESAMPLING:
        raise ModelError(
            f"preprocess: interpolation {text!r} is not supported; "
            f"use one of {', '.join(RESAMPLING)}"
        )
    return cast("Interpolation", text)
