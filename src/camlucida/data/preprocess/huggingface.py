"""The numbers of a transformers image processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import ModelError
from camlucida.data.preprocess.values import channel_order, interpolation

if TYPE_CHECKING:
    from camlucida.data.preprocess.base import Preprocess

_SHORTER_SIDE = (
    "CLIP", "ChineseCLIP", "Siglip", "ConvNext", "Levit", "PoolFormer", "MobileNet", "MobileViT",
    "Bit", "TextNet",
)  # fmt: skip
"""Classes that read a size given as one number as the shorter side's; the others as both sides'."""


def huggingface_values(processor: Any) -> dict[str, Any]:
    """What `Preprocess` takes, from an image processor; see `Preprocess.from_huggingface`."""
    stored = isinstance(processor, Mapping)
    given: Mapping[str, Any] = processor if stored else processor.to_dict()
    kind = _kind(processor)
    # a file may leave out what its class switches on; a processor itself has every step it does
    config: dict[str, Any] = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), stored)
    if kind.startswith("MobileViT"):
        config["do_normalize"] = False  # it stores a mean and std, and has no such step
    config |= {name: value for name, value in given.items() if value is not None}
    if kind and isinstance(config.get("size"), int) and not kind.startswith(_SHORTER_SIDE):
        config["size"] = (config["size"], config["size"])
    resize, size = _geometry(config, kind)
    mean, std = _colours(config, kind)
    flipped = bool(config.get("do_flip_channel_order"))
    return {
        "size": size,
        "resize": resize,
        "crop": resize is None or resize != size,
        "interpolation": interpolation(config.get("resample", 2)),
        "mean": mean,
        "std": std,
        "channels": "bgr" if flipped else channel_order(len(mean)),
        "offset": "down",
    }


def _kind(processor: Any) -> str:
    """The processor's class; a file names it in one of two ways, or (empty) not at all."""
    if not isinstance(processor, Mapping):
        return type(processor).__name__
    named = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    return str(named or "")


def _geometry(
    config: Mapping[str, Any], kind: str
) -> tuple[int | tuple[int, int] | None, tuple[int, int]]:
    """Resize and model size of an image processor's configuration."""
    name = kind or "the image processor"
    crop = _size(config.get("crop_size")) if config.get("do_center_crop") else None
    if not config["do_resize"]:
        if crop is None:
            raise ModelError(f"{name} neither resizes nor crops: its input has no fixed size")
        return None, _square(crop)
    size = _size(config.get("size"))
    if kind.startswith("ConvNext") and isinstance(size, int):
        if size >= 384:
            return (size, size), _square(crop or size)
        return int(size / (config.get("crop_pct") or 224 / 256)), _square(crop or size)
    if kind.startswith("Levit") and isinstance(size, int):
        size = int(256 / 224 * size)
    if kind.startswith("PoolFormer"):
        share = config.get("crop_pct") or 0.9
        size = int((size if isinstance(size, int) else min(size)) / share)
    if crop is not None:
        return size, _square(crop)
    if isinstance(size, int):
        raise ModelError(
            f"{name} resizes the shorter side to {size} and does not crop: its input has no fixed "
            "size; give a Preprocess of your own"
        )
    return size, size


def check_same(preprocess: Preprocess, processor: Any) -> None:
    """Try a processor on a smooth test picture.

    Raises:
        ModelError: It fails, or makes something else of the picture than the preprocess does.
    """
    kind = _kind(processor)
    height, width = 260, 300
    ramp = np.empty((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 250, width)
    ramp[..., 1] = np.linspace(0, 250, height)[:, None]
    ramp[..., 2] = 60
    image = Image.fromarray(ramp)
    try:
        made = processor(image)["pixel_values"][0]
        theirs = (
            made if isinstance(made, Tensor) else torch.as_tensor(np.array(made), device="cpu")
        ).float()
    except Exception as error:
        raise ModelError(f"{kind} fails on a plain RGB photo: {error!r}"[:300]) from error
    ours = preprocess(image)
    if ours.shape != theirs.shape:
        raise ModelError(
            f"{kind} makes a tensor of shape {tuple(theirs.shape)}, where its settings say "
            f"{tuple(ours.shape)}; give a Preprocess of your own"
        )
    distance = (preprocess.denormalise(ours - theirs) - preprocess.denormalise(ours * 0)).abs()
    if float(distance.mean()) > 2 / 255:  # its torchvision backend is up to a level or two away
        raise ModelError(
            f"{kind} follows rules that are not known here (its result is "
            f"{float(distance.mean()) * 255:.0f} grey levels away); give a Preprocess of your own"
        )


def _square(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _size(size: Any) -> int | tuple[int, int]:
    """An int for the shorter side, or (height, width)."""
    if isinstance(size, int):
        return size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    try:
        stored = dict(size or {})
    except (TypeError, ValueError):
        stored = {}
    given = {name: value for name, value in stored.items() if value is not None}
    if set(given) == {"shortest_edge"}:
        return int(given["shortest_edge"])
    if set(given) == {"height", "width"}:
        return int(given["height"]), int(given["width"])
    raise ModelError(
        f"the image processor's size {given or size} is not supported; expected shortest_edge, or height "
        "and width; give a Preprocess of your own"
    )


def _channels(value: Any) -> tuple[float, ...]:
    """One number per channel; a single one is every channel's."""
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))


def _colours(config: Mapping[str, Any], kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std in units of [0, 1] pixels, whatever the processor's own scale is."""
    factor = config.get("rescale_factor", 1 / 255) if config["do_rescale"] else 1.0
    scale = 255 * factor  # the processor's value of a white pixel, before mean and std
    shift = 1.0 if config.get("rescale_offset") else 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    own_std = _channels(config.get("image_std", std))
    if config["do_normalize"]:
        mean, std = _channels(config.get("image_mean", mean)), own_std
    if kind.startswith("EfficientNet") and config.get("include_top"):
        # it divides by std a second time
        std = tuple(a * b for a, b in zip(std, own_std, strict=True))
    return (
        tuple((value + shift) / scale for value in mean),
        tuple(value / scale for value in std),
    )
