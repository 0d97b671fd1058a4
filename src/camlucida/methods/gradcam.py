"""Grad-CAM and the methods that read their weights off the first gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.engine.maps import rectify
from camlucida.methods.base import GradientCAM, weigh
from camlucida.methods.registry import register
from camlucida.targets import LogitMargin


@register(
    "diffgradcam",
    use="Why this class and not the others: the evidence that tells it from its rivals.",
    paper="Piland, Sweet & Czajka 2025",
    year=2025,
    equation="1, 2, 5, 6",
    target=LogitMargin,
    remark="Grad-CAM on the margin of a class over its rivals",
    needs=("gradients", "classes"),
    weights="channel",
)
@register(
    "gradcam",
    use="The usual first look: where in the photo the evidence for a class lies, in one "
    "quick pass.",
    paper="Selvaraju et al. 2017",
    year=2017,
    equation="1, 2",
    weights="channel",
    sums_to="sum",
)
@dataclass(frozen=True)
class GradCAM(GradientCAM):
    r"""Each channel weighted by its mean gradient.

    $L = \mathrm{ReLU}(\sum_k w_k A^k)$ with $w_k = \frac{1}{hw}\sum_{ij} \partial Y / \partial A^k_{ij}$.
    On a :class:`~camlucida.targets.LogitMargin` this is DiffGradCAM.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.GradCAM())
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        return weigh(gradient.mean(dim=(2, 3)), activation)


@register(
    "xgradcam",
    use="As Grad-CAM, with a channel's weight taken where the channel is active.",
    paper="Fu et al. 2020",
    year=2020,
    equation="8",
    weights="channel",
    sums_to="sum",
    quick_audits=False,
)
@dataclass(frozen=True)
class XGradCAM(GradientCAM):
    r"""Gradients averaged with the normalised activation as weight.

    $w_k = \sum_{ij} (A^k_{ij} / \sum_{ab} A^k_{ab})\, \partial Y / \partial A^k_{ij}$; 0 where the
    activation sums to 0.

    Attributes:
        norm: divide by the sum (``"sum"``, the paper) or by the sum of absolute values (``"l1"``); they
            agree where no activation is negative.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.XGradCAM(norm="l1"))
    """

    norm: Literal["sum", "l1"] = "sum"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        mass = (activation.abs() if self.norm == "l1" else activation).sum(dim=(2, 3))
        some = mass != 0
        weight = (activation * gradient).sum(dim=(2, 3)) / torch.where(some, mass, 1)
        return weigh(torch.where(some, weight, 0), activation)


@register(
    "hirescam",
    use="As Grad-CAM, but only cells that the score really uses light up; the safe choice "
    "where the head is more than one linear layer.",
    paper="Draelos & Carin 2020",
    year=2020,
    equation="section 3.2",
    weights="cell",
    sums_to="sum",
)
@dataclass(frozen=True)
class HiResCAM(GradientCAM):
    r"""Activation times gradient, cell by cell.

    $L = \mathrm{ReLU}(\sum_k \partial Y / \partial A^k \odot A^k)$, summed over channels before the ReLU.
    Zero wherever the head ignores the cell.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.HiResCAM())
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        return (gradient * activation).sum(dim=1)


@register(
    "gradcam-ew",
    use="As Grad-CAM, keeping only what speaks for the class, cell by cell.",
    paper="Gildenblat et al. 2021 (pytorch-grad-cam); a baseline of FAME",
    year=2021,
    equation="GradCAMElementWise",
    weights="cell",
    quick_audits=False,
)
@dataclass(frozen=True)
class GradCAMEW(GradientCAM):
    r"""Element-wise Grad-CAM: only positive products count.

    $L = \sum_k \mathrm{ReLU}(\partial Y / \partial A^k \odot A^k)$, rectified before the channels are summed.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.GradCAMEW())
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the map ``(N, h, w)``, which is never negative."""
        return rectify(gradient * activation).sum(dim=1)


@register(
    "layercam",
    use="Finer maps from early layers, where Grad-CAM gets noisy.",
    paper="Jiang et al. 2021",
    year=2021,
    equation="6, 7",
    weights="cell",
)
@dataclass(frozen=True)
class LayerCAM(GradientCAM):
    r"""Positive gradients times activation, cell by cell; made for layers of any depth.

    $L = \mathrm{ReLU}(\sum_k \mathrm{ReLU}(\partial Y / \partial A^k) \odot A^k)$. Several layers are averaged
    after each has been normalised and resized.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.LayerCAM(), layers=["1", "4"])
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        return (rectify(gradient) * activation).sum(dim=1)
