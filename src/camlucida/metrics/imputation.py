"""Fill removed pixels so that they carry no information: noisy linear imputation, channel mean, zero.

The linear system is set up and solved in :mod:`camlucida.metrics.multigrid`; here masks become systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from camlucida.errors import CamlucidaError
from camlucida.metrics.multigrid import solve
from camlucida.seeds import ImageGenerators

Imputer = Literal["linear", "mean", "zero"]

_CPU_CELLS = 4 * 224 * 224
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
                filled += noise * generators.randn((p, *pixels.shape[1:]), filled)
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
    c = images.shape[1]
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    found = exact.new_zeros(n * p, c, height, width)
    flat = masks.flatten(0, 1)
    empty = flat.flatten(1).all(1).nonzero()[:, 0]
    found[empty] = exact[empty // p].mean((-2, -1), keepdim=True)
    for systems, boxes in _chunks(flat):
        values = torch.stack(
            [exact[s // p][:, *box] for s, box in zip(systems, boxes, strict=True)]
        )
        removed = torch.stack([flat[s][box] for s, box in zip(systems, boxes, strict=True)])
        removed = removed.to(values.dtype)
        with torch.inference_mode():
            known = 1 - removed
            values *= known[:, None]
            # Less to round, and a constant surrounding is kept exactly.
            level = values.sum((-2, -1)) / known.sum((1, 2))[:, None]
            values.addcmul_(level[..., None, None], known[:, None], value=-1)
            solved = solve(values, known, removed, tolerance).add_(level[..., None, None])
        for one, s, box in zip(solved, systems, boxes, strict=True):
            found[s][:, *box] = one
    return found.view(n, p, c, height, width).to(images.dtype)


Box = tuple[slice, slice]


def _chunks(masks: Tensor) -> Iterator[tuple[list[int], list[Box]]]:
    """Masks ``(B, H, W)`` that are solved together: which, and a box around each one's holes, all of one size.

    Boxes leave a margin of known pixels around the holes. Alike masks come together; masks without a hole, or
    without anything else, are left out.
    """
    height, width = masks.shape[-2:]
    count = masks.sum((1, 2))
    chosen = ((count > 0) & (count < height * width)).nonzero()[:, 0]
    if len(chosen) == 0:
        return
    top, tall = _extent(masks[chosen].any(2))
    left, wide = _extent(masks[chosen].any(1))
    facts = torch.stack([tall * wide, count[chosen], chosen, top, tall, left, wide], 1).tolist()
    facts.sort(reverse=True)
    most = _CPU_CELLS if masks.device.type == "cpu" else _GPU_CELLS
    start = 0
    while start < len(facts):
        h, w, stop = 0, 0, start
        while stop < len(facts):
            taller, wider = max(h, facts[stop][4]), max(w, facts[stop][6])
            if stop > start and (stop + 1 - start) * taller * wider > most:
                break
            h, w, stop = taller, wider, stop + 1
        boxes = []
        for *_, y, _tall, x, _wide in facts[start:stop]:
            y, x = min(y, height - h), min(x, width - w)  # noqa: PLW2901
            boxes.append((slice(y, y + h), slice(x, x + w)))
        yield [row[2] for row in facts[start:stop]], boxes
        start = stop


def _extent(some: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length of the range that holds all true entries ``(B, L)`` and one more at each side."""
    places = torch.arange(some.shape[1], device=some.device)
    first = torch.where(some, places, some.shape[1]).amin(1) - 1
    last = torch.where(some, places, -1).amax(1) + 1
    first, last = first.clamp_min(0), last.clamp_max(some.shape[1] - 1)
    return first, last - first + 1
