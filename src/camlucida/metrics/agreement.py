"""How alike two maps of the same images are. Pure functions on pairs of maps, and the metrics made of them.

Maps are ``(N, h, w)``, two of the same shape; results ``(N,)`` double. Agreement with another method is no
quality: which way is better depends on what the other map stands for. With the map of the same method on a
model that somebody has tampered with, :func:`susceptibility` is a quality: lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from camlucida.common import statistics
from camlucida.common.errors import CamlucidaError
from camlucida.engine.maps import normalise, resize
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.registry import Facts, MetricCost, register

Resolution = Literal["native", "input"]

_WINDOW = 11


def similarity(maps: Tensor, others: Tensor) -> Tensor:
    r"""Mean squared difference of two maps, each scaled to [0, 1].

    $\mathrm{mean}\, (\hat L - \hat L')^2$ (Piland et al. 2025, DiffGradCAM, section 6.1, tables 2 and 3:
    similarity to Grad-CAM). Lower is more alike; 0 to 1. The paper does not say how maps are scaled or at
    which resolution; its numbers fit scaling by minimum and maximum, and it is used at the layer's own
    resolution here.

    Args:
        maps: ``(N, h, w)``, any range.
        others: the same shape.

    Returns:
        ``(N,)``. A constant map counts as zeros, so that two of them differ by 0. NaN where a map holds NaN.

    Raises:
        CamlucidaError: the shapes differ.

    Example:
        >>> maps = torch.rand(2, 16, 16, dtype=torch.float64)
        >>> camlucida.metrics.similarity(maps, maps).round(decimals=6).tolist()
        [0.0, 0.0]
    """
    a, b = _pair(maps, others)
    found = (normalise(a) - normalise(b)).square().mean((1, 2))
    return torch.where(_known(a, b), found, math.nan)


def susceptibility(clean: Tensor, fooled: Tensor) -> Tensor:
    """How far a model tuned to fool its explanations moves a method's maps.

    :func:`similarity` of the maps of one method on the clean and on the fooled model (Piland et al. 2025,
    DiffGradCAM, section 6.1, table 3). Lower is better; 0 to 1. Arguments, results and errors are those of
    :func:`similarity`, the maps of the clean model first.

    Example:
        >>> maps = torch.rand(2, 16, 16, dtype=torch.float64)
        >>> camlucida.metrics.susceptibility(maps, maps).round(decimals=6).tolist()
        [0.0, 0.0]
    """
    return similarity(clean, fooled)


def pearson(maps: Tensor, others: Tensor) -> Tensor:
    """Linear correlation of two maps ``(N, h, w)``, pixel by pixel (Pearson).

    Higher is more alike; -1 to 1.

    Returns:
        ``(N,)``; NaN where either map is constant, or holds NaN.

    Raises:
        CamlucidaError: the shapes differ.

    Example:
        >>> maps = torch.rand(2, 16, 16, dtype=torch.float64)
        >>> camlucida.metrics.pearson(maps, 1 - maps).round(decimals=6).tolist()
        [-1.0, -1.0]
    """
    return statistics.correlation(*(m.flatten(1) for m in _pair(maps, others)))


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Correlation of the ranks of two maps ``(N, h, w)``, pixel by pixel (Spearman).

    Equal values share their mean rank. Higher is more alike; -1 to 1. It does not change under any increasing
    function of either map. Used for maps by Adebayo et al. 2018 (Sanity checks), there of absolute values too: pass
    those.

    Returns:
        ``(N,)``; NaN where either map is constant, or holds NaN.

    Raises:
        CamlucidaError: the shapes differ.

    Example:
        >>> maps = torch.rand(2, 16, 16, dtype=torch.float64)
        >>> camlucida.metrics.rank_correlation(maps, maps.exp()).round(decimals=6).tolist()
        [1.0, 1.0]
    """
    return statistics.rank_correlation(*(m.flatten(1) for m in _pair(maps, others)))


def ssim(maps: Tensor, others: Tensor) -> Tensor:
    r"""Structural similarity of two maps (Wang et al. 2004, equation 13, mean over windows).

    Gaussian window of 11 x 11 pixels, $\sigma = 1.5$, $K_1 = 0.01$, $K_2 = 0.03$, data range 1; windows that
    lie inside the map only. Higher is more alike; -1 to 1.

    Args:
        maps: ``(N, H, W)`` in [0, 1], at least 11 pixels to a side.
        others: the same shape.

    Returns:
        ``(N,)``; 1 for equal maps, constant ones too. NaN where a map holds NaN.

    Raises:
        CamlucidaError: the shapes differ, or the maps are smaller than a window.

    Example:
        >>> maps = torch.rand(2, 16, 16, dtype=torch.float64)
        >>> camlucida.metrics.ssim(maps, maps).round(decimals=6).tolist()
        [1.0, 1.0]
    """
    a, b = _pair(maps, others)
    if min(a.shape[1:]) < _WINDOW:
        raise CamlucidaError(
            f"SSIM needs maps of at least {_WINDOW} pixels to a side, got {tuple(a.shape[1:])}; compare at the "
            "input's resolution"
        )
    return statistics.ssim(a[:, None], b[:, None], how="windowed")


