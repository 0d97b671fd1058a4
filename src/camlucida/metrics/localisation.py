"""Does a map point at the object? Pure functions: maps and what is known of the object to ``(N,)``.

Maps are ``(N, H, W)``, not negative, at the input's resolution; masks are boolean of the same shape. Results
are ``(N,)`` double. An image without an object does not count where the source does not say otherwise: NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.metrics.regions import (
    Connectivity,
    bounding_boxes,
    dilate,
    fill_boxes,
    largest_region,
)

Component = Literal["largest", "all"]
Truth = Literal["best", "first", "union"]
PeakTies = Literal["mean", "any"]


def iou(maps: Tensor, masks: Tensor, threshold: float | Tensor) -> Tensor:
    """Intersection over union of the map above a threshold and the object.

    Higher is better; 0 to 1. FAME's protocol (Zhang and Günther 2026, table 2): the map in [0, 1] is cut at
    0.3, 0.5 and 0.7, no box is fitted, and the object is the *first* box of the image, filled
    (:func:`~camlucida.metrics.regions.fill_boxes`).

    Args:
        maps: ``(N, H, W)`` in [0, 1].
        masks: boolean ``(N, H, W)``.
        threshold: pixels with ``map >= threshold`` count; or several, ``(T,)``.

    Returns:
        ``(N,)``, or ``(N, T)`` for several thresholds. 0 where neither the map nor the mask has a pixel, and
        for an empty mask; a zero map has no pixel above a positive threshold, so 0. NaN where the map holds
        NaN.

    Raises:
        CamlucidaError: the shapes do not fit.

    Example:
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        >>> camlucida.metrics.iou(torch.eye(4)[None], masks, 0.5).item()
        0.4
    """
    maps, masks = _checked(maps, masks)
    cuts = torch.as_tensor(threshold, dtype=torch.float64, device=maps.device)
    # A threshold in the map's own precision: 0.3 written down equals 0.3 in the map.
    levels = cuts.flatten().to(maps.dtype)
    found = torch.stack([_overlap(maps >= level, masks) for level in levels], dim=1)
    found[maps.isnan().flatten(1).any(1)] = math.nan
    return found if cuts.ndim else found[:, 0]


def _overlap(found: Tensor, masks: Tensor) -> Tensor:
    both = (found & masks).flatten(1).sum(1).double()
    either = (found | masks).flatten(1).sum(1).double()
    return both / either.clamp_min(1)


def box_iou(
    maps: Tensor,
    boxes: Sequence[Tensor],
    threshold: float = 0.5,
    *,
    component: Component = "largest",
    gt: Truth = "best",
    correct: Tensor | None = None,
    connectivity: Connectivity = 8,
) -> Tensor:
    """Intersection over union of a box fitted to the map and the object's box.

    Higher is better; 0 to 1. I-CAM's protocol (Singh et al. 2024, average IoU): the map is cut relative to its
    maximum, the bounding box of what remains is the predicted box, and only correctly predicted images count.
    The paper gives no threshold and no rule for several regions or boxes; the defaults are ours.

    Args:
        maps: ``(N, H, W)``, not negative.
        boxes: of each image, ``(n, 4)`` as ``xmin, ymin, xmax, ymax`` in pixels, ends exclusive, cut to whole
            pixels.
        threshold: share of the map's maximum, above 0 and up to 1; pixels at or above it remain.
        component: fit the box to the ``"largest"`` connected region (default) or to ``"all"``.
        gt: the ``"best"`` IoU among the object's boxes (default), the ``"first"`` box, or the ``"union"`` of
            the filled boxes.
        correct: boolean ``(N,)``, whether each image is predicted correctly; ``None`` counts all.
        connectivity: 8 (default) or 4 neighbours make a region.

    Returns:
        ``(N,)``. 0 for a map without a positive value; NaN for an image without boxes, one that is not correct,
        and a map that holds NaN.

    Raises:
        CamlucidaError: the shapes do not fit, or the threshold is out of range.

    Example:
        >>> boxes = [torch.tensor([[0.0, 0.0, 4.0, 2.0]])]
        >>> camlucida.metrics.box_iou(torch.eye(4)[None], boxes).item()
        0.5
    """
    if maps.ndim != 3 or len(boxes) != len(maps):
        raise CamlucidaError(
            f"maps must be (N, H, W) with boxes for each image, got {tuple(maps.shape)} and "
            f"{len(boxes)} lists of boxes"
        )
    if not 0 < threshold <= 1:
        raise CamlucidaError(
            f"the threshold is a share of the maximum, above 0 and up to 1, got {threshold}"
        )
    size = (int(maps.shape[1]), int(maps.shape[2]))
    top = maps.amax((1, 2), keepdim=True)
    region = (maps >= threshold * top) & (top > 0)
    if component == "largest":
        region = largest_region(region, connectivity)
    predicted = bounding_boxes(region)
    fitted = fill_boxes(list(predicted[:, None]), size)
    found = maps.new_zeros(len(maps), dtype=torch.float64)
    for i, own in enumerate(b.to(maps.device).reshape(-1, 4) for b in boxes):
        truths = {"best": list(own[:, None]), "first": [own[:1]], "union": [own]}[gt]
        if len(own):
            found[i] = _overlap(fitted[i], fill_boxes(truths, size)).amax()
    counts = torch.tensor([len(own) > 0 for own in boxes], device=maps.device)
    counts &= ~maps.isnan().flatten(1).any(1)
    if correct is not None:
        counts &= correct.to(maps.device)
    return torch.where(counts, found, math.nan)


def saliency_score(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Share of the map that lies in the boxes, I-CAM's saliency score.

    $\mathcal{S} = \sum (L \odot Box) / \sum L$ (Singh et al. 2024, equation 32), with the union of all boxes. Higher
    is better; 0 to 1. A constant map scores the boxes' share of the image. Maps and boolean masks are ``(N, H, W)``;
    negative values count as 0.

    Returns:
        ``(N,)``; 0 where the map sums to 0, and for an empty mask, as the formula says. NaN where the map holds
        NaN. The paper averages correctly predicted images only: leave the others out.

    Raises:
        CamlucidaError: the shapes do not fit.

    Example:
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        >>> camlucida.metrics.saliency_score(torch.ones(1, 4, 4), masks).item()
        0.625
    """
    maps, masks = _checked(maps, masks)
    maps = maps.double().clamp_min(0).flatten(1)
    total = maps.sum(1)
    inside = (maps * masks.flatten(1)).sum(1)
    return torch.where(total > 0, inside / torch.where(total > 0, total, 1), total)


