"""EigenCAM and EigenGradCAM: the first principal component of the activation, and of gradient times activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from camlucida.methods.base import GradientCAM, Method, RawMap, assemble
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task

Sign = Literal["evidence", "extreme", "none"]


@register(
    "eigencam",
    use="What stands out in the features, whatever the class; it explains no decision.",
    paper="Muhammad & Yeasin 2020",
    year=2020,
    equation="2, 3",
    discriminative=False,
    needs=(),
    cost=Cost(forward=1),
    weights="channel",
)
@dataclass(frozen=True)
class EigenCAM(Method):
    r"""Projection of the activation on its first principal direction.

    With $A$ reshaped to $(hw, K)$ and $A = U \Sigma V^\top$ the map is $A v_1$.

    Attributes:
        center: subtract each channel's spatial mean first (default, as in pytorch-grad-cam); the original
            paper does not.
        sign: a singular vector has no sign of its own. ``"auto"`` (default) makes the larger extreme positive
            (centred) or the sum positive (not centred); ``"none"`` keeps what numpy's SVD returns, as
            pytorch-grad-cam does.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.EigenCAM(center=False))
    """

    center: bool = True
    sign: Literal["auto", "none"] = "auto"

    def run(self, task: Task) -> RawMap:
        """One forward pass."""
        tapped = task.tap(gradients=False)
        return assemble(self, task, tapped, lambda _, activation, __: self.project(activation))

    def project(self, activation: Tensor) -> Tensor:
        """``(N, K, h, w)`` to the signed map ``(N, h, w)``; zeros for a constant activation."""
        cells = activation.flatten(2).transpose(1, 2)
        if self.center:
            cells = cells - cells.mean(dim=1, keepdim=True)
        finite = cells.isfinite().flatten(1).all(1)
        cells = torch.where(finite[:, None, None], cells, 0)
        # One image at a time: batched drivers differ in the sign and in the last digits.
        first = torch.stack([_first(c, numpys=self.sign == "none") for c in cells])
        flat = torch.einsum("npk,nk->np", cells, first)
        if self.sign == "auto":
            negative = -flat.amin(1) > flat.amax(1) if self.center else flat.sum(1) < 0
            flat = torch.where(negative[:, None], -flat, flat)
        flat = torch.where(finite[:, None], flat, torch.nan)
        # Rounding leaves a pattern of noise where there was none.
        scale = activation.flatten(1).abs().amax(1, keepdim=True)
        noise = flat.abs().amax(1, keepdim=True) <= 1e-6 * scale * activation.shape[1] ** 0.5
        return torch.where(noise, 0, flat).view(-1, *activation.shape[2:])


def _first(cells: Tensor, *, numpys: bool) -> Tensor:
    """The first right-singular vector of ``(cells, K)``, with numpy's sign or torch's, which differ."""
    if numpys:
        array = cells.detach().cpu().numpy()
        return torch.from_numpy(np.linalg.svd(array, full_matrices=False)[2][0]).to(cells)
    first: Tensor = torch.linalg.svd(cells, full_matrices=False).Vh[0]
    return first


def principal(products: Tensor, sign: Sign = "evidence") -> Tensor:
    """The first principal component of per-channel maps, ``(N, K, h, w)`` to ``(N, h, w)``.

    The channels are centred, as in pytorch-grad-cam; the cells of a constant tensor are 0.

    Args:
        products: what a method adds up over the channels.
        sign: a principal component has no sign of its own. ``"evidence"`` (default) makes it run with the
            sum over the channels; ``"extreme"`` makes the larger extreme positive; ``"none"`` keeps what
            numpy's SVD returns.
    """
    component = EigenCAM(sign="none" if sign == "none" else "auto").project(products)
    if sign != "evidence":
        return component
    summed = products.sum(1)
    along = ((summed - summed.mean((1, 2), keepdim=True)) * component).sum((1, 2), keepdim=True)
    return torch.where(along < 0, -component, component)


@register(
    "eigengradcam",
    use="The strongest pattern of the evidence for a class, with fewer specks than HiResCAM.",
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
