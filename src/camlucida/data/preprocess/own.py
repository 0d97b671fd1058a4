"""Preprocessing of the user's own: any function of a photo, taken as it is.

What it does to colours and where it puts pixels is measured: it is shown plain pictures and ramps, and what comes
out tells mean and standard deviation, the order of the channels, and which part of a photo the model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import ImageError, ModelError
from camlucida.common.optional import first_line
from camlucida.data.preprocess.base import Preprocess

PreprocessLike: TypeAlias = Preprocess | Callable[..., Any]
"""A :class:`Preprocess`, or any function from a PIL image to the model's input."""

_Box: TypeAlias = tuple[float, float, float, float]

_PROBE = (320, 256)  # width and height of the pictures that colours are measured with
_LEVEL = 1 / 255
_RASTER, _ALIKE = 48, 0.5  # cells to a side, and the correlation from which pictures look alike
_BORDER = 2  # pixels at the edges of a picture, where filters of a resize see less of a ramp


def as_preprocess(value: PreprocessLike | None) -> Preprocess | None:
    """A preprocess as it is; a function as an :class:`OwnPreprocess`.

    Args:
        value: a :class:`Preprocess`; a function of a PIL image, such as a transform of torchvision or timm; an
            ``albumentations`` transform; an image processor of transformers; or ``None``.

    Raises:
        ModelError: it is neither, or does not work on a photo.

    Example:
        >>> grey = lambda image: torch.full((3, 32, 32), image.getpixel((0, 0))[0] / 255)
        >>> camlucida.data.preprocess.as_preprocess(grey).size
        (32, 32)
    """
    if value is None or isinstance(value, Preprocess):
        return value
    if not callable(value):
        raise ModelError(
            f"preprocess must be a camlucida.Preprocess or a function of a PIL image, got {type(value).__name__}"
        )
    return OwnPreprocess.measured(value)


