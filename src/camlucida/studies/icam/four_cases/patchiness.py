r"""How patchy a map is, and whether I-CAM's numerics make it so.

The I-CAM authors see patchy maps above a confidence of 0.98 and suspect resizing. Three other causes can be
told apart here, on the same image with the same layer weights: the channel bias, added to the map in single
precision as printed (eq. 27), instead of being kept apart; the poles of alpha (eq. 31), absent where there is
no alpha; and the model, whose activations and gradients are all that is left then (the factor f' is common to
all entries and falls out when the map is scaled).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.engine.maps import normalise, resize
from camlucida.engine.tap import tap
from camlucida.explanation import Explanation
from camlucida.methods.icam.alpha import alpha, derivatives
from camlucida.methods.icam.layer_map import LayerMap, entry_weights, fuse, layer_map
from camlucida.metrics.regions import label_regions
from camlucida.targets import Logit

VARIANTS = ("exact", "float32 bias", "no alpha", "no alpha, float32 bias")
"""``exact`` is I-CAM as camlucida computes it."""

HIGH = 0.98
"""Above this confidence the I-CAM authors see patchy maps."""

CELLS = 28


def patchiness(maps: Tensor, cells: int = CELLS) -> Tensor:
    r"""Geary's C of each map (Geary 1954): 0 for a smooth map, 1 for cells without any order.

    $C = \frac{n - 1}{2 E} \sum_{i \sim j} (x_i - x_j)^2 / \sum_i (x_i - \bar x)^2$ over the n cells and the E
    pairs of cells that share an edge. It does not depend on the map's scale or offset, unlike total variation.

    Args:
        maps: ``(N, H, W)``, finite.
        cells: maps are averaged down to at most this many rows and columns first, so that enlarging
            a coarse map counts the same whatever the input's size.

    Returns:
        ``(N,)``, double precision; NaN for a constant map.
    """
    size = (min(cells, maps.shape[-2]), min(cells, maps.shape[-1]))
    x = F.adaptive_avg_pool2d(maps.double()[:, None], size)[:, 0]
    down, across = x.diff(dim=1), x.diff(dim=2)
    pairs = down[0].numel() + across[0].numel()
    steps = (down**2).sum((1, 2)) + (across**2).sum((1, 2))
    spread = ((x - x.mean((1, 2), keepdim=True)) ** 2).sum((1, 2))
    # Averaging leaves rounding in a constant map.
    flat = spread <= 1e-20 * x.abs().amax((1, 2)).clamp_min(1e-300) ** 2 * x[0].numel()
    c = (x[0].numel() - 1) / (2 * max(pairs, 1)) * steps / torch.where(flat, 1, spread)
    return torch.where(flat, torch.nan, c)


def islands(one: Tensor, level: float = 0.5) -> int:
    """Number of connected regions of a map ``(H, W)`` in [0, 1] at or above a level; cells touch at edges."""
    above = (one >= level)[None]
    return len(torch.unique(label_regions(above, 4)[above]))


def grey_levels(maps: Tensor) -> list[int]:
    """Number of different values in each map ``(N, h, w)``."""
    return [len(torch.unique(one)) for one in maps]


@dataclass(frozen=True)
class Numerics:
    """I-CAM maps of some images, computed in the ways of :data:`VARIANTS`.

    Attributes:
        maps: the maps of each variant, ``(N, H, W)`` in [0, 1].
        levels: of each variant, the number of different values in each image's layer maps, averaged by
            layer weight, as a share of the cells, ``(N,)``.
        pole_share: of the entries with a positive gradient, those beyond a pole of alpha, averaged by layer
            weight, ``(N,)``.
    """

    maps: dict[str, Tensor]
    levels: dict[str, Tensor]
    pole_share: Tensor


def numerics(
    model: nn.Module,
    inputs: Tensor,
    explanation: Explanation,
    confidences: Sequence[float | None] = (None,),
) -> list[Numerics]:
    """Recompute I-CAM maps with its numerics varied, at given confidences.

    The layer weights are those of the explanation, and the model passes once. A confidence is dialled by adding a
    constant to the explained class's logit: activations and gradients stay as they are, and only the numbers that
    I-CAM derives from Y and S change. Confidences lie in (0, 1); ``None`` is the model's own.

    Raises:
        MethodError: for an explanation by something else, or a confidence out of range.
    """
    weights = explanation.details.get("layer_weight")
    if weights is None or not isinstance(explanation.target, Logit):
        raise MethodError("the numerics of I-CAM need an explanation of a class's logit by I-CAM")
    if any(c is not None and not 0 < c < 1 for c in confidences):
        raise MethodError(f"confidences must lie in (0, 1), got {list(confidences)}")
    seen = tap(model, inputs, list(explanation.layers), explanation.target)
    with torch.no_grad():
        logits = seen.outputs.double()
        classes = torch.as_tensor(explanation.target.classes, device=logits.device)[:, None]
        own = logits.gather(1, classes)[:, 0]
        margin = own - logits.scatter(1, classes, -torch.inf).logsumexp(1)
        found = []
        for confidence in confidences:
            shift = torch.zeros_like(margin)
            if confidence is not None:
                shift = torch.tensor(confidence, dtype=torch.float64).logit().to(margin) - margin
            found.append(
                _numerics(
                    seen.activations,
                    seen.gradients,
                    own + shift,
                    margin + shift,
                    weights.double(),
                    (int(inputs.shape[-2]), int(inputs.shape[-1])),
                )
            )
        return found


def _numerics(
    activations: dict[str, Tensor],
    gradients: dict[str, Tensor],
    score: Tensor,
    margin: Tensor,
    weights: Tensor,
    size: tuple[int, int],
) -> Numerics:
    f = derivatives("softmax", score, margin)
    exact: dict[str, dict[str, LayerMap]] = {"exact": {}, "no alpha": {}}
    literal: dict[str, dict[str, Tensor]] = {"float32 bias": {}, "no alpha, float32 bias": {}}
    beyond = torch.zeros_like(score)
    for position, (name, activation) in enumerate(activations.items()):
        gradient = gradients[name]
        factors = alpha(activation, gradient, f)
        rising = gradient > 0
        share = (rising & (factors < 0)).flatten(1).sum(1) / rising.flatten(1).sum(1).clamp_min(1)
        beyond += weights[:, position] * share
        for (ours, kept), (theirs, added), factor in zip(
            exact.items(), literal.items(), (factors, None), strict=True
        ):
            entries = entry_weights(factor, gradient)
            exact[ours][name] = kept[name] = layer_map(activation, entries, score, f.first)
            literal[theirs][name] = added[name] = _literal(activation, entries, score, f.first)
    levels, maps = {}, {}
    for variant in VARIANTS:
        at_layers = (
            {name: one.values for name, one in exact[variant].items()}
            if variant in exact
            else literal[variant]
        )
        counts = [
            torch.tensor(grey_levels(one), device=one.device) / one[0].numel()
            for one in at_layers.values()
        ]
        levels[variant] = (torch.stack(counts, 1) * weights).sum(1)
        if variant in exact:
            fused = fuse(exact[variant], weights[:, None], size)[:, 0]
        else:
            fused = torch.zeros(len(score), *size, device=score.device)
            for position, one in enumerate(literal[variant].values()):
                fused = fused + weights[:, position, None, None].float() * resize(one, size)
        maps[variant] = normalise(fused)
    return Numerics({name: maps[name] for name in VARIANTS}, levels, beyond)


def _literal(activation: Tensor, entries: Tensor, score: Tensor, factor: Tensor) -> Tensor:
    """Eq. 20 with eq. 27 as printed, all in single precision: the bias is added to every cell."""
    a = activation.float()
    w = factor.float()[:, None, None, None] * entries.float()
    bias = score.float()[:, None] - w.sum((2, 3)) * a.sum((2, 3))
    return (w * a + bias[:, :, None, None]).sum(1)
