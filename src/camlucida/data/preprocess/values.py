"""What a preprocess may hold, and how the words of torchvision, timm and transformers for it are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def timm_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `Preprocess` takes, from a timm `pretrained_cfg`; see `Preprocess.from_timm`."""
    channels, height, width = config.get("input_size") or (3, 224, 224)
    share = config.get("crop_pct") or 0.875
    mode = config.get("crop_mode") or "center"
    if mode not in {"center", "squash"}:
        raise ModelError(
            f"timm's crop_mode {mode!r} is not supported (only center and squash are); "
            "give a Preprocess of your own"
        )
    resize = (math.floor(height / share), math.floor(width / share))
    square = resize[0] == resize[1] and mode == "center"
    return {
        "size": (height, width),
        "resize": resize[0] if square else resize,
        "interpolation": interpolation(config.get("interpolation") or "bicubic"),
        "mean": per_channel(config.get("mean") or IMAGENET_MEAN, channels),
        "std": per_channel(config.get("std") or IMAGENET_STD, channels),
        "channels": channel_order(channels),
        "cover": mode == "center" and not square,
    }


def torchvision_values(transforms: Any) -> dict[str, Any]:
    """What `Preprocess` takes, from a torchvision preset; see `Preprocess.from_torchvision`."""
    needed = ("crop_size", "resize_size", "mean", "std", "interpolation")
    missing = [name for name in needed if not hasattr(transforms, name)]
    if missing:
        raise ModelError(
            f"{type(transforms).__name__} has no {', '.join(missing)}; expected the object "
            "that weights.transforms() returns for a torchvision classifier"
        )
    crop, resize = list(transforms.crop_size), list(transforms.resize_size)
    return {
        "size": (crop[0], crop[-1]),
        "resize": resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        "interpolation": interpolation(transforms.interpolation),
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
    }