@dataclass(frozen=True)
class OwnPreprocess(Preprocess):
    """A function of the user's own, with what was measured of it.

    Attributes:
        size: height and width of what it returns for a photo of 320 x 256 pixels.
        mean: per channel; empty where its colours are no mean and standard deviation per channel.
        std: standard deviation of each channel, for pixels in [0, 1].
        function: from a PIL image to the model's input, a float tensor ``(C, H, W)``.
        random: whether it gives another input each time.
        notes: what a user has to know, one sentence each.
    """

    function: Callable[..., Any] = field(default=lambda image: image, repr=False)
    random: bool = False
    notes: tuple[str, ...] = ()
    _boxes: dict[tuple[int, int], _Box | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def measured(cls, function: Callable[..., Any]) -> OwnPreprocess:
        """Show a function some pictures.

        Raises:
            ModelError: it fails on a photo, or returns no float tensor ``(C, H, W)``.
        """
        try:
            black, grey, white, red = (
                apply(function, Image.new("RGB", _PROBE, colour))
                for colour in ((0, 0, 0), (128, 128, 128), (255, 255, 255), (255, 0, 0))
            )
            ramp = _ramps(_PROBE)[0]
            twice = [apply(function, ramp) for _ in range(2)]
        except ImageError as error:
            raise ModelError(str(error)) from error
        height, width = black.shape[1:]
        notes = []
        random = twice[0].shape != twice[1].shape or not torch.equal(*map(torch.nan_to_num, twice))
        if random:
            notes.append(
                "your preprocessing is random: the same photo gives other inputs each time"
            )
        mean, std = _colours(black, grey, white)
        if not mean:
            notes.append(
                "the colours of your preprocessing are no mean and standard deviation for each channel, so what "
                "works on pixels in [0, 1] is not available"
            )
        channels = "gray" if len(black) == 1 else "rgb"
        if mean and len(red) == 3:
            response = (red - black).abs().amax((1, 2))
            channels = "bgr" if response[2] > response[0] else "rgb"
        return cls(
            size=(int(height), int(width)),
            resize=None,
            mean=mean,
            std=std,
            channels=channels,  # type: ignore[arg-type]
            function=function,
            random=random,
            notes=tuple(notes),
        )

    def _check(self) -> None:
        """Nothing: all was measured."""

    def changed(self, **values: Any) -> Preprocess:
        """Refused: a function is taken as it is."""
        raise ModelError(
            f"{', '.join(values)} cannot be changed in a preprocessing of your own, which is taken as it is"
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """What the function returns for a photo, as a float tensor ``(C, H, W)`` on the CPU."""
        made = apply(self.function, image)
        if not made.isfinite().all():
            raise ImageError("your preprocessing gives NaN or infinite values for this photo")
        return made

    def pixels(self, image: Image.Image) -> Tensor:
        """What the model sees before mean and standard deviation; raises ``ImageError`` where those are unknown."""
        return self.denormalise(self(image))

    def _constants(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if not self.mean:
            raise ImageError(
                "this needs pixels in [0, 1], and the colours of your preprocessing are no mean and standard "
                "deviation for each channel; give a camlucida.Preprocess"
            )
        return super()._constants(values)

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What the model sees of a photo, in the photo's own pixels: measured with ramps of the photo's size.

        Raises:
            ImageError: the function does more than resize, crop and pad, such as turning the photo.
        """
        if self.random:
            raise ImageError(
                "your preprocessing is random, so it cannot be told what the model sees"
            )
        if (width, height) not in self._boxes:
            self._boxes[width, height] = self._measure(width, height)
        found = self._boxes[width, height]
        if found is None:
            raise ImageError(
                "it cannot be told which part of a photo your preprocessing shows to the model: it does more than "
                "resize, crop and pad"
            )
        return found

    def shown(self, image: Image.Image, made: Tensor) -> tuple[float, float, float, float]:
        """What was measured with ramps, if the input also looks like that part of the photo.

        Raises:
            ImageError: it does not, as where the function looks at what is in a photo; or as `crop_box`.
        """
        box = self.crop_box(*image.size)
        if not _alike(image, box, made):
            raise ImageError(
                "it cannot be told which part of a photo your preprocessing shows to the model: what it makes of this "
                "photo lies elsewhere than what it makes of others"
            )
        return box

    def mask(self, image: Image.Image) -> Tensor:
        """A mask of a photo in the pixels of the input, ``(H, W)``, placed by the measured geometry."""
        size = tuple(apply(self.function, image).shape[-1:0:-1])
        box = self.crop_box(*image.size)
        moved = image.convert("L").transform(size, Image.Transform.EXTENT, box)  # type: ignore[arg-type]
        found: Tensor = torch.from_numpy(np.array(moved)) > 0
        return found

    def _measure(self, width: int, height: int) -> _Box | None:
        plain = (Image.new("RGB", (width, height), level) for level in ("black", "white"))
        black, white = (apply(self.function, picture) for picture in plain)
        across, down = (apply(self.function, ramp) for ramp in _ramps((width, height)))
        if not black.shape == white.shape == across.shape == down.shape:
            return None
        extent = (white - black).mean(0)
        seen = extent.abs() > 0.5 * extent.abs().amax()
        scale = torch.where(seen, extent, 1)
        columns = _edges((across - black).mean(0) / scale, seen, width)
        rows = _edges(((down - black).mean(0) / scale).T, seen.T, height)
        return (
            None if columns is None or rows is None else (columns[0], rows[0], columns[1], rows[1])
        )

    @property
    def words(self) -> str:
        """What is known of it, in one line."""
        return f"your own function, to {self.size[0]} x {self.size[1]}"

    def to_dict(self) -> dict[str, Any]:
        """What was measured, and the function's text, ready for JSON."""
        known = ("size", "mean", "std", "channels")
        values = {name: getattr(self, name) for name in known}
        listed = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return {"function": " ".join(repr(self.function).split())[:500], **listed}


def apply(function: Callable[..., Any], image: Image.Image) -> Tensor:
    """A photo through a function of the user's own.

    Args:
        function: of a PIL image, or else of an array ``image=``, as ``albumentations`` has it, or of a PIL image
            ``images=``, as processors of transformers have it.
        image: RGB.

    Returns:
        A float32 tensor ``(C, H, W)`` on the CPU.

    Raises:
        ImageError: the function fails or returns something else.
    """
    made = _called(function, image)
    if isinstance(made, Mapping):
        made = next((made[k] for k in ("pixel_values", "image") if k in made), made)
    if isinstance(made, list | tuple) and len(made) == 1:
        made = made[0]
    if isinstance(made, np.ndarray):
        last = made.ndim == 3 and made.shape[-1] in (1, 3, 4) and made.shape[0] not in (1, 3, 4)
        made = torch.as_tensor(
            np.ascontiguousarray(made.transpose(2, 0, 1) if last else made), device="cpu"
        )
    if isinstance(made, Tensor) and made.ndim == 4 and len(made) == 1:
        made = made[0]
    fits = isinstance(made, Tensor) and made.layout == torch.strided and not made.is_meta
    if (
        not isinstance(made, Tensor)
        or not fits
        or made.ndim != 3
        or not made.is_floating_point()
        or not made.numel()
    ):
        got = f"an object of type {type(made).__name__}"
        if isinstance(made, Tensor):
            kind = "meta" if made.is_meta else str(made.layout).removeprefix("torch.")
            got = f"{made.dtype} of shape {tuple(made.shape)}{'' if fits else f' ({kind})'}"
        raise ImageError(
            f"your preprocessing must return a float tensor (C, H, W), the model's input; it returned {got} (a "
            "transform of torchvision ends with ToTensor(), or ToImage() and ToDtype(torch.float32, scale=True))"
        )
    return made.detach().to("cpu", torch.float32)


def _called(function: Callable[..., Any], image: Image.Image) -> Any:
    """What a function makes of a photo, given in the first of the usual ways that it takes.

    Raises:
        ImageError: it takes none, with what it raised for the first.
    """
    ways: tuple[Callable[[], Any], ...] = (
        lambda: function(image),
        lambda: function(image=np.asarray(image)),  # albumentations
        lambda: function(images=image, return_tensors="pt"),  # transformers
    )
    first: BaseException | None = None
    for way in ways:
        try:
            return way()
        except (Exception, SystemExit) as error:
            first = first or error
    assert first is not None  # noqa: S101
    raise ImageError(
        f"your preprocessing failed on a photo with {type(first).__name__}: {first_line(first)}"
    ) from first


def _ramps(size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Pictures that grow lighter from left to right, and from top to bottom."""
    width, height = size
    across = np.broadcast_to(np.linspace(0, 255, width).round(), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height).round()[:, None], (height, width))
    made = [Image.fromarray(a.astype(np.uint8)).convert("RGB") for a in (across, down)]
    return made[0], made[1]


def _colours(
    black: Tensor, grey: Tensor, white: Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel, in units of pixels in [0, 1]; empty where there are none."""
    if not black.shape == grey.shape == white.shape:
        return (), ()
    middle = tuple(int(side) // 2 for side in black.shape[1:])
    low, mid, high = (t[:, middle[0], middle[1]].double() for t in (black, grey, white))
    scale = high - low
    straight = (mid - low - scale * 128 / 255).abs() <= 1e-3 * scale.abs()
    if not bool((scale.isfinite() & (scale > 0) & straight).all()):
        return (), ()
    mean, std = (-low / scale).tolist(), (1 / scale).tolist()
    return tuple(round(v, 6) + 0.0 for v in mean), tuple(round(v, 6) for v in std)


def _alike(image: Image.Image, box: _Box, made: Tensor) -> bool:
    """Whether an input looks like a part of a photo, and not more like its mirror images.

    Brightness is compared, up to a factor, on a coarse raster of the part that lies in the photo; where that is of
    one colour there is nothing to tell, and nothing to see.
    """
    height, width = (min(_RASTER, int(side)) for side in made.shape[1:])
    left, top, right, bottom = map(round, box)
    seen, inside = (
        np.asarray(
            one.crop((left, top, right, bottom)).resize((width, height), Image.Resampling.BOX),
            np.float64,
        )
        for one in (image.convert("L"), Image.new("L", image.size, 255))
    )
    there = torch.from_numpy(inside > 250)
    wanted = torch.from_numpy(seen)
    given = torch.nn.functional.adaptive_avg_pool2d(made.double(), (height, width))

    if not there.any() or wanted[there].amin() == wanted[there].amax():
        return True

    def likeness(values: Tensor) -> float:
        pairs = (torch.stack([wanted[there], channel[there]]) for channel in values)
        return max(float(torch.corrcoef(pair)[0, 1].abs().nan_to_num()) for pair in pairs)

    own = likeness(given)
    turned = [given.flip(dims) for dims in ((1,), (2,), (1, 2))]
    turned += [one.mT for one in (given, turned[2]) if height == width]
    return own >= _ALIKE and own >= max(map(likeness, turned)) - (1 - _ALIKE) / 5


def _edges(position: Tensor, seen: Tensor, length: int) -> tuple[float, float] | None:
    """From and to where the columns of a picture show a photo of that length.

    Args:
        position: ``(H, W)``, how far to the right each pixel comes from: 0 at the photo's first column, 1 at its
            last.
        seen: ``(H, W)``, where the photo is; elsewhere is padding.
        length: of the photo, in pixels.

    Returns:
        Both edges in the photo's pixels; ``None`` where the columns are no stretch of the photo's, from left to
        right.
    """
    columns = seen.any(0).nonzero().flatten()
    if len(columns) < 4 * _BORDER:
        return None
    columns = columns[_BORDER:-_BORDER]
    weight = seen[:, columns].double()
    at = position[:, columns].double() * (length - 1) + 0.5
    mean = (at * weight).sum(0) / weight.sum(0)
    spread = ((at - mean).abs() * weight).amax()
    centre = columns.double() + 0.5
    slope = ((centre - centre.mean()) * (mean - mean.mean())).sum() / (
        centre - centre.mean()
    ).square().sum()
    start = mean.mean() - slope * centre.mean()
    off = (start + slope * centre - mean).abs().amax()
    # Ramps have 255 steps; pictures that are enlarged by a nearest neighbour have steps of a pixel.
    tolerance = 1 + 2 * _LEVEL * length
    if not bool(slope > 0) or bool(off > tolerance) or bool(spread > tolerance):
        return None
    edges = float(start), float(start + slope * seen.shape[1])
    near = max(0.25 * float(slope), 0.005 * length)  # as well as it can be measured
    exact = [
        edge if abs(edge - at) > near else at
        for edge, at in zip(edges, (0.0, float(length)), strict=True)
    ]
    return exact[0], exact[1]
