"""What the map alone keeps of the image: Average Drop, Increase and Gain, and ADCC."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camlucida.common.statistics import correlation
from camlucida.engine.maps import normalise
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene, Space
from camlucida.metrics.passes import probability, scores_of
from camlucida.metrics.registry import Facts, MetricCost, register
from camlucida.metrics.robustness import explain_again


def average_drop(whole: Tensor, kept: Tensor) -> Tensor:
    r"""Relative fall of the probability, $100 \max(0, p - o) / p$ percent per image.

    Chattopadhay et al. 2018, section 4.1. Lower is better; 0 to 100.

    Args:
        whole: $p$ of the image, ``(N,)``.
        kept: $o$ of the image times its map, ``(N,)``.

    Returns:
        ``(N,)`` double; 0 where $p$ is 0, which cannot fall.

    Example:
        >>> whole, kept = torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.75])
        >>> camlucida.metrics.average_drop(whole, kept).tolist()
        [50.0, 0.0]
    """
    whole, kept = whole.double(), kept.double()
    fall = (whole - kept).clamp_min(0) / torch.where(whole > 0, whole, 1)
    return 100 * torch.where(whole > 0, fall, fall * 0)


def average_increase(whole: Tensor, kept: Tensor) -> Tensor:
    r"""100 where $o > p$, else 0: percent of images that gain. Arguments as :func:`average_drop`.

    Chattopadhay et al. 2018, section 4.1. Higher is better.

    Example:
        >>> whole, kept = torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.75])
        >>> camlucida.metrics.average_increase(whole, kept).tolist()
        [0.0, 100.0]
    """
    found = 100 * (kept > whole).double()
    return torch.where(whole.isnan() | kept.isnan(), torch.nan, found)


def average_gain(whole: Tensor, kept: Tensor) -> Tensor:
    r"""Relative rise, $100 \max(0, o - p) / (1 - p)$ percent per image. Arguments as :func:`average_drop`.

    Zhang et al. 2023, Opti-CAM. Higher is better; 0 to 100; 0 where $p$ is 1.

    Example:
        >>> whole, kept = torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.75])
        >>> camlucida.metrics.average_gain(whole, kept).tolist()
        [0.0, 50.0]
    """
    whole, kept = whole.double(), kept.double()
    room = 1 - whole
    rise = (kept - whole).clamp_min(0) / torch.where(room > 0, room, 1)
    return 100 * torch.where(room > 0, rise, rise * 0)


def coherency(maps: Tensor, again: Tensor) -> Tensor:
    r"""Correlation of each map with that of the image times the map, brought to [0, 1]: $(r + 1) / 2$.

    Poppi et al. 2021, section 3.2 (maximum coherency). Higher is better.

    Args:
        maps: ``(N, h, w)``.
        again: maps of the masked images, the same shape.

    Returns:
        ``(N,)``; 0 where one of the two is constant: a blank map is coherent with nothing. NaN for NaN.
    """
    a, b = maps.flatten(1), again.flatten(1)
    found = (correlation(a, b) + 1) / 2
    known = ~(a.isnan() | b.isnan()).any(1)
    return torch.where(known, found.nan_to_num(0), torch.nan)


def map_complexity(maps: Tensor) -> Tensor:
    r"""Mean of each map ``(N, h, w)`` scaled to [0, 1]: its L1 norm over the number of pixels, ``(N,)``.

    Poppi et al. 2021, section 3.2 (minimum complexity). Lower is better.
    """
    return normalise(maps.double()).mean((1, 2))


def adcc(coherent: Tensor, complexity: Tensor, drop: Tensor) -> Tensor:
    r"""$3 / (1/\mathrm{coherency} + 1/(1 - \mathrm{complexity}) + 1/(1 - \mathrm{average\ drop}))$.

    Poppi et al. 2021, section 3.2. Higher is better; 0 to 1.

    Args:
        coherent: ``(N,)`` in [0, 1].
        complexity: ``(N,)`` in [0, 1].
        drop: average drop as a share, ``(N,)`` in [0, 1].

    Returns:
        ``(N,)`` double; 0 where one of the three terms is 0.

    Example:
        >>> coherent, complexity, drop = torch.tensor([[1.0], [0.5], [0.5]])
        >>> round(camlucida.metrics.adcc(coherent, complexity, drop).item(), 6)
        0.6
    """
    terms = torch.stack([coherent, 1 - complexity, 1 - drop]).double()
    positive = (terms > 0).all(0)
    found = 3 / torch.where(positive, terms, 1).reciprocal().sum(0)
    return torch.where(terms.isnan().any(0), torch.nan, torch.where(positive, found, 0))


def masked(scene: Scene, maps: Tensor, space: Space) -> Tensor:
    """The images under their maps: each image times its map.

    Args:
        scene: the images.
        maps: ``(N, H, W)`` in [0, 1].
        space: what is multiplied.

    Returns:
        ``(N, C, H, W)``, as the model takes them.

    Raises:
        CamlucidaError: ``"pixel"`` where the model's preprocessing is not known.
    """
    images, as_inputs = scene.images(space)
    return as_inputs(images * maps[:, None].to(images))


def probabilities(scene: Scene, maps: Tensor, space: Space) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of the explained class for the images and for what their maps keep; the masked inputs."""
    images = masked(scene, maps, space)
    kept = scores_of(
        scene.model,
        scene.inputs,
        [(i, 0) for i in range(len(scene))],
        lambda i, _: images[i],
        lambda z, i: probability(scene.model, z, scene.classes[i]),
        scene.batch_size,
    )
    whole = probability(scene.model, scene.logits.double(), scene.classes)
    unknown = maps.flatten(1).isnan().any(1)
    return whole.masked_fill(unknown, torch.nan), kept.masked_fill(unknown, torch.nan), images


