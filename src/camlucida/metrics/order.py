"""Does a map put places in the order of what they do? Held against what the model does when they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.engine.borrow import borrowed
from camlucida.engine.faster_forward import fast_forward
from camlucida.metrics.curves import BlankKind, blank

CELLS = 8
"""Places across and down."""
FILLS: tuple[BlankKind, ...] = ("blur", "mean")
"""What a hidden place shows instead."""

_MATTERS = 0.1
"""A place matters where it does at least this share of what the most important place does, and so with light."""
_SHADES = 50
"""So many steps of brightness are told apart in a map."""


@dataclass(frozen=True)
class Effects:
    """What each place of an image adds, as the mean of hiding it and of showing nothing else, ``(N, P)`` each.

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
    batch_size: int = 16,
) -> list[Effects]:
    """What each cell of an even grid over the image adds to its classes.

    Hiding one of two places that are each enough changes nothing, and showing one of two that are both needed
    neither; the mean of both misses neither.

    Args:
        model: returns logits ``(N, M)``.
        inputs: ``(N, C, H, W)``.
        classes: several of each image, ``(N, K)``.
        cells: places across and down.
        fills: what stands in the hidden places, see :func:`camlucida.metrics.curves.blank`; the mean is taken.
        batch_size: images per pass; ``2 * cells ** 2 * len(fills)`` are passed for each image.

    Returns:
        For each of the K classes.
    """
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    rows, columns = (torch.arange(n, device="cpu") * cells // n for n in size)
    places = (rows[:, None] * cells + columns).to(inputs.device)
    every = torch.arange(cells**2, device=inputs.device)
    found: list[Tensor] = []
    with borrowed(model, inputs) as module, torch.inference_mode():
        forward = fast_forward(module, inputs)

        def scores(images: Tensor, wanted: Tensor) -> Tensor:
            """Logits of the wanted classes, and these less the mean of the others, ``(n, 2, K)``."""
            logits = forward(images).double()
            own = logits[:, wanted]
            rest = (logits.sum(1, keepdim=True) - own) / max(logits.shape[1] - 1, 1)
            return torch.stack([own, own - rest], 1)

        for image, wanted in zip(torch.split(inputs, 1), classes, strict=True):
            whole, adds = scores(image.clone(), wanted), []
            for fill in fills:
                empty = blank(image, fill)
                nothing = scores(empty.clone(), wanted)
                parts = [
                    places == part[:, None, None, None] for part in torch.split(every, batch_size)
                ]
                hidden = [scores(torch.where(part, empty, image), wanted) for part in parts]
                shown = [scores(torch.where(part, image, empty), wanted) for part in parts]
                adds += [whole - torch.cat(hidden), torch.cat(shown) - nothing]
            found.append(torch.stack(adds).mean(0))
    both = torch.stack(found).clone()  # (N, P, 2, K)
    return [Effects(both[:, :, 0, k], both[:, :, 1, k]) for k in range(classes.shape[1])]


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
