"""The numbers of timm's and torchvision's evaluation transforms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from camlucida.common.errors import ModelError
from camlucida.data.preprocess.values import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    channel_order,
    interpolation,
    per_channel,
)


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