def _pair(maps: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    if maps.ndim != 3 or maps.shape != others.shape:
        raise CamlucidaError(
            f"two maps of one shape (N, h, w) are compared, got {tuple(maps.shape)} and "
            f"{tuple(others.shape)}"
        )
    return maps.double(), others.to(maps.device).double()


def _known(a: Tensor, b: Tensor) -> Tensor:
    return ~(a.isnan() | b.isnan()).flatten(1).any(1)


# ------------------------------------------------------------------------------------------- metrics

_AGREEMENT: dict[str, Any] = {
    "direction": "none", "question": "agreement", "needs": ("reference",), "cost": MetricCost(references=1),
}  # fmt: skip
"""Facts of all metrics that compare with another method."""


@dataclass(frozen=True)
class Agreement(Metric):
    """Base of the metrics that compare a method's maps with those of another method.

    Attributes:
        compares: of each number, by its name without the reference, ``(N,)`` from two maps ``(N, h, w)``.
        reference: name of the other method, ``"gradcam"`` by default; its explanations are
            ``scene.references[reference]``.
        resolution: compare maps of the layer's ``"native"`` resolution (where two differ, the smaller is
            enlarged bilinearly) or attribution maps at the ``"input"``'s.
    """

    compares: ClassVar[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {}

    reference: str = "gradcam"
    resolution: Resolution = "native"

    @property
    def names(self) -> tuple[str, ...]:
        """Each number, named after the reference too."""
        return tuple(f"{stem}@{self.reference}" for stem in self.compares)

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Against the reference's maps of the same images."""
        other = scene.reference(self.reference)
        if len(other) != len(explanation):
            raise CamlucidaError(
                f"the reference {self.reference!r} explains {len(other)} images, but "
                f"{len(explanation)} are to be compared"
            )
        pair = [e.maps if self.resolution == "input" else e.raw for e in (explanation, other)]
        size = (max(m.shape[1] for m in pair), max(m.shape[2] for m in pair))
        maps, others = (resize(m.to(pair[0].device), size) for m in pair)
        found = [compare(maps, others) for compare in self.compares.values()]
        return Measured(dict(zip(self.names, found, strict=True)))


@register(
    "similarity",
    title="MSE to {}",
    range=(0.0, 1.0),
    **_AGREEMENT,
    source="Piland et al. 2025 (DiffGradCAM), section 6.1, table 2",
    remark="smaller is closer to the reference method, which is no quality in itself",
)
@dataclass(frozen=True)
class Similarity(Agreement):
    """Mean squared difference to the map of a reference method, both scaled to [0, 1].

    Smaller is closer; 0 to 1; constant maps count as zeros.

    Example:
        >>> camlucida.metrics.Similarity(reference="layercam").names
        ('similarity@layercam',)
    """

    compares: ClassVar = {"similarity": similarity}


@register(
    "rank_correlation",
    title="Rank correlation with {}",
    range=(-1.0, 1.0),
    **_AGREEMENT,
    source="Spearman; Adebayo et al. 2018 (Sanity checks)",
    remark="larger is closer to the reference method; a constant map does not count",
    numbers={"pearson": Facts("Correlation with {}")},
)
@dataclass(frozen=True)
class RankCorrelation(Agreement):
    """Correlation with the map of a reference method: of ranks (Spearman), and of values (``pearson``).

    Larger is closer; -1 to 1; NaN (not counted) where either map is constant.

    Example:
        >>> camlucida.metrics.RankCorrelation().names
        ('rank_correlation@gradcam', 'pearson@gradcam')
    """

    compares: ClassVar = {"rank_correlation": rank_correlation, "pearson": pearson}


@register(
    "ssim",
    title="SSIM with {}",
    range=(-1.0, 1.0),
    **_AGREEMENT,
    source="Wang et al. 2004, equation 13",
    remark="larger is closer to the reference method",
)
@dataclass(frozen=True)
class SSIM(Agreement):
    """Structural similarity with the map of a reference method, both scaled to [0, 1].

    Larger is closer; -1 to 1; 1 for equal maps.

    Attributes:
        resolution: the ``"input"``'s by default: a window is 11 pixels wide.

    Example:
        >>> camlucida.metrics.SSIM().resolution
        'input'
    """

    compares: ClassVar = {"ssim": lambda a, b: ssim(normalise(a), normalise(b))}

    resolution: Resolution = "input"
