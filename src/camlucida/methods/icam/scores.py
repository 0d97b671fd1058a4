"""How much each layer counts (I-CAM eq. 3 and 5-14), by copies of the image that are perturbed."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.common.seeds import ImageGenerators
from camlucida.engine.maps import normalise, rectify, resize

MaskConvention = Literal["keep", "remove"]

_LEAST = math.log(1e-12)  # smallest log-probability


def perturb(
    images: Tensor,
    generator: ImageGenerators,
    *,
    alpha: float = 0.4,
    mask_convention: MaskConvention = "keep",
) -> Tensor:
    r"""One perturbed copy of each image (eq. 4): $I' = (I + \alpha N) \odot M$, not clamped.

    Args:
        images: ``(N, C, H, W)``.
        generator: one random stream per image; per image the noise is drawn first, then the mask.
        alpha: noise level, and share of the pixels that the mask sets to 0.
        mask_convention: pixels stay with probability ``1 - alpha`` (``"keep"``) or ``alpha``
            (``"remove"``, which is what the paper's text says).

    Returns:
        ``(N, C, H, W)``; all channels of a pixel are kept or set to 0 together.
    """
    noise = generator.randn(images.shape[1:], images)
    drawn = generator.rand((1, *images.shape[2:]), images.float())
    kept = 1 - alpha if mask_convention == "keep" else alpha
    return (images + alpha * noise) * (drawn < kept).to(images)


def dynamic_range(images: Tensor) -> Tensor:
    """``max - min`` of each image ``(N, C, H, W)``, ``(N,)``; 1 for a constant image."""
    flat = images.flatten(1)
    extent = flat.amax(1) - flat.amin(1)
    return torch.where(extent > 0, extent, 1)


def svim(similarity: Tensor, sigma: float = 1 / 6) -> Tensor:
    r"""Structural variation (eq. 6), $\exp(-(\mathrm{SSIM} - 0.5)^2 / 2\sigma^2)$, any shape, in (0, 1].

    The paper gives no sigma, but wants values near 0 at the ends: 1/6 (default) leaves 0.011 there, 0.15
    0.004, 0.25 0.135 and 0.5 0.607.
    """
    return torch.exp(-((similarity - 0.5) ** 2) / (2 * sigma**2))


def mdd(logits: Tensor, others: Tensor) -> Tensor:
    r"""How far two softmax outputs differ (eq. 8, 10): $\sum_k \frac12 (X_k - Y_k) \log(X_k / Y_k)$.

    This is half the Jeffreys divergence, $\frac12(\mathrm{KL}(X\|Y) + \mathrm{KL}(Y\|X))$, unbounded; the paper calls
    it the symmetric Jensen-Shannon divergence, which it is not. Probabilities are taken from the log-softmax of
    logits, 1e-12 at least.
    """
    x = logits.log_softmax(1).clamp_min(_LEAST)
    y = others.log_softmax(1).clamp_min(_LEAST)
    return 0.5 * ((x.exp() - y.exp()) * (x - y)).sum(1)


def mds(logits: Tensor, others: Tensor, *, clamp: bool = True) -> Tensor:
    """Similarity of two softmax outputs (eq. 9), ``1 - MDD``, ``(N,)``.

    Negative values are set to 0; unclamped ones make the weight of eq. 5 NaN.
    """
    similarity = 1 - mdd(logits, others)
    return similarity.clamp_min(0) if clamp else similarity


def perturbation_weights(svims: Tensor, mdss: Tensor) -> Tensor:
    r"""How much each copy counts (eq. 5): $w_i = \sqrt{\mathrm{SVIM}_i \cdot \mathrm{MDS}_i}$.

    Args:
        svims: ``(..., n)``.
        mdss: ``(..., n)``.

    Returns:
        ``(..., n)``. Where all weights of an image are 0 they are all 1, since the equation then says
        nothing about the layers.
    """
    weights = (svims * mdss).sqrt()
    none = (weights == 0).all(dim=-1, keepdim=True)
    return torch.where(none, torch.ones_like(weights), weights)


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
