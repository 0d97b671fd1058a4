"""EigenGradCAM: the first principal component of gradient times activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.methods.base import GradientCAM
from camlucida.methods.eigencam import EigenCAM
from camlucida.methods.registry import register

Sign = Literal["evidence", "extreme", "none"]


def principal(products: Tensor, sign: Sign = "evidence") -> Tensor:
    """The first principal component of per-channel maps, ``(N, K, h, w)`` to ``(N, h, w)``.

    The channels are centred, as in pytorch-grad-cam; the cells of a constant tensor are 0.

    Args:
        products: what a method adds up over the channels.
        sign: a principal component has no sign of its own. ``"evidence"`` (default) makes it run with the
            sum over the channels; ``"extreme"`` makes the larger extreme positive; ``"none"`` keeps what
            LAPACK returns.
    """
    component = EigenCAM(sign="none" if sign == "none" else "auto").project(products)
    if sign != "evidence":
        return component
    summed = products.sum(1)
    along = ((summed - summed.mean((1, 2), keepdim=True)) * component).sum((1, 2), keepdim=True)
    return torch.where(along < 0, -component, component)


@register(
    "eigengradcam",
    paper="Gildenblat et al. 2021 (pytorch-grad-cam)",
    year=2021,
    equation="EigenGradCAM",
    weights="cell",
    quick_audits=False,
)
@dataclass(frozen=True)
class EigenGradCAM(GradientCAM):
    r"""EigenCAM of activation times gradient: the strongest pattern of the evidence for a class.

    With $P = A \odot \partial Y / \partial A$ reshaped to $(hw, K)$ and centred per channel,
    $P = U \Sigma V^\top$ and the map is $P v_1$.

    Attributes:
        sign: ``"evidence"`` (default) turns the component the way of the sum over channels (HiResCAM's map);
            ``"extreme"`` makes the larger extreme positive, as EigenCAM does here; ``"none"`` keeps what
            LAPACK returns, as pytorch-grad-cam does.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.EigenGradCAM())
    """

    sign: Sign = "evidence"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        return principal(activation * gradient, self.sign)
