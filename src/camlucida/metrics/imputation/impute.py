"""Fill removed pixels so that they carry no information: noisy linear imputation, channel mean, zero.

Here masks become linear systems, which :mod:`camlucida.metrics.imputation.multigrid` solves.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.seeds import ImageGenerators
from camlucida.metrics.imputation import multigrid

Imputer = Literal["linear", "mean", "zero"]

_CPU_CELLS = 2 * 224 * 224
"""Pixels that are solved for at a time on a CPU, known ones included: more would leave the caches."""

_GPU_CELLS = 64 * 224 * 224
"""The same on every other device."""


def impute(
    pixels: Tensor,
    removed: Tensor,
    imputer: Imputer = "linear",
    noise: float = 0.01,
    generators: ImageGenerators | None = None,
    tolerance: float = 1e-4,
) -> Tensor:
    r"""Replace removed pixels.

    ``"linear"``: each removed pixel $u$ satisfies $\sum_n w_n (v_n - u) = 0$ over its neighbours inside the
    image, with weights 1/6 at the sides and 1/12 at the corners; neighbours that are removed too are unknowns.
    Gaussian noise is then added to the removed pixels (Rong et al. 2022, ROAD: noisy linear imputation). Where
    all pixels are removed there is no solution, and the channel means take its place. Channels do not mix.

    ``"mean"`` puts the image's channel means, ``"zero"`` zeros, both without noise.

    Args:
        pixels: ``(N, C, H, W)``, usually in [0, 1].
        removed: ``(N, H, W)``, or several masks for each image, ``(N, P, H, W)``; boolean.
        imputer: what takes the place of the removed pixels.
        noise: standard deviation of the noise in the units of the pixels; 0 for none.
        generators: one random stream per image; those of seed 0 by default.
        tolerance: largest deviation from the exact solution of the system, in the units of the pixels; measured
            by the preconditioned residual, which is close to the error and was larger in every test.

    Returns:
        ``(N, C, H, W)`` or ``(N, P, C, H, W)``; what was not removed is kept bit by bit.

    Raises:
        CamlucidaError: shapes that do not fit, an unknown imputer, a negative noise or a tolerance that is
            not positive.

    Example:
        >>> removed = torch.zeros(2, 32, 32, dtype=torch.bool)
        >>> removed[:, 8:16, 8:16] = True
        >>> camlucida.metrics.impute(images, removed, "mean").shape
        torch.Size([2, 3, 32, 32])
    """
    masks = _masks(pixels, removed)
    if imputer not in get_args(Imputer):
        known = ", ".join(map(repr, get_args(Imputer)))
        raise CamlucidaError(f"imputer must be one of {known}, got {imputer!r}")
    if not noise >= 0 or not tolerance > 0:
        raise CamlucidaError(
            f"noise must be at least 0 and tolerance above 0, got {noise} and {tolerance}"
        )
    with torch.no_grad():
        n, p = masks.shape[:2]
        images = pixels.detach()[:, None]
        if imputer == "zero":
            filled = torch.zeros_like(images)
        elif imputer == "mean":
            filled = images.mean((-2, -1), keepdim=True)
        else:
            filled = _linear(images[:, 0], masks, tolerance)
            if noise:
                generators = ImageGenerators.of(0, pixels) if generators is None else generators
                filled.add_(generators.randn((p, *pixels.shape[1:]), filled), alpha=noise)
        found = torch.where(masks[:, :, None], filled, images)
    return found if removed.ndim == 4 else found.view(n, *pixels.shape[1:])


def _masks(pixels: Tensor, removed: Tensor) -> Tensor:
    """The masks as ``(N, P, H, W)`` on the device of the pixels."""
    if pixels.ndim != 4 or not pixels.is_floating_point():
        raise CamlucidaError(
            f"impute needs floating-point pixels (N, C, H, W), got {pixels.dtype} of shape "
            f"{tuple(pixels.shape)}"
        )
    fits = removed.ndim in {3, 4} and len(removed) == len(pixels)
    if removed.dtype != torch.bool or not fits or removed.shape[-2:] != pixels.shape[-2:]:
        n, _, h, w = pixels.shape
        raise CamlucidaError(
            f"removed must be boolean ({n}, {h}, {w}) or ({n}, P, {h}, {w}), got {removed.dtype} of shape "
            f"{tuple(removed.shape)}"
        )
    return (removed[:, None] if removed.ndim == 3 else removed).to(pixels.device)


def _linear(images: Tensor, masks: Tensor, tolerance: float) -> Tensor:
    """Solutions ``(N, P, C, H, W)``; what stands at known pixels means nothing."""
    n, p, height, width = masks.shape
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    flat = masks.flatten(0, 1)
    found = exact.mean((-2, -1), keepdim=True).repeat_interleave(p, 0).repeat(1, 1, height, width)
    some = (flat.flatten(1).any(1) & ~flat.flatten(1).all(1)).nonzero()[:, 0]
    most = _CPU_CELLS if exact.device.type == "cpu" else _GPU_CELLS
    with torch.inference_mode():
        for part in torch.split(some, max(1, most // (height * width))):
            hidden, values = flat[part][:, None], exact[part // p]
            # Less to round, and a constant image is kept exactly. What is not a number stays with its channel.
            low = values.masked_fill(hidden, torch.inf).amin((-2, -1), keepdim=True)
            high = values.masked_fill(hidden, -torch.inf).amax((-2, -1), keepdim=True)
            level = (low + high) / 2
            values = (values - level).masked_fill(hidden | ~level.isfinite(), 0)
            removed = flat[part].to(values.dtype)
            found[part] = multigrid.solve(values, 1 - removed, removed, tolerance) + level
    return found.view(n, p, *exact.shape[1:]).to(images.dtype)
