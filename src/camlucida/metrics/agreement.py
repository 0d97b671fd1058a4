"""How alike two maps of the same images are. Pure functions on pairs of maps, and the metrics made of them.

Maps are ``(N, h, w)``, two of the same shape; results ``(N,)`` double. Agreement with another method is no
quality: which way is better depends on what the other map stands for. With the map of the same method on a
model that somebody has tampered with, :func:`susceptibility` is a quality: lower is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.common import statistics
from camlucida.common.errors import CamlucidaError
from camlucida.engine.maps import normalise, resize
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.registry import Facts, register

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
    """
    a, b = _pair(maps, others)
    found = (normalise(a) - normalise(b)).square().mean((1, 2))
    return torch.where(_known(a, b), found, math.nan)


def susceptibility(clean: Tensor, fooled: Tensor) -> Tensor:
    """How far a model tuned to fool its explanations moves a method's maps.

    :func:`similarity` of the maps of one method on the clean and on the fooled model (Piland et al. 2025,
    DiffGradCAM, section 6.1, table 3). Lower is better; 0 to 1.

    Args:
        clean: ``(N, h, w)``, maps of the clean model.
        fooled: the same shape, of the fooled one.

    Returns:
        ``(N,)``, as :func:`similarity`.

    Raises:
        CamlucidaError: the shapes differ.
    """
    return similarity(clean, fooled)


def pearson(maps: Tensor, others: Tensor) -> Tensor:
    """Linear correlation of two maps, pixel by pixel (Pearson).

    Higher is more alike; -1 to 1.

    Args:
        maps: ``(N, h, w)``, any range.
        others: the same shape.

    Returns:
        ``(N,)``; NaN where either map is constant, or holds NaN.

    Raises:
        CamlucidaError: the shapes differ.
    """
    return statistics.correlation(*(m.flatten(1) for m in _pair(maps, others)))


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Correlation of the ranks of two maps, pixel by pixel (Spearman); equal values share their mean rank.

    Higher is more alike; -1 to 1. It does not change under any increasing function of either map. Used for
    maps by Adebayo et al. 2018 (Sanity checks), there of absolute values too: pass those.

    Args:
        maps: ``(N, h, w)``, any range.
        others: the same shape.

    Returns:
        ``(N,)``; NaN where either map is constant, or holds NaN.

    Raises:
        CamlucidaError: the shapes differ.
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


@dataclass(frozen=True)
class Agreement(Metric):
    """Base of the metrics that compare a method's maps with those of another method.

    Attributes:
        reference: name of the other method, ``"gradcam"`` by default; its explanations are
            ``scene.references[reference]``.
        resolution: compare maps of the layer's ``"native"`` resolution (where two differ, the smaller is
            enlarged bilinearly) or attribution maps at the ``"input"``'s.
    """

    reference: str = "gradcam"
    resolution: Resolution = "native"

    @property
    def stem(self) -> str:
        """The number's name without the reference."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """One number, named after the reference too."""
        return (f"{self.stem}@{self.reference}",)

    def compare(self, maps: Tensor, others: Tensor) -> Tensor:
        """``(N,)`` from two maps ``(N, h, w)``."""
        raise NotImplementedError

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Against the reference's maps of the same images."""
        other = scene.reference(self.reference)
        if len(other) != len(explanation):
            raise CamlucidaError(
                f"the reference {self.reference!r} explains {len(other)} images, but "
                f"{len(explanation)} are to be compared"
            )
        maps, others = (
            (explanation.maps, other.maps)
            if self.resolution == "input"
            else (explanation.raw, other.raw)
        )
        size = (
            max(int(maps.shape[1]), int(others.shape[1])),
            max(int(maps.shape[2]), int(others.shape[2])),
        )
        found = self.compare(resize(maps, size), resize(others.to(maps.device), size))
        return Measured.of(**{self.names[0]: found})


@register(
    "similarity",
    title="MSE to {}",
    direction="none",
    range=(0.0, 1.0),
    question="agreement",
    source="Piland et al. 2025 (DiffGradCAM), section 6.1, table 2",
    needs=("reference",),
    cost="the reference's explanation",
    remark="smaller is closer to the reference method, which is no quality in itself",
)
@dataclass(frozen=True)
class Similarity(Agreement):
    """Mean squared difference to the map of a reference method, both scaled to [0, 1].

    Smaller is closer; 0 to 1; constant maps count as zeros.
    """

    @property
    def stem(self) -> str:
        """The number's name."""
        return "similarity"

    def compare(self, maps: Tensor, others: Tensor) -> Tensor:
        """``(N,)`` from two maps ``(N, h, w)``."""
        return similarity(maps, others)


@register(
    "rank_correlation",
    title="Rank correlation with {}",
    direction="none",
    range=(-1.0, 1.0),
    question="agreement",
    source="Spearman; Adebayo et al. 2018 (Sanity checks)",
    needs=("reference",),
    cost="the reference's explanation",
    remark="larger is closer to the reference method; a constant map does not count",
    numbers={"pearson": Facts("Correlation with {}")},
)
@dataclass(frozen=True)
class RankCorrelation(Agreement):
    """Correlation with the map of a reference method: of ranks (Spearman), and of values (``pearson``).

    Larger is closer; -1 to 1; NaN (not counted) where either map is constant.
    """

    @property
    def stem(self) -> str:
        """The number's name."""
        return "rank_correlation"

    @property
    def names(self) -> tuple[str, ...]:
        """Of ranks, and of values."""
        return (f"rank_correlation@{self.reference}", f"pearson@{self.reference}")

    def compare(self, maps: Tensor, others: Tensor) -> Tensor:
        """``(N,)`` from two maps ``(N, h, w)``."""
        return rank_correlation(maps, others)

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Against the reference's maps of the same images."""
        of_values = _Pearson(self.reference, self.resolution).measure(scene, explanation)
        return Measured.of(**super().measure(scene, explanation).values, **of_values.values)


@dataclass(frozen=True)
class _Pearson(Agreement):
    @property
    def stem(self) -> str:
        return "pearson"

    def compare(self, maps: Tensor, others: Tensor) -> Tensor:
        return pearson(maps, others)


@register(
    "ssim",
    title="SSIM with {}",
    direction="none",
    range=(-1.0, 1.0),
    question="agreement",
    source="Wang et al. 2004, equation 13",
    needs=("reference",),
    cost="the reference's explanation",
    remark="larger is closer to the reference method",
)
@dataclass(frozen=True)
class SSIM(Agreement):
    """Structural similarity with the map of a reference method.

    Larger is closer; -1 to 1; 1 for equal maps.

    Attributes:
        resolution: the ``"input"``'s by default: a window is 11 pixels wide.
    """

    resolution: Resolution = "input"

    @property
    def stem(self) -> str:
        """The number's name."""
        return "ssim"

    def compare(self, maps: Tensor, others: Tensor) -> Tensor:
        """``(N,)`` from two maps ``(N, h, w)``, scaled to [0, 1] first."""
        return ssim(normalise(maps), normalise(others))