def energy_pointing(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Share of the map's energy that lies on the object.

    $\sum_{mask} L / \sum L$ (Wang et al. 2020, Score-CAM, section 4.3, energy-based pointing game; the relevance mass
    accuracy of Arras et al. 2022, CLEVR-XAI). Higher is better; 0 to 1. A constant map scores the object's share of
    the image. Maps and boolean masks are ``(N, H, W)``, the masks exact where there are such; negative values count
    as 0.

    Returns:
        ``(N,)``; 0 for a zero map; NaN (not counted) for an empty mask, or a map that holds NaN.

    Raises:
        CamlucidaError: the shapes do not fit.

    Example:
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        >>> camlucida.metrics.energy_pointing(torch.eye(4)[None], masks).item()
        1.0
    """
    return torch.where(masks.flatten(1).any(1), saliency_score(maps, masks), math.nan)


def pointing_game(
    maps: Tensor, masks: Tensor, tolerance: float = 0.0, *, ties: PeakTies = "mean"
) -> Tensor:
    """Whether the map's maximum lies on the object.

    Higher is better; 0 to 1. Zhang et al. 2018 (Excitation Backprop, the pointing game) accept a maximum
    within 15 pixels of the object.

    Args:
        maps: ``(N, H, W)``.
        masks: boolean ``(N, H, W)``.
        tolerance: distance in pixels, between pixel centres, up to which a maximum beside the object is a hit;
            0 by default, 15 in the paper.
        ties: where several pixels share the maximum, the ``"mean"`` over them (default), which is the chance of
            a hit if one of them is drawn, so that a constant map scores the object's share of the image; or
            ``"any"``, by which a constant map always hits.

    Returns:
        ``(N,)``; without ties 0 or 1. NaN (not counted) for an empty mask, or a map that holds NaN. A zero map
        is a constant map.

    Raises:
        CamlucidaError: the shapes do not fit, or the tolerance is negative.

    Example:
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        >>> camlucida.metrics.pointing_game(torch.eye(4)[None], masks).item()
        1.0
    """
    maps, masks = _checked(maps, masks)
    there = masks.flatten(1).any(1) & ~maps.isnan().flatten(1).any(1)
    if tolerance != 0:
        masks = dilate(masks, tolerance)
    peaks = (maps == maps.amax((1, 2), keepdim=True)).flatten(1)
    hits = (peaks & masks.flatten(1)).sum(1).double()
    share = (hits > 0).double() if ties == "any" else hits / peaks.sum(1).clamp_min(1)
    return torch.where(there, share, math.nan)


def top_k_mass(maps: Tensor, masks: Tensor, k: int | None = None) -> Tensor:
    """Share of the k most salient pixels that lie on the object.

    Higher is better; 0 to 1. With as many pixels as the object has this is the relevance rank accuracy of
    Arras et al. 2022 (CLEVR-XAI); with another k the top-k intersection of Theiner et al. 2022.

    Args:
        maps: ``(N, H, W)``.
        masks: boolean ``(N, H, W)``.
        k: how many pixels; by default as many as each object has.

    Returns:
        ``(N,)``. Pixels that tie at the k-th place count in part, as if those missing were drawn among them:
        a constant (or zero) map scores the object's share of the image. NaN (not counted) for an empty mask, or
        a map that holds NaN.

    Raises:
        CamlucidaError: the shapes do not fit, or k is not between 1 and the number of pixels.

    Example:
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        >>> camlucida.metrics.top_k_mass(torch.eye(4)[None], masks, k=4).item()
        1.0
    """
    maps, masks = _checked(maps, masks)
    flat, inside = maps.flatten(1), masks.flatten(1)
    if k is not None and not 1 <= k <= flat.shape[1]:
        raise CamlucidaError(f"k must be 1 to {flat.shape[1]} pixels, got {k}")
    sizes = inside.sum(1) if k is None else torch.full_like(inside.sum(1), k)
    ordered = flat.sort(1, descending=True).values
    edge = ordered.gather(1, (sizes - 1).clamp_min(0)[:, None])
    above, level = flat > edge, flat == edge
    missing = (sizes - above.sum(1)).double()
    drawn = (level & inside).sum(1) / level.sum(1).clamp_min(1).double()
    share = ((above & inside).sum(1) + missing * drawn) / sizes.clamp_min(1)
    return torch.where(inside.any(1) & ~flat.isnan().any(1), share, math.nan)


def _checked(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    if maps.ndim != 3 or maps.shape != masks.shape or masks.dtype != torch.bool:
        raise CamlucidaError(
            "maps (N, H, W) and boolean masks of the same shape are needed, got "
            f"{tuple(maps.shape)} and {masks.dtype} {tuple(masks.shape)}"
        )
    return maps, masks.to(maps.device)
