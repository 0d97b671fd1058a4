"""Does the map change when the model's weights are redrawn? The two repaired tests of Hedström et al. 2023.

Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation Test. The test that they repair is
the one of ``camlucida audit sanity``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.limits import Count, NotNegative
from camlucida.engine.redraw import randomisation_stages, redrawn
from camlucida.explanation import Explanation
from camlucida.metrics.agreement import rank_correlation
from camlucida.metrics.base import OneNumber, Scene
from camlucida.metrics.registry import MetricCost, register
from camlucida.metrics.robustness import Map, explain_again, streams


def histogram_entropy(maps: Tensor, bins: int = 100) -> Tensor:
    r"""How complex maps are: $-\sum_b p_b \ln p_b$ over equal bins from the smallest to the largest value.

    Args:
        maps: ``(N, h, w)``.
        bins: how many.

    Returns:
        ``(N,)`` double; 0 for a constant map.
    """
    found = []
    for one in maps.double():
        counts = torch.histc(one.cpu(), bins)  # from the smallest to the largest value
        share = counts / counts.sum()
        found.append(-(share * share.clamp_min(1e-300).log()).sum())
    return torch.stack(found).to(maps.device)


@register(
    "emprt",
    title="eMPRT",
    direction="higher",
    range=(-1.0, math.inf),
    question="randomisation",
    source="Hedström et al. 2023, section 4.2",
    needs=("model",),
    cost=MetricCost(explanations=1),
    slow=True,
    remark="a noisy model has a noisy map, which is why it should rise; a constant map does not count",
)
@dataclass(frozen=True)
class EMPRT(OneNumber):
    """How much more complex the map becomes when all weights of the model are redrawn.

    The efficient model parameter randomisation test: the entropy of the map's histogram after, less that before, over
    that before.

    Attributes:
        bins: of the histogram, 100 by default.
        of: which map: the ``"signed"`` one (default), ``"raw"`` or ``"maps"``.

    Example:
        >>> camlucida.metrics.EMPRT().names
        ('emprt',)
    """

    bins: Count = 100
    of: Map = "signed"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """One explanation of the redrawn model."""
        twin = replace(scene, model=scene.once("redrawn", lambda: redrawn(scene.model, scene.seed)))
        again = explain_again(twin, explanation, scene.inputs)
        before, after = (
            histogram_entropy(getattr(e, self.of), self.bins) for e in (explanation, again)
        )
        return torch.where(before > 0, (after - before) / before, torch.nan)


@register(
    "smprt",
    title="sMPRT",
    direction="lower",
    range=(-1.0, 1.0),
    question="randomisation",
    source="Hedström et al. 2023, section 4.1",
    needs=("model",),
    cost=MetricCost(explanations=300),
    slow=True,
    remark="the map is averaged over noisy images first, so that noise in it does not pass for a change",
)
@dataclass(frozen=True)
class SMPRT(OneNumber):
    """How alike the smoothed map stays while more and more weights are redrawn.

    The smooth model parameter randomisation test: Spearman's correlation with the map of the trained model, both
    averaged over noisy images; the mean over the stages.

    Attributes:
        samples: noisy images, 50 by default.
        noise: standard deviation of the noise, as a share of the image's range, 0.1 by default.
        stages: groups of layers that are redrawn one after the other, 5 by default.
        order: ``"bottom_up"`` begins at the image (default), ``"top_down"`` at the output.

    Example:
        >>> camlucida.metrics.SMPRT(samples=2).names
        ('smprt',)
    """

    samples: Count = 50
    noise: NotNegative = 0.1
    stages: Count = 5
    order: Literal["bottom_up", "top_down"] = "bottom_up"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """As many explanations as samples, of the model and of each stage."""
        stages = randomisation_stages(scene.model, scene.inputs, self.stages)
        before = self._smoothed(scene, explanation)
        names: list[str] = []
        found = []
        for stage in stages if self.order == "top_down" else reversed(stages):
            names += stage
            twin = redrawn(scene.model, scene.seed, names)
            after = self._smoothed(replace(scene, model=twin), explanation)
            found.append(rank_correlation(before, after))
        return torch.stack(found).mean(0)

    def _smoothed(self, scene: Scene, explanation: Explanation) -> Tensor:
        draw, images = streams(scene), scene.inputs
        spread = self.noise * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))
        total = torch.zeros_like(explanation.signed)
        for _ in range(self.samples):
            noise = draw.randn(images.shape[1:], images)
            near = images + spread[:, None, None, None] * noise
            total = total + explain_again(scene, explanation, near).signed
        return total / self.samples
