"""From raw maps to attribution maps: rectify, resize, smooth, normalise, fuse.

Pure functions on tensors of shape ``(N, h, w)``; every image and every map is treated on its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.common.errors import MethodError
from camlucida.common.statistics import gaussian

Normalise = Literal["minmax", "max", "none"]
Resize = Literal["bilinear", "bicubic", "nearest"]


def rectify(maps: Tensor) -> Tensor:
    """Keep the positive evidence: ``max(L, 0)``, shape ``(N, h, w)`` to ``(N, h, w)``."""
    return maps.clamp_min(0)


def normalise(maps: Tensor, how: Normalise = "minmax", *, eps: float = 0.0) -> Tensor:
    """Scale each map to [0, 1].

    Args:
        maps: ``(N, h, w)``, any range.
        how: ``"minmax"`` is ``(L - min) / (max - min)``, ``"max"`` is ``L / max``, ``"none"`` is ``L``.
        eps: added to the denominator; 0 by default. Published codes use 1e-8 to 1e-7 in place of a guard.

    Returns:
        ``(N, h, w)``. A constant map becomes zeros under ``"minmax"``, a map without a positive value zeros
        under ``"max"``; never NaN or infinite for finite input.

    Raises:
        MethodError: for an unknown ``how``.
    """
    if how == "none":
        return maps
    if how == "minmax":
        maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    elif how != "max":
        raise MethodError(f"normalise must be 'minmax', 'max' or 'none', got {how!r}")
    top = maps.amax(dim=(-2, -1), keepdim=True)
    positive = top > 0
    # A denormal maximum has no finite reciprocal; dividing stays right.
    scaled = maps / torch.where(positive, top + eps, torch.ones_like(top))
    return torch.where(positive, scaled, torch.zeros_like(maps))


def resize(
    maps: Tensor, size: tuple[int, int], mode: Resize = "bilinear", *, align_corners: bool = False
) -> Tensor:
    """Resize ``(N, h, w)`` to ``(N, *size)`` with half-pixel centres and no antialiasing.

    Bilinear equals OpenCV's ``INTER_LINEAR`` when enlarging. Bicubic rings below zero and is never a
    default. Some published codes align the centres of the corner pixels instead (``align_corners``).
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    options = {} if mode == "nearest" else {"align_corners": align_corners}
    return F.interpolate(maps[:, None], size=size, mode=mode, **options)[:, 0]


def smooth(maps: Tensor, sigma: float, kernel: int | None = None) -> Tensor:
    """Blur each map with a Gaussian, reflecting at the border.

    Args:
        maps: ``(N, h, w)``.
        sigma: standard deviation in pixels, > 0.
        kernel: odd width in pixels; by default the smallest odd width that reaches three sigmas to each
            side. It is cut to the largest odd size up to ``2 * min(h, w) - 1`` where the map is smaller,
            since reflecting needs a pixel for each it mirrors.

    Returns:
        ``(N, h, w)``.

    Raises:
        MethodError: when sigma is not positive, or the kernel is even or not positive.
    """
    if not sigma > 0:
        raise MethodError(f"sigma must be > 0 pixels, got {sigma}")
    kernel = 2 * math.ceil(3 * sigma) + 1 if kernel is None else kernel
    if kernel < 1 or kernel % 2 == 0:
        raise MethodError(f"kernel must be an odd number of pixels, got {kernel}")
    kernel = min(kernel, 2 * min(maps.shape[-2:]) - 1)
    weights = gaussian(kernel, sigma, maps)
    pad = kernel // 2
    padded = F.pad(maps[:, None], (pad, pad, pad, pad), mode="reflect")
    across = F.conv2d(padded, weights.view(1, 1, 1, -1))
    return F.conv2d(across, weights.view(1, 1, -1, 1))[:, 0]


def fuse(maps: Mapping[str, Tensor], size: tuple[int, int], mode: Resize = "bilinear") -> Tensor:
    """Mean over layers of the maps resized to ``size``: ``{layer: (N, h_l, w_l)}`` to ``(N, *size)``."""
    return torch.stack([resize(m, size, mode) for m in maps.values()]).mean(dim=0)


@dataclass(frozen=True)
class Steps:
    """How a method's signed map becomes the attribution map, in this order.

    rectify, [normalise each layer, resize, mean over layers], resize, smooth, normalise.

    Attributes:
        rectify: drop negative evidence first.
        layer_normalise: scaling of each layer's map before several layers are averaged.
        mode: interpolation when resizing to the input; bilinear with half-pixel centres by default.
        sigma: Gaussian blur at input resolution in pixels; 0 for none.
        kernel: odd width of the blur in pixels, ``None`` for three sigmas to each side.
        normalise: final scaling, ``"minmax"`` by default.
        early_normalise: scale a single layer's map before resizing too (as some published codes do).
        eps: added to the denominators of both scalings; 0 by default.

    Example:
        >>> camlucida.explain(model, images, steps=camlucida.Steps(sigma=2.0)).maps.shape
        torch.Size([2, 32, 32])
    """

    rectify: bool = True
    layer_normalise: Normalise = "minmax"
    mode: Resize = "bilinear"
    sigma: float = 0.0
    kernel: int | None = None
    normalise: Normalise = "minmax"
    early_normalise: bool = False
    eps: float = 0.0

    def layer(self, signed: Tensor) -> Tensor:
        """A layer's map at its own resolution, rectified where the formula rectifies."""
        return rectify(signed) if self.rectify else signed

    def fuse(self, signed: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """One map from those of all layers; a single layer's map passes signed, at its own size."""
        if len(signed) == 1 and not self.early_normalise:
            (only,) = signed.values()
            return only
        scaled = {
            name: normalise(self.layer(m), self.layer_normalise, eps=self.eps)
            for name, m in signed.items()
        }
        return fuse(scaled, size, self.mode)

    def finish(self, fused: Tensor, size: tuple[int, int]) -> Tensor:
        """The attribution map ``(N, *size)`` of a fused signed map ``(N, h, w)``."""
        maps = self.layer(fused)
        # Rounding in resizing and smoothing must not become a pattern in a constant map.
        lowest = maps.amin(dim=(-2, -1), keepdim=True)
        constant = lowest == maps.amax(dim=(-2, -1), keepdim=True)
        maps = resize(maps, size, self.mode)
        if self.sigma:
            maps = smooth(maps, self.sigma, self.kernel)
        maps = torch.where(constant, lowest, maps)
        return normalise(maps, self.normalise, eps=self.eps)


PRESETS = ("pytorch-grad-cam", "signed", "unscaled")


def preset(name: str, steps: Steps) -> Steps:
    """A method's steps changed to those behind published numbers.

    Args:
        name: ``"pytorch-grad-cam"`` scales before and after resizing with 1e-7 in the denominator, as
            pytorch-grad-cam does (its method options, such as the eps of Grad-CAM++, are set on the
            method); ``"unscaled"`` keeps the method's own scale: no normalising; ``"signed"`` keeps the signs too: no
            rectifying either.
        steps: the method's own steps.

    Raises:
        MethodError: for an unknown name.
    """
    if name == "pytorch-grad-cam":
        return replace(
            steps,
            rectify=True,
            layer_normalise="minmax",
            normalise="minmax",
            early_normalise=True,
            eps=1e-7,
        )
    if name in ("signed", "unscaled"):
        rectify = steps.rectify and name == "unscaled"
        return replace(
            steps, rectify=rectify, layer_normalise="none", early_normalise=False, normalise="none"
        )
    raise MethodError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
