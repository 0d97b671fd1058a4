"""Which pixels a metric removes: masks from maps and percentages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import ranks
from camlucida.engine.maps import normalise

MaskRule = Literal["percentile", "rank"]
RemovalOrder = Literal["morf", "lerf"]
TieBreak = Literal["index", "noise"]

_JITTER = 1e-4


def removal_masks(
    maps: Tensor,
    percentages: Sequence[float],
    mask: MaskRule = "percentile",
    order: RemovalOrder = "morf",
    tie_break: TieBreak = "index",
    generators: ImageGenerators | None = None,
) -> Tensor:
    """Masks of the most (or least) relevant pixels of each map.

    ``"percentile"`` removes what lies above the ``100 - P`` th percentile, interpolated linearly between the
    two nearest values as numpy does. Pixels that share a value stay or go together: at 100 % those of the least
    value stay, of a constant map nothing is ever removed, and a map that is half zeros loses no more than the
    other half. ``"rank"`` removes exactly ``round(P H W / 100)`` pixels. For ``"lerf"`` the signs change.

    Args:
        maps: ``(N, H, W)``.
        percentages: P of each mask, 0 to 100.
        mask: the rule.
        order: the most relevant first (``"morf"``) or the least relevant first (``"lerf"``).
        tie_break: among equal values the first in reading order go first (``"index"``), which only ``"rank"``
            needs; or the maps, scaled to [0, 1], get Gaussian noise of 1e-4 first (``"noise"``; the authors of
            ROAD).
        generators: for that noise, one random stream per image.

    Returns:
        ``(N, P, H, W)``, true where a pixel is removed. A map with NaN loses nothing.

    Raises:
        CamlucidaError: a percentage outside 0 to 100, an unknown word, or noise without generators.

    Example:
        >>> camlucida.metrics.removal_masks(torch.eye(2)[None], [50], "rank").int().tolist()
        [[[[1, 0], [0, 1]]]]
    """
    for name, value, words in (
        ("mask", mask, MaskRule),
        ("order", order, RemovalOrder),
        ("tie_break", tie_break, TieBreak),
    ):
        if value not in get_args(words):
            known = " or ".join(map(repr, get_args(words)))
            raise CamlucidaError(f"{name} must be {known}, got {value!r}")
    if not all(0 <= p <= 100 for p in percentages) or not len(percentages):
        raise CamlucidaError(f"percentages must lie in 0 to 100, got {list(percentages)}")
    n, height, width = maps.shape
    # The types of half precision cannot hold the percentiles between their values.
    values = maps.detach().double()
    if tie_break == "noise":
        if generators is None:
            raise CamlucidaError(
                "tie_break='noise' needs generators, such as ImageGenerators.of(seed, inputs)"
            )
        values = normalise(values) + _JITTER * generators.randn((height, width), values)
    values = values.flatten(1) if order == "morf" else -values.flatten(1)
    if mask == "percentile":
        thresholds = _percentiles(values, [100 - p for p in percentages])
        removed = values[:, None] > thresholds[..., None]
    else:
        counts = [round(p * height * width / 100) for p in percentages]
        limits = torch.tensor(counts, device=maps.device)
        removed = ranks(-values, "order")[:, None] <= limits[:, None]
        removed &= ~values.isnan().any(1)[:, None, None]
    return removed.view(n, len(percentages), height, width)


def _percentiles(values: Tensor, at: Sequence[float]) -> Tensor:
    """``(N, P)`` of ``(N, L)``, interpolated linearly; NaN where an entry is."""
    ordered = values.sort(dim=1).values
    last = values.shape[1] - 1
    found = []
    for q in at:
        position = q / 100 * last
        low = min(math.floor(position), last)
        below, above = ordered[:, low], ordered[:, min(low + 1, last)]
        found.append(torch.lerp(below, above, position - low))
    thresholds = torch.stack(found, 1)
    return torch.where(values.isnan().any(1)[:, None], torch.nan, thresholds)
