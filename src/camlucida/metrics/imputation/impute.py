"""Fill removed pixels so that they carry no information: noisy linear imputation, channel mean, zero.

Here masks become linear systems, which :mod:`camlucida.metrics.imputation.multigrid` solves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.seeds import ImageGenerators
from camlucida.metrics.imputation import multigrid
from camlucida.metrics.imputation.holes import Hole, split

Imputer = Literal["linear", "mean", "zero"]

_CPU_CELLS = 2 * 224 * 224
"""Pixels that are solved for at a time on a CPU, known ones included: more would leave the caches."""

_GPU_CELLS = 64 * 224 * 224
"""The same on every other device."""

_SMALL = 48 * 64
"""So many cells cost little more than none: holes of different sizes share them."""


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
    found = exact.new_zeros(n * p, *exact.shape[1:])
    flat = masks.flatten(0, 1)
    count = flat.sum((1, 2))
    empty = (count == height * width).nonzero()[:, 0]
    found[empty] = exact[empty // p].mean((-2, -1), keepdim=True)
    some = (count > 0) & (count < height * width)
    _boxed(exact, flat, some.nonzero()[:, 0], found, tolerance)
    return found.view(n, p, *exact.shape[1:]).to(images.dtype)


def _boxed(images: Tensor, masks: Tensor, chosen: Tensor, found: Tensor, tolerance: float) -> None:
    """Fill all holes of the chosen masks in ``found``: boxes around them."""
    if len(chosen) == 0:
        return
    groups, holes = split(masks[chosen])
    which, size = chosen.tolist(), (masks.shape[1], masks.shape[2])
    each = len(masks) // len(images)
    # What is not a number stays with its channel.
    broken = images.sum((-2, -1), keepdim=True) * 0
    for some in _chunks(holes, _most(masks)):
        h, w = max(hole.height for hole in some), max(hole.width for hole in some)
        places = [(which[hole.mask], *hole.box(h, w, size)) for hole in some]
        values = torch.stack([images[i // each, :, y, x] for i, y, x in places])
        own = torch.stack(
            [
                groups[hole.mask, y, x] == hole.group
                for hole, (_, y, x) in zip(some, places, strict=True)
            ]
        )
        removed = own.to(values.dtype)
        with torch.inference_mode():
            unknown = torch.stack([masks[i, y, x] for i, y, x in places])
            hidden, known = unknown[:, None], (~unknown).to(values.dtype)
            # Less to round, and a constant surrounding is kept exactly.
            low = values.masked_fill(hidden, torch.inf).amin((-2, -1), keepdim=True)
            high = values.masked_fill(hidden, -torch.inf).amax((-2, -1), keepdim=True)
            level = (low + high) / 2 + broken[[i // each for i, _, _ in places]]
            values = (values - level).masked_fill(hidden, 0)
            solved = multigrid.solve(values, known, removed, tolerance).add_(level)
            solved = torch.where(own[:, None], solved, 0)
        for one, (i, y, x) in zip(solved, places, strict=True):
            found[i, :, y, x] += one


def _most(masks: Tensor) -> int:
    return _CPU_CELLS if masks.device.type == "cpu" else _GPU_CELLS


def _chunks(holes: list[Hole], most: int) -> Iterator[list[Hole]]:
    """Holes that are solved for together: of about the same size, and not too many."""
    some: list[Hole] = []
    h = w = area = 0
    for hole in sorted(holes, key=lambda hole: -hole.area):
        taller, wider = max(h, hole.height), max(w, hole.width)
        cells = (len(some) + 1) * taller * wider
        if some and (cells > most or cells > 1.5 * (area + hole.area) + _SMALL):
            yield some
            some, area, taller, wider = [], 0, hole.height, hole.width
        some.append(hole)
        h, w, area = taller, wider, area + hole.area
    if some:
        yield some
