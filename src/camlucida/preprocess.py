"""How a photo becomes the tensor a model receives; the numbers travel with the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.errors import ImageError, ModelError

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels: TypeAlias = Literal["rgb", "bgr", "gray"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_RESIZED = 200_000_000  # pixels; a photo of 1 x 100 000 resized to a shorter side of 256


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the tensor the model receives; it travels with the model.

    A photo is resized, cropped about its centre, scaled to [0, 1] and normalised. The numbers are
    those of torchvision's and timm's evaluation transforms on PIL images, to rounding.

    Attributes:
        size: Height and width of the model input, in pixels.
        resize: An int resizes the shorter side to it and keeps the aspect ratio; a pair resizes to
            exactly this height and width (see `cover`); None leaves the photo as it is.
        crop: Whether to crop to `size` about the centre after the resize. A photo that is smaller
            is padded with black. Without it the resize must end at `size`.
        interpolation: Filter of the resize; all but "nearest" are anti-aliased.
        mean: Mean per model channel, in units where pixels are in [0, 1].
        std: Standard deviation per model channel, in the same units; never zero.
        channels: Order of the model's channels: "rgb", "bgr" or one channel, "gray".
        cover: With a pair in `resize`: keep the aspect ratio, and just cover that height and width.
        offset: Where the crop starts when the spare pixels are odd: "even" rounds half to the even
            pixel, as torchvision does; "down" rounds down, as transformers does.

    Raises:
        ModelError: A value is out of range, or the values do not fit each other.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    crop: bool = True
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: Channels = "rgb"
    cover: bool = False
    offset: Literal["even", "down"] = "even"

    def __post_init__(self) -> None:
        put = object.__setattr__  # frozen: lists from JSON become tuples here, and only here
        put(self, "size", _pair("size", self.size))
        if self.resize is not None and not isinstance(self.resize, int):
            put(self, "resize", _pair("resize", self.resize))
        put(self, "mean", tuple(float(value) for value in self.mean))
        put(self, "std", tuple(float(value) for value in self.std))
        self._check()

    def _check(self) -> None:
        for name, value, allowed in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("channels", self.channels, get_args(Channels)),
            ("offset", self.offset, ("even", "down")),
        ):
            if value not in allowed:
                raise ModelError(
                    f"preprocess: {name} is {value!r}, but must be one of {', '.join(allowed)}"
                )
        if isinstance(self.resize, int) and self.resize < 1:
            raise ModelError(f"preprocess: resize is {self.resize}, but must be at least 1 pixel")
        count = 1 if self.channels == "gray" else 3
        if len(self.mean) != count or len(self.std) != count:
            raise ModelError(
                f"preprocess: {self.channels} needs {count} values in mean and in std, but got "
                f"{len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in self.mean + self.std) or min(self.std) <= 0:
            raise ModelError(
                f"preprocess: mean {self.mean} and std {self.std} must be finite, and std positive"
            )
        if self.cover and not isinstance(self.resize, tuple):
            raise ModelError("preprocess: cover needs resize to be a pair (height, width)")
        if not self.crop and self.resize is not None and (self.resize != self.size or self.cover):
            raise ModelError(
                f"preprocess: without a crop, resize must be the model's size {self.size}, "
                f"but it is {self.resize}"
            )

    # ---- from a photo to a tensor -------------------------------------------------------------

    def pixels(self, image: Image.Image) -> Tensor:
        """The part of the photo that the model sees, before mean and std.

        Args:
            image: An RGB photo, as `camlucida.data.images.read_image` returns it.

        Returns:
            A float32 tensor `(C, H, W)` in [0, 1], in the model's channel order, on the CPU.

        Raises:
            ImageError: The photo is not RGB, is far too elongated to resize, or (without resize
                and crop) does not have the model's size.
        """
        if image.mode != "RGB":
            raise ImageError(
                f"preprocess needs an RGB photo, but got mode {image.mode}; "
                "read it with camlucida.data.images.read_image"
            )
        height, width = self._resized(*image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        if self.crop:
            left, top = self._corner(width, height)
            image = image.crop((left, top, left + self.size[1], top + self.size[0]))
        elif (height, width) != self.size:
            raise ImageError(
                f"the photo is {height} x {width} pixels (height x width), but this model takes "
                f"exactly {self.size[0]} x {self.size[1]}; resize it, or set resize or crop"
            )
        if self.channels == "gray":
            image = image.convert("L")
        array = np.array(image, dtype=np.uint8).reshape(*self.size, -1)
        if self.channels == "bgr":
            array = array[:, :, ::-1].copy()
        return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div(255)

    def __call__(self, image: Image.Image) -> Tensor:
        """The photo as the model receives it.

        Args:
            image: An RGB photo, as `camlucida.data.images.read_image` returns it.

        Returns:
            A float32 tensor `(C, H, W)`, normalised, on the CPU.

        Raises:
            ImageError: As `pixels` does.
        """
        return self.normalise(self.pixels(image))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels to model input: `(pixels - mean) / std`; differentiable.

        Args:
            pixels: Floating point, `(..., C, H, W)`, in [0, 1], in the model's channel order.

        Returns:
            A new tensor of the same shape, type and device.

        Raises:
            ImageError: The tensor has another number of channels, or is not floating point.
        """
        mean, std = self._constants(pixels)
        return (pixels - mean) / std

    def denormalise(self, inputs: Tensor) -> Tensor:
        """Model input to pixels: `inputs * std + mean`; the inverse of `normalise`, differentiable.

        Args:
            inputs: Floating point, `(..., C, H, W)`, as the model receives it.

        Returns:
            A new tensor of the same shape, type and device, in [0, 1] for inputs that come from a
            photo (nothing is clamped), in the model's channel order.

        Raises:
            ImageError: The tensor has another number of channels, or is not floating point.
        """
        mean, std = self._constants(inputs)
        return inputs * std + mean

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What the model sees of a photo, in the photo's own pixels.

        Args:
            width: Width of the photo, in pixels.
            height: Height of the photo, in pixels.

        Returns:
            `(left, top, right, bottom)`. It lies partly outside the photo where the model sees
            black padding.

        Raises:
            ImageError: A side is less than 1 pixel, or the photo is far too elongated to resize.
        """
        if min(width, height) < 1:
            raise ImageError(f"a photo of {width} x {height} pixels has no content")
        resized_height, resized_width = self._resized(width, height)
        if not self.crop:
            return (0.0, 0.0, float(width), float(height))
        left, top = self._corner(resized_width, resized_height)
        across, down = width / resized_width, height / resized_height
        right, bottom = left + self.size[1], top + self.size[0]
        return (left * across, top * down, right * across, bottom * down)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Height and width after the resize."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            if not self.cover:
                return self.resize
            ratio = min(height / self.resize[0], width / self.resize[1])
            result = (round(height / ratio), round(width / ratio))
        elif width <= height:
            result = (int(self.resize * height / width), self.resize)
        else:
            result = (self.resize, int(self.resize * width / height))
        if result[0] * result[1] > _MAX_RESIZED:
            raise ImageError(
                f"a photo of {width} x {height} pixels is too elongated: resized for this model it "
                f"would have {result[1]} x {result[0]} pixels; crop it first"
            )
        return result

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the crop in a resized photo; negative where it is padded."""
        return self._start(width, self.size[1]), self._start(height, self.size[0])

    def _start(self, length: int, wanted: int) -> int:
        if wanted > length:
            return -((wanted - length) // 2)
        spare = length - wanted
        return round(spare / 2) if self.offset == "even" else spare // 2

    def _constants(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std, `(C, 1, 1)`, of the type and on the device of `values`."""
        count = len(self.mean)
        if values.ndim < 3 or values.shape[-3] != count or not values.is_floating_point():
            raise ImageError(
                f"expected a floating-point tensor (..., {count}, height, width), "
                f"but got {values.dtype} of shape {tuple(values.shape)}"
            )
        mean = torch.tensor(self.mean, dtype=values.dtype, device=values.device)
        std = torch.tensor(self.std, dtype=values.dtype, device=values.device)
        return mean[:, None, None], std[:, None, None]

    # ---- where the numbers come from ----------------------------------------------------------

    @classmethod
    def imagenet(cls, size: int = 224, resize: int = 256) -> Preprocess:
        """The usual ImageNet evaluation: shorter side to `resize`, centre crop, ImageNet colours.

        Args:
            size: Side of the square model input, in pixels.
            resize: Length of the photo's shorter side before the crop, in pixels.

        Returns:
            The preprocess, bilinear.
        """
        return cls(size=(size, size), resize=resize)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocess:
        """The numbers of timm's evaluation transform.

        Args:
            config: A timm `pretrained_cfg`: `input_size`, `crop_pct`, `crop_mode`, `interpolation`,
                `mean`, `std`; what is missing takes timm's default.

        Returns:
            The preprocess that gives the same tensor as `timm.data.create_transform`.

        Raises:
            ModelError: The crop mode is "border" or unknown, or a value is out of range.
        """
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
        return cls(
            size=(height, width),
            resize=resize[0] if square else resize,
            interpolation=_interpolation(config.get("interpolation") or "bicubic"),
            mean=_per_channel(config.get("mean") or IMAGENET_MEAN, channels),
            std=_per_channel(config.get("std") or IMAGENET_STD, channels),
            channels=_channels(channels),
            cover=mode == "center" and not square,
        )

    @classmethod
    def from_torchvision(cls, transforms: Any) -> Preprocess:
        """The numbers of a torchvision preset.

        Args:
            transforms: What `weights.transforms()` returns for a classification model.

        Returns:
            The preprocess that gives the same tensor for a PIL image.

        Raises:
            ModelError: The object is not a classification preset.
        """
        needed = ("crop_size", "resize_size", "mean", "std", "interpolation")
        missing = [name for name in needed if not hasattr(transforms, name)]
        if missing:
            raise ModelError(
                f"{type(transforms).__name__} has no {', '.join(missing)}; expected the object "
                "that weights.transforms() returns for a torchvision classifier"
            )
        crop, resize = list(transforms.crop_size), list(transforms.resize_size)
        return cls(
            size=(crop[0], crop[-1]),
            resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
            interpolation=_interpolation(transforms.interpolation),
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        )

    @classmethod
    def from_huggingface(cls, processor: Any) -> Preprocess:
        """The numbers of a transformers image processor.

        Args:
            processor: An image processor, or the content of its `preprocessor_config.json`. The
                rules of ConvNeXt, LeViT, PoolFormer, EfficientNet and MobileViT are known too. A
                processor is tried on a test picture, so that an unknown rule does not slip through.

        Returns:
            The preprocess that gives the same tensor as the processor on its PIL backend; its
            torchvision backend resizes tensors, and is up to a grey level or two away.

        Raises:
            ModelError: The processor does something that this class cannot express.
        """
        stored = isinstance(processor, Mapping)
        given: Mapping[str, Any] = processor if stored else processor.to_dict()
        kind = str(given.get("image_processor_type") or type(processor).__name__)
        # a file may leave out what its class switches on; a processor itself has every step it does
        config: dict[str, Any] = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), stored)
        if kind.startswith("MobileViT"):
            config["do_normalize"] = False  # it stores a mean and std, and has no such step
        config |= {name: value for name, value in given.items() if value is not None}
        resize, size = _huggingface_geometry(config, kind)
        mean, std = _huggingface_colours(config, kind)
        flipped = bool(config.get("do_flip_channel_order"))
        preprocess = cls(
            size=size,
            resize=resize,
            crop=resize is None or resize != size,
            interpolation=_interpolation(config.get("resample", 2)),
            mean=mean,
            std=std,
            channels="bgr" if flipped else _channels(len(mean)),
            offset="down",
        )
        if not stored:
            _check_same(preprocess, processor, kind)
        return preprocess

    # ---- JSON ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All values as a dictionary of numbers, strings and lists, ready for JSON."""
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`.

        Args:
            values: At least `size` and `resize`; the rest takes its default.

        Returns:
            The preprocess.

        Raises:
            ModelError: A name is unknown or missing, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(values) - known), sorted({"size", "resize"} - set(values))
        if unknown or missing:
            raise ModelError(
                f"preprocess: unknown {unknown}, missing {missing}; known are {sorted(known)}"
            )
        return cls(**values)


def _pair(name: str, value: Any) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in value)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ModelError(
            f"preprocess: {name} is {value!r}, but must be (height, width) in pixels, at least 1"
        )
    return height, width


def _channels(count: int) -> Channels:
    if count not in {1, 3}:
        raise ModelError(f"preprocess: {count} input channels, but only 1 and 3 are supported")
    return "gray" if count == 1 else "rgb"


def _per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """Mean or std for that many channels: the average where a colour model was made grey."""
    given = tuple(float(value) for value in values)
    if channels == 1:
        return (sum(given) / len(given),)
    return given * channels if len(given) == 1 else given


def _interpolation(value: Any) -> Interpolation:
    """From a name, a PIL number, or torchvision's enumeration."""
    text = getattr(value, "value", value)  # InterpolationMode.BICUBIC.value == "bicubic"
    if isinstance(text, int):
        try:
            text = Image.Resampling(text).name
        except ValueError:
            text = f"number {text}"
    text = str(text).lower().removesuffix("-exact")
    if text not in _RESAMPLING:
        raise ModelError(
            f"preprocess: interpolation {text!r} is not supported; "
            f"use one of {', '.join(_RESAMPLING)}"
        )
    return cast("Interpolation", text)


def _huggingface_geometry(
    config: Mapping[str, Any], kind: str
) -> tuple[int | tuple[int, int] | None, tuple[int, int]]:
    """Resize and model size of an image processor's configuration."""
    crop = _huggingface_size(config.get("crop_size")) if config.get("do_center_crop") else None
    if not config["do_resize"]:
        if crop is None:
            raise ModelError(f"{kind} neither resizes nor crops: its input has no fixed size")
        return None, _square(crop)
    size = _huggingface_size(config.get("size"))
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
            f"{kind} resizes the shorter side to {size} and does not crop: its input has no fixed "
            "size; give a Preprocess of your own"
        )
    return size, size


def _check_same(preprocess: Preprocess, processor: Any, kind: str) -> None:
    """Raise if a processor makes something else of a smooth test picture."""
    height, width = 260, 300
    ramp = np.empty((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 250, width)
    ramp[..., 1] = np.linspace(0, 250, height)[:, None]
    ramp[..., 2] = 60
    image = Image.fromarray(ramp)
    try:
        made = processor(image)["pixel_values"][0]
        theirs = (made if isinstance(made, Tensor) else torch.tensor(np.array(made))).float()
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


def _huggingface_size(size: Any) -> int | tuple[int, int]:
    """An int for the shorter side, or (height, width)."""
    if isinstance(size, int):
        return size
    given = {name: value for name, value in dict(size or {}).items() if value is not None}
    if set(given) == {"shortest_edge"}:
        return int(given["shortest_edge"])
    if set(given) == {"height", "width"}:
        return int(given["height"]), int(given["width"])
    raise ModelError(
        f"the image processor's size {given} is not supported; expected shortest_edge, or height "
        "and width; give a Preprocess of your own"
    )


def _huggingface_colours(
    config: Mapping[str, Any], kind: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std in units of [0, 1] pixels, whatever the processor's own scale is."""
    factor = config.get("rescale_factor", 1 / 255) if config["do_rescale"] else 1.0
    scale = 255 * factor  # the processor's value of a white pixel, before mean and std
    shift = 1.0 if config.get("rescale_offset") else 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    own_std = tuple(float(value) for value in config.get("image_std") or std)
    if config["do_normalize"]:
        mean, std = tuple(float(v) for v in config.get("image_mean") or mean), own_std
    if kind.startswith("EfficientNet") and config.get("include_top"):
        # it divides by std a second time
        std = tuple(a * b for a, b in zip(std, own_std, strict=True))
    return (
        tuple((value + shift) / scale for value in mean),
        tuple(value / scale for value in std),
    )
