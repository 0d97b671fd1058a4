"""How much each layer counts (I-CAM eq. 3 and 11-14)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.engine.maps import normalise, rectify, resize

CompareAt = Literal["input", "layer"]


def input_term(images: Tensor, gradient: Tensor) -> Tensor:
    r"""$\|I \odot \partial O / \partial I\|_F$ along the channels: ``(N, C, H, W)`` twice to ``(N, H, W)``."""
    norm: Tensor = torch.linalg.vector_norm(images * gradient, dim=1)
    return norm


def layer_term(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""$\|\varphi\|_F$ with $\varphi = \mathrm{ReLU}(A \odot \partial O / \partial A)$, along the channels.

    ``(N, K, h, w)`` twice to ``(N, h, w)``.
    """
    norm: Tensor = torch.linalg.vector_norm(rectify(activation * gradient), dim=1)
    return norm


def distance(
    at_input: Tensor,
    at_layer: Tensor,
    *,
    compare_at: CompareAt = "input",
    normalise_terms: bool = False,
) -> Tensor:
    r"""The distance that eq. 3 takes for importance: $\sqrt{\sum_{pos} (\text{input} - \text{layer})^2}$.

    Args:
        at_input: :func:`input_term` of the unperturbed image, ``(N, H, W)``.
        at_layer: :func:`layer_term` of a copy, ``(N, h, w)``.
        compare_at: enlarge the layer's term bilinearly to (H, W) (``"input"``, default), or average the
            input's over the layer's cells (``"layer"``).
        normalise_terms: divide both by their maximum first, so that layers of large activations times
            gradients do not dominate; ``False`` as written.

    Returns:
        ``(N,)``.
    """
    if compare_at == "input":
        at_layer = resize(at_layer, (at_input.shape[1], at_input.shape[2]))
    else:
        size = (at_layer.shape[1], at_layer.shape[2])
        at_input = F.interpolate(at_input[:, None], size=size, mode="area")[:, 0]
    if normalise_terms:
        at_input, at_layer = normalise(at_input, "max"), normalise(at_layer, "max")
    apart: Tensor = torch.linalg.vector_norm(at_input - at_layer, dim=(1, 2))
    return apart


def layer_scores(weights: Tensor, distances: Tensor) -> Tensor:
    r"""Score ``(..., L)`` of each layer (eq. 3), $S_l = \sum_i w_i d_{i,l}$."""
    return torch.einsum("...n,...nl->...l", weights, distances)


def select_layers(scores: Tensor, coverage: float = 0.95, *, tolerance: float = 1e-9) -> Tensor:
    r"""Which layers are kept (eq. 11-13): the fewest best that hold the share T of the whole score.

    The k best, with the smallest k for which $C_k \ge T \sum_l S_l$; of equal scores the earlier layer comes first,
    and all are kept where all scores are 0. Sums that miss the share by no more than ``tolerance`` of the whole count
    as reached.
    """
    scores = scores.double() if scores.device.type != "mps" else scores
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    total = scores.sum(-1, keepdim=True)
    wanted = before < coverage * total - tolerance * total
    kept = torch.zeros_like(wanted).scatter(-1, order, wanted)
    return kept | (total == 0)


def layer_weights(scores: Tensor, kept: Tensor) -> Tensor:
    r"""Weights of the kept layers (eq. 14), $W_l = S_l / \sum_{kept} S_j$; uniform where all scores are 0.

    Layers that are not kept weigh 0.
    """
    mass = torch.where(kept, scores, 0)
    total = mass.sum(-1, keepdim=True)
    mass = torch.where(total == 0, kept.to(mass), mass)
    return mass / mass.sum(-1, keepdim=True)
