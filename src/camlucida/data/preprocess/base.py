"""How a photo becomes the tensor a model receives; the numbers travel with the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import ImageError, ModelError
from camlucida.common.limits import check_fields
from camlucida.common.seeds import ImageGenerators
from camlucida.data.preprocess.huggingface import check_same, huggingface_values
from camlucida.data.preprocess.values import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RESAMPLING,
    Channels,
    Interpolation,
    timm_values,
    torchvision_values,
)

_BY_SIZE: Any = "by size"
_MOST_STD = 4


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the tensor the model receives; it travels with the model.

    A photo is resized, cropped about its centre, scaled to [0, 1] and normalised. The numbers are
    those of torchvision's and timm's evaluation transforms on PIL images, to rounding.

    Attributes:
        size: Height and width of the model input, in pixels; an int for a square, 224 by default.
        resize: An int resizes the shorter side to it and keeps the aspect ratio; a pair resizes to
            exactly this height and width (see `cover`); None leaves the photo as it is. By default
            8/7 of the size (256 for 224) before a crop of a square, else the size itself.
        crop: Whether to crop to `size` about the centre after the resize. A photo that is smaller
            is padded with black. Without it the resize must end at `size`.
        interpolation: Filter of the resize; all but "nearest" are anti-aliased.
        mean: Mean per model channel, in units where pixels are in [0, 1].
        std: Standard deviation per model channel, in the same units; never zero.
        channels: Order of the model's channels: "rgb", "bgr" or one channel, "gray".
        cover: Whether a pair in `resize` keeps the aspect ratio and just covers that height and width.
        offset: Where the crop starts when the spare pixels are odd: "even" rounds half to the even
            pixel, as torchvision does; "down" rounds down, as transformers does.

    Raises:
        ModelError: A value is out of range, or the values do not fit each other.

    Example:
        >>> camlucida.Preprocess(size=192).resize
        219
        >>> camlucida.Preprocess.imagenet()(camlucida.data.read_image(photo)).shape
        torch.Size([3, 224, 224])
    """

    size: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] | None = _BY_SIZE
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
        if self.resize == _BY_SIZE:
            square = self.crop and self.size[0] == self.size[1]
            put(self, "resize", self.size[0] * 8 // 7 if square else self.size)
        if self.resize is not None and not isinstance(self.resize, int):
            put(self, "resize", _pair("resize", self.resize))
        put(self, "mean", _numbers("mean", self.mean))
        put(self, "std", _numbers("std", self.std))
        self._check()

    def _check(self) -> None:
        try:
            check_fields(self, ModelError)
        except ModelError as error:
            raise ModelError(f"preprocess: {error}") from None
        if isinstance(self.resize, int) and self.resize < 1:
            raise ModelError(f"preprocess: resize is {self.resize}, but must be at least 1 pixel")
        if self.size[0] * self.size[1] > _MAX_INPUT:
            raise ModelError(
                f"preprocess: size is {self.size[0]} x {self.size[1]}, more than the {_MAX_INPUT:,} pixels that an "
                "input may have"
            )
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
        if max(self.mean) > 1 or max(self.std) > _MOST_STD:
            scaled = [tuple(round(v / 255, 4) for v in values) for values in (self.mean, self.std)]
            raise ModelError(
                f"preprocess: mean {self.mean} and std {self.std} look like those of pixels in 0 to 255, but pixels "
                f"here are in [0, 1]; divided by 255 they are {scaled[0]} and {scaled[1]}"
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
            image = image.resize((width, height), RESAMPLING[self.interpolation])
        if self.crop:
            top, left = corner((height, width), self.size, self.offset)
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

    def jittered(self, inputs: Tensor, generator: ImageGenerators) -> Tensor:
        """Model inputs `(N, C, H, W)` that nobody tells apart: each value moved at random within one grey level, 1/255.

        Args:
            inputs: As the model receives them.
            generator: The random stream of each image.
        """
        _, std = self._constants(inputs)
        return inputs + (2 * generator.rand(inputs.shape[1:], inputs) - 1) / 255 / std

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
        top, left = corner((resized_height, resized_width), self.size, self.offset)
        across, down = width / resized_width, height / resized_height
        right, bottom = left + self.size[1], top + self.size[0]
        return (left * across, top * down, right * across, bottom * down)

    def shown(self, image: Image.Image, made: Tensor) -> tuple[float, float, float, float]:  # noqa: ARG002
        """What an input shows of the photo that it was made of, as `crop_box` says it.

        Args:
            image: The photo.
            made: What this preprocess made of it.

        Raises:
            ImageError: It cannot be told.
        """
        return self.crop_box(*image.size)

    def mask(self, image: Image.Image) -> Tensor:
        """A mask of a photo in the pixels of the input, by nearest neighbours: boolean `(H, W)`.

        Args:
            image: RGB, as large as the photo, white where the object is and black elsewhere.
        """
        geometry = replace(self, interpolation="nearest", channels="gray", mean=(0,), std=(1,))
        return geometry.pixels(image)[0] > 0

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Height and width after the resize."""
        return resized((height, width), self.resize, cover=self.cover)

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
        return cls(**timm_values(config))

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
        return cls(**torchvision_values(transforms))

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
        preprocess = cls(**huggingface_values(processor))
        if not isinstance(processor, Mapping):
            check_same(preprocess, processor)
        return preprocess

    def changed(self, **values: Any) -> Preprocess:
        """The same with other values; what follows from the size follows the new one.

        Args:
            **values: Any attribute. A new `size` scales `resize` with it; one number as `mean` or `std` is every
                channel's.

        Raises:
            ModelError: A name is unknown, or a value is out of range.

        Example:
            >>> camlucida.Preprocess().changed(size=112, mean=0.5).resize
            128
        """
        known = {f.name for f in fields(Preprocess)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"preprocess: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        if values.get("crop") is False:
            values.setdefault("resize", _pair("size", values.get("size", self.size)))
        if "size" in values:
            size = _pair("size", values["size"])
            across, down = (new / old for new, old in zip(size, self.size, strict=True))
            if isinstance(self.resize, int):
                values.setdefault("resize", round(self.resize * across))
            elif self.resize is not None:
                values.setdefault(
                    "resize", (round(self.resize[0] * across), round(self.resize[1] * down))
                )
        count = 1 if values.get("channels", self.channels) == "gray" else 3
        for name in ("mean", "std"):
            if isinstance(value := values.get(name), int | float):
                values[name] = (float(value),) * count
        return replace(self, **values)

    @property
    def words(self) -> str:
        """What is done to a photo, in one line."""
        size = "{} x {}".format(*self.size)
        if self.resize is None:
            how = f"{size} cut from the centre" if self.crop else f"photos of exactly {size}"
        elif self.crop and self.resize != self.size:
            side = self.resize if isinstance(self.resize, int) else "{} x {}".format(*self.resize)
            how = f"{size} cut from the centre of {side}, {self.interpolation}"
        else:
            how = f"resized to {size}, {self.interpolation}"
        mean, std = (" ".join(f"{v:.4g}" for v in values) for values in (self.mean, self.std))
        return f"{how}; {self.channels}, mean {mean}, std {std}"

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
    if isinstance(value, int):
        value = (value, value)
    try:
        height, width = (int(side) for side in value)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ModelError(
            f"preprocess: {name} is {value!r}, but must be (height, width) in pixels, at least 1"
        )
    return height, width


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        raise ModelError(
            f"preprocess: {name} is {value!r}, but must be one number per channel"
        ) from None


# ---- where a photo's pixels go ------------------------------------------------------------------

Size = tuple[int, int]
"""(height, width) in pixels."""

_MAX_INPUT = 50_000_000  # pixels; one layer of 64 channels then takes 13 GB
_MAX_RESIZED = 200_000_000  # pixels; a photo of 1 x 100 000 resized to a shorter side of 256


def resized(photo: Size, resize: int | Size | None, *, cover: bool = False) -> Size:
    """Height and width of a photo after the resize; one that would then fill the memory is refused."""
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
    """Top and left of a crop about the centre of a resized photo; negative where the photo is padded."""
    return _start(photo[0], crop[0], offset), _start(photo[1], crop[1], offset)


def _start(length: int, wanted: int, offset: Literal["even", "down"]) -> int:
    if wanted > length:
        return -((wanted - length) // 2)
    spare = length - wanted
    return round(spare / 2) if offset == "even" else spare // 2
