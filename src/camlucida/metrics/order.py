"""Does a map put places in the order of what they do? Held against what the model does when they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.seeds import ImageGenerators
from camlucida.engine.borrow import borrowed
from camlucida.engine.faster_forward import fast_forward
from camlucida.metrics.curves import BlankKind, blank

CELLS = 6
"""Places across and down."""
FILLS: tuple[BlankKind, ...] = ("blur", "mean")
"""What a hidden place shows instead."""

_MATTERS = 0.1
"""A place matters where it does at least this share of what the most important place does, and so with light."""
_SHADES = 50
"""So many steps of brightness are told apart in a map."""


_SHRUNK = (0.003, 0.03, 0.3, 1.0)
"""How much the regression may shrink, as a share of the variance of what is shown."""
_REACHES = (0.0, 0.7, 1.0, 1.5)
"""Over how many places effects may be alike, as the width of a Gaussian; 0 for not at all."""


@dataclass(frozen=True)
class Effects:
    """What each place of an image adds, on the average over what else is shown, ``(N, P)`` each.

    Attributes:
        own: to the logit of the explained class.
        margin: to that logit less the mean of the others.
    """

    own: Tensor
    margin: Tensor


def effects(
    model: nn.Module,
    inputs: Tensor,
    classes: Tensor,
    *,
    cells: int = CELLS,
    fills: Sequence[BlankKind] = FILLS,
    passes: int = 256,
    batch_size: int = 16,
) -> list[Effects]:
    """What each cell of an even grid over the image adds to its classes.

    Half of the cells, drawn at random, are hidden at a time, and the logits are regressed on what is shown (as in
    Ribeiro et al. 2016 and Lundberg and Lee 2017). Hiding a single place says little on a network that makes do without
    it, and showing it alone is no image; so each place is tried in many halves. Each half is asked with the other one,
    so that of two places that are each enough, or both needed, each gets its share. How alike neighbours are, and how
    much of the rest is noise, is what foretells best the halves of the image that are left out.

    Args:
        model: returns logits ``(N, M)``.
        inputs: ``(N, C, H, W)``.
        classes: several of each image, ``(N, K)``.
        cells: places across and down.
        fills: what stands in the hidden places, see :func:`camlucida.metrics.curves.blank`; passes are shared evenly.
        passes: images that are passed for each image.
        batch_size: images per pass.

    Returns:
        For each of the K classes.
    """
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    rows, columns = (torch.arange(n, device="cpu") * cells // n for n in size)
    places = (rows[:, None] * cells + columns).to(inputs.device)
    half = max(1, passes // (2 * len(fills)))
    drawn = ImageGenerators(0, inputs).rand((len(fills), half, cells**2), inputs) < 0.5
    found: list[Tensor] = []
    with borrowed(model, inputs) as module, torch.inference_mode():
        forward = fast_forward(module, inputs)

        def scores(images: Tensor, wanted: Tensor) -> Tensor:
            """Logits of the wanted classes, and these less the mean of the others, ``(n, 2 K)``."""
            logits = forward(images).double()
            own = logits[:, wanted]
            rest = (logits.sum(1, keepdim=True) - own) / max(logits.shape[1] - 1, 1)
            return torch.cat([own, own - rest], 1)

        for image, wanted, halves in zip(torch.split(inputs, 1), classes, drawn, strict=True):
            shown, heard = [], []
            for fill, some in zip(fills, halves, strict=True):
                empty, keep = blank(image, fill), torch.cat([some, ~some])
                parts = [k[:, places][:, None] for k in torch.split(keep, batch_size)]
                each = torch.cat([scores(torch.where(k, image, empty), wanted) for k in parts])
                one, other = each.chunk(2)
                shown.append(some.double() - 0.5)
                heard.append((one - other) / 2)
            found.append(_regressed(torch.cat(shown), torch.cat(heard), cells))
    both = torch.stack(found).clone()  # (N, P, 2 K)
    several = classes.shape[1]
    return [Effects(both[:, :, k], both[:, :, several + k]) for k in range(several)]


def _regressed(shown: Tensor, heard: Tensor, cells: int) -> Tensor:
    """Regression of scores ``(n, S)`` on what is shown ``(n, P)``, to ``(P, S)``, of the least leave-one-out error."""
    best, chosen = torch.inf, torch.zeros(shown.shape[1], heard.shape[1], dtype=shown.dtype)
    unit = heard.square().sum(0).clamp_min(1e-300)  # of each score, so that all count alike
    for reach in _REACHES:
        alike = _alike(cells, reach).to(shown)
        spread = shown @ alike
        inner = spread @ shown.T
        level = inner.diagonal().mean()
        for share in _SHRUNK:
            noise = share * level * torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
            hat = torch.linalg.solve(inner + noise, inner).T
            left = (heard - hat @ heard) / (1 - hat.diagonal()).clamp_min(1e-9)[:, None]
            error = float((left.square().sum(0) / unit).sum())
            if error < best:
                best = error
                chosen = spread.T @ torch.linalg.solve(inner + noise, heard)
    return chosen


@cache
def _alike(cells: int, reach: float) -> Tensor:
    """How alike effects of places are, ``(P, P)``: a Gaussian of their distance."""
    at = torch.cartesian_prod(torch.arange(cells), torch.arange(cells)).double()
    if reach == 0:
        return torch.eye(len(at), dtype=torch.float64)
    away = torch.cdist(at, at).square() / (2 * reach**2)
    return torch.exp(-away) + 1e-3 * torch.eye(len(at), dtype=torch.float64)


def on_places(maps: Tensor, cells: int = CELLS) -> Tensor:
    """What a reader sees of maps ``(N, H, W)`` in each place, ``(N, cells * cells)``: the mean, in 50 shades."""
    means = F.adaptive_avg_pool2d(maps.double()[:, None], cells).flatten(1)
    largest = means.abs().amax(1, keepdim=True)
    return torch.round(_SHADES * means / torch.where(largest > 0, largest, 1)) / _SHADES


def in_order(values: Tensor, adds: Tensor, among: Tensor | None = None) -> Tensor:
    r"""How far a map puts places in the order of what they add, from 0 (the other way round) to 1; 0.5 is chance.

    $\sum_{i<j} |e_i - e_j| c_{ij} / \sum_{i<j} |e_i - e_j|$ with $c_{ij}$ 1 where the map orders two places as their
    effects do, 0.5 where it does not tell them apart, else 0. For effects of 0 and 1 this is the area under the ROC
    curve.

    Args:
        values: of the map, ``(N, P)``.
        adds: the effects, ``(N, P)``.
        among: which places are compared, ``(N, P)`` boolean; all by default.

    Returns:
        ``(N,)`` double; NaN where no two places differ in effect.
    """
    found = []
    for i in range(len(values)):
        some = slice(None) if among is None else among[i]
        value, effect = values[i][some].double(), adds[i][some].double()
        apart = effect[:, None] - effect
        agree = torch.sign(value[:, None] - value) * torch.sign(apart)
        weight, total = apart.abs(), apart.abs().sum()
        share = ((1 + agree) / 2 * weight).sum() / total
        found.append(torch.where(total > 0, share, torch.nan))
    return torch.stack(found)


def tells(values: Tensor, adds: Tensor, also: Tensor | None = None) -> Tensor:
    """The order over all places, and over those that are lit or matter; the worse of the two, ``(N,)``.

    Most of an image is dark and does not matter. What a reader asks of a map is whether, of the places that it lights
    up, those come first that matter; for a margin, also of those that matter to the logit (``also``).
    """
    within = [_large(values), _large(adds), *([] if also is None else [_large(also)])]
    some = in_order(values, adds, torch.stack(within).any(0))
    return torch.minimum(in_order(values, adds), torch.where(some.isnan(), 1, some))


def _large(values: Tensor) -> Tensor:
    sizes = values.abs()
    return sizes >= _MATTERS * sizes.amax(1, keepdim=True).clamp_min(1e-12)