# ------------------------------------------------------------------------------------------- metrics


@register(
    "average_drop",
    title="Average Drop",
    direction="lower",
    range=(0.0, 100.0),
    unit="%",
    question="faithfulness",
    source="Chattopadhay et al. 2018, section 4.1; gain: Zhang et al. 2023, Opti-CAM",
    needs=("model", "logits"),
    cost=MetricCost(forwards=1),
    remark="a map that is 1 everywhere has no drop",
    numbers={
        "average_increase": Facts("Average Increase", "higher"),
        "average_gain": Facts("Average Gain", "higher"),
    },
)
@dataclass(frozen=True)
class AverageDrop(Metric):
    """What the probability of the explained class does when the image is multiplied with its map.

    Drop (lower is better), increase and gain (higher is better), in percent; averages are over images.

    Attributes:
        space: ``"auto"`` (default) multiplies ``"pixel"`` values in [0, 1], before mean and std, where the
            preprocessing is known, as Opti-CAM's code does; ``"input"`` multiplies what the model takes, where
            0 is usually the mean colour and not black.

    Example:
        >>> camlucida.metrics.AverageDrop().names
        ('average_drop', 'average_increase', 'average_gain')
    """

    space: Space = "auto"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """One forward pass of the masked images."""
        whole, kept, _ = probabilities(scene, explanation.maps, self.space)
        return Measured.of(
            average_drop=average_drop(whole, kept),
            average_increase=average_increase(whole, kept),
            average_gain=average_gain(whole, kept),
        )


@register(
    "adcc",
    title="ADCC",
    direction="higher",
    range=(0.0, 1.0),
    question="faithfulness",
    source="Poppi et al. 2021, section 3.2",
    needs=("model", "logits"),
    cost=MetricCost(forwards=1, explanations=1),
    remark="0 for a blank map",
    numbers={"coherency": Facts("Coherency"), "map_complexity": Facts("Map complexity", "lower")},
)
@dataclass(frozen=True)
class ADCC(Metric):
    """Average drop, coherency and complexity in one: their harmonic mean, as shares.

    Coherency compares the map with the one that the same method gives, for the same target, to the image times
    the map. Numbers: ``adcc``, ``coherency`` (both higher is better) and ``map_complexity`` (lower is better).

    Attributes:
        space: what is multiplied with the map, as for ``average_drop``.

    Example:
        >>> camlucida.metrics.ADCC(space="input").names
        ('adcc', 'coherency', 'map_complexity')
    """

    space: Space = "auto"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """One forward pass and one explanation of the masked images."""
        whole, kept, images = probabilities(scene, explanation.maps, self.space)
        again = explain_again(scene, explanation, images)
        coherent = coherency(explanation.maps, again.maps)
        simple = map_complexity(explanation.maps)
        drop = average_drop(whole, kept) / 100
        return Measured.of(
            adcc=adcc(coherent, simple, drop), coherency=coherent, map_complexity=simple
        )
