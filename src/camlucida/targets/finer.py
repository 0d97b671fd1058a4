"""Targets of two of Grad-CAM's relatives: Finer-CAM's comparison and ShapleyCAM's utility."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from camlucida.common.limits import Count
from camlucida.targets.classes import ClassTarget
from camlucida.targets.margin import Contrast

Weights = Literal["probability", "mean"]


@dataclass(frozen=True, eq=False)
class FinerMargin(Contrast):
    r"""How a class differs from the classes most like it: Finer-CAM is any CAM on this target.

    $Y = \sum_{d} \omega_d\,(z_c - \alpha z_d)$ over the ``similar`` classes whose logits lie nearest to
    $z_c$, with $\omega_d = p_d / \sum_e p_e$ of the softmax, or equal ones. Evidence that the class shares
    with its neighbours cancels; with ``alpha=0`` it is the logit itself.

    Attributes:
        similar: how many classes to compare with, 3 by default; fewer where the model has fewer.
        alpha: strength of the comparison, 1 by default; less keeps more of the whole object.
        weights: ``"probability"`` (default; differentiated through, as the authors' code does) or
            ``"mean"``.
        rivals: the classes to compare with, see :class:`~camlucida.targets.Contrast`; ``None`` (default) takes the
            nearest ones of each image.

    Source: Zhang, Gu, Chowdhury, Mai, Carlyn, Berger-Wolf, Su and Chao, "Finer-CAM", CVPR 2025
    (arXiv 2501.11309): weights from the difference $y^c - \gamma y^d$. How several classes are weighed and
    chosen follows the authors' code (Imageomics/Finer-CAM, also part of pytorch-grad-cam).

    Example:
        >>> camlucida.FinerMargin(0, similar=1)(torch.tensor([[5.0, 4.0, 1.0]]))
        tensor([1.])
    """

    similar: Count = 3
    alpha: float = 1.0
    weights: Weights = "probability"

    def pin(self, outputs: Tensor) -> Self:
        """Fix the class of each image and those it is compared with."""
        logits = self.logits(outputs)
        classes = self.indices(logits)
        return replace(self, classes=classes, rivals=self._nearest(logits, classes))

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``; raises ``TargetError`` for a single output."""
        self._rivals(logits := self.logits(outputs), "FinerMargin")
        rivals = self._nearest(logits, self.indices(logits))
        differences = self._gather(logits)[:, None] - self.alpha * logits.gather(1, rivals)
        if self.weights == "mean":
            return differences.mean(1)
        # Relative to each other, so that a class with p near 1 leaves no 0 / 0.
        share = logits.gather(1, rivals).softmax(1)
        return (share * differences).sum(1)

    def _nearest(self, logits: Tensor, classes: Tensor) -> Tensor:
        if self.rivals is not None:
            return self.against(logits, classes)
        distance = (logits.detach() - logits.detach().gather(1, classes[:, None])).abs()
        distance = distance.scatter(1, classes[:, None], torch.inf)
        return distance.argsort(dim=1, stable=True)[:, : min(self.similar, logits.shape[1] - 1)]


@dataclass(frozen=True, eq=False)
class ResidualSoftmax(ClassTarget):
    r"""A class's logit plus its log-probability, $z_c + \log p_c$ ("ReST", the utility of ShapleyCAM).

    Its gradient is $(1, 0, ...) + (e_c - p)$: it neither ignores the other classes, as the logit does, nor
    vanishes where the softmax saturates.

    Source: Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025 (arXiv 2501.06261).

    Example:
        >>> camlucida.ResidualSoftmax(0)(torch.tensor([[2.0, 2.0]]))
        tensor([1.3069])
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``; of a single output the logit itself, whose softmax is 1."""
        logits = self.logits(outputs)
        return self._gather(logits) + self._gather(logits.log_softmax(1))
