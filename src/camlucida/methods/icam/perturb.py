"""Perturbed copies of the images, and how much each of them counts (I-CAM eq. 4-10)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.seeds import ImageGenerators

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
