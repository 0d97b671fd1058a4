"""The map of one layer, and the fusion of all (I-CAM eq. 20, 21, 26-28)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.errors import MethodError
from camlucida.engine.maps import Normalise, normalise, rectify, resize

Bias = Literal["channel", "spatial", "none"]
BiasForm = Literal["product_of_sums", "sum_of_products"]


@dataclass(frozen=True)
class LayerMap:
    """A map and a spatial constant that belongs to it but is never added to it.

    The bias is a constant of the order of K S, thousands of times larger than what differs from
    place to place; adding it in single precision would swallow the map.

    Attributes:
        values: ``(N, h, w)``, double precision.
        constant: ``(N,)``, double precision: the map is ``values + constant``.
    """

    values: Tensor
    constant: Tensor

    def rectified(self) -> LayerMap:
        """``max(values + constant, 0)``."""
        return LayerMap(self.values.maximum(-self.constant[:, None, None]), self.constant)

    def normalised(self, how: Normalise) -> LayerMap:
        """Scaled as by :func:`camlucida.engine.maps.normalise`: minmax drops the constant, max divides it too."""
        if how == "none":
            return self
        if how == "minmax":
            return LayerMap(normalise(self.values, "minmax"), torch.zeros_like(self.constant))
        if how != "max":
            raise MethodError(f"layer_normalise must be 'none', 'minmax' or 'max', got {how!r}")
        top = self.values.amax(dim=(1, 2)) + self.constant
        positive = top > 0
        top = torch.where(positive, top, 1)
        return LayerMap(
            torch.where(positive[:, None, None], self.values / top[:, None, None], 0),
            torch.where(positive, self.constant / top, 0),
        )


def entry_weights(alpha: Tensor | None, slope: Tensor) -> Tensor:
    r"""$w = \tanh(\alpha) \cdot \mathrm{ReLU}(\partial Y / \partial A)$, entry by entry (eq. 26).

    Args:
        alpha: ``(N, K, h, w)``, infinite allowed; ``None`` for the weights without alpha, which are those
            of LayerCAM.
        slope: $\partial Y / \partial A = f' g$, up to a positive factor per image, ``(N, K, h, w)``.

    Returns:
        ``(N, K, h, w)``.
    """
    positive = rectify(slope)
    return positive if alpha is None else torch.tanh(alpha) * positive


def layer_map(
    activation: Tensor,
    weights: Tensor,
    score: Tensor,
    factor: Tensor,
    *,
    bias: Bias = "channel",
    bias_form: BiasForm = "product_of_sums",
) -> LayerMap:
    r"""The map of a layer (eq. 20), $L = \sum_k (w^k \odot A^k + b_k)$.

    Args:
        activation: ``(N, K, h, w)``.
        weights: see :func:`entry_weights`, without ``factor``, ``(N, K, h, w)``.
        score: the raw logit S, which every channel's bias holds once, ``(N,)``.
        factor: what all weights of an image are yet to be multiplied by, ``(N,)``.
        bias: ``"channel"`` (default; eq. 27) $b_k = S - (\sum_{ij} w^k_{ij})(\sum_{ij} A^k_{ij})$, the same
            everywhere; ``"spatial"`` (eq. 28) $b_{k,ij} = S - w^k_{ij} \sum_{ab} A^k_{ab}$; or ``"none"``.
        bias_form: of the channel bias: ``"product_of_sums"`` as printed, or ``"sum_of_products"``,
            $S - \sum_{ij} w^k_{ij} A^k_{ij}$.

    Returns:
        The map with its constant kept apart, in double precision.
    """
    wide = score.dtype
    values = torch.einsum("nkhw,nkhw->nhw", weights, activation).to(wide)
    mass = activation.sum(dim=(2, 3))
    constant = torch.zeros_like(score)
    if bias == "spatial":
        values = values - torch.einsum("nkhw,nk->nhw", weights, mass).to(wide)
    elif bias == "channel":
        if bias_form == "product_of_sums":
            products = weights.sum(dim=(2, 3)).to(wide) * mass.to(wide)
        else:
            products = (weights * activation).sum(dim=(2, 3)).to(wide)
        constant = -factor * products.sum(1)
    if bias != "none":
        constant = constant + activation.shape[1] * score
    return LayerMap(factor[:, None, None] * values, constant)


def fuse(
    maps: Mapping[str, LayerMap],
    weights: Tensor,
    size: tuple[int, int],
    *,
    relu: bool = False,
    layer_normalise: Normalise = "none",
) -> Tensor:
    r"""The fused map (eq. 21), $\sum_l W_l \, \mathrm{Resize}(L_l)$, less its spatial constant.

    Args:
        maps: one per layer.
        weights: ``(N, R, L)``: for each image R sets of layer weights, which share the maps.
        size: (H, W).
        relu: rectify each layer's map first, with its constant.
        layer_normalise: then scale it.

    Returns:
        ``(N, R, H, W)``, double precision.
    """
    fused: Tensor | int = 0
    for position, one in enumerate(maps.values()):
        scaled = (one.rectified() if relu else one).normalised(layer_normalise)
        resized = resize(scaled.values, size)[:, None]
        fused = fused + weights[:, :, position, None, None].to(resized) * resized
    assert isinstance(fused, Tensor)  # noqa: S101
    return fused
