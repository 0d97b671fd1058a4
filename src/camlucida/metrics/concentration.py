"""How a map spreads its attribution: sparseness, entropy, area, and what falls on a dead zone.

Pure functions on maps ``(N, h, w)`` of any resolution; results ``(N,)`` double, and the metrics made of them.
A map that holds NaN gets NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count
from camlucida.engine.maps import normalise, rectify, resize
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, OneNumber, Scene
from camlucida.metrics.registry import Facts, register

_EPS = 1e-10


def sparseness(maps: Tensor) -> Tensor:
    r"""Gini index of the absolute values of maps ``(N, h, w)`` (Chalasani et al. 2020; Hurley and Rickard 2009).

    $G = \sum_i (2i - n - 1)\, |a|_{(i)} / (n \sum_i |a|_i)$ with the values in ascending order. Higher is sparser,
    which the paper takes for better; 0 (all equal) to 1 - 1/n (one pixel has all).

    Returns:
        ``(N,)``; 0 for a zero map and for a constant map.

    Example:
        >>> camlucida.metrics.sparseness(torch.eye(4)[None]).item()
        0.75
    """
    values = maps.double().abs().flatten(1).sort(1).values
    count = values.shape[1]
    place = torch.arange(1, count + 1, dtype=torch.float64, device=maps.device)
    total = values.sum(1)
    lean = (values * (2 * place - count - 1)).sum(1)
    gini = (lean / (count * torch.where(total == 0, 1, total))).clamp(0, 1)
    constant = values[:, 0] == values[:, -1]
    return torch.where(constant, 0.0, gini)


def cam_entropy(maps: Tensor, base: float = math.e) -> Tensor:
    r"""Entropy of a class activation map.

    $M$ = the map scaled to [0, 1] by its minimum and maximum, $p = M / (\sum M + 10^{-10}) + 10^{-10}$,
    $H = -\sum p \log p$ (Schöttl 2022; Piland et al. 2025, DiffGradCAM, section 3.2). The papers speak of
    Shannons (bits), but their numbers are nats: 28 equal cells have ln 28 = 3.33. They take the class-weight
    CAM at its own resolution without ReLU (7 x 7: at most ln 49 = 3.89), and 3.35 as the mean of models
    trained with human salience. It describes and does not judge.

    Args:
        maps: ``(N, h, w)`` of any sign: a method's ``signed`` map at the layer's resolution.
        base: of the logarithm; e (default) for nats, 2 for bits.

    Returns:
        ``(N,)``; 0 for a zero or constant map, which scaling empties.

    Raises:
        CamlucidaError: the base is not above 1.

    Example:
        >>> camlucida.metrics.cam_entropy(torch.eye(4)[None], base=2).round().item()
        2.0
    """
    if not base > 1:
        raise CamlucidaError(f"the base of the logarithm must be above 1, got {base}")
    scaled = normalise(maps.double()).flatten(1)
    total = scaled.sum(1, keepdim=True)
    p = scaled / (total + _EPS) + _EPS
    found = -(p * p.log()).sum(1) / math.log(base)
    found = torch.where(total[:, 0] == 0, 0.0, found)
    return torch.where(maps.isnan().flatten(1).any(1), math.nan, found)


def complexity(maps: Tensor, base: float = math.e) -> Tensor:
    r"""Entropy of the shares of attribution (Bhatt et al. 2020, complexity).

    $H = -\sum_i p_i \log p_i$ with $p_i = |a_i| / \sum |a|$. Lower is simpler; 0 (one pixel has all) to the
    logarithm of the number of pixels (a constant map).

    Args:
        maps: ``(N, h, w)``; signs do not matter.
        base: of the logarithm.

    Returns:
        ``(N,)``; NaN (not counted) for a zero map, which has no shares.

    Example:
        >>> camlucida.metrics.complexity(torch.ones(1, 4, 4), base=2).item()
        4.0
    """
    values = maps.double().abs().flatten(1)
    values = values / values.amax(1, keepdim=True)
    p = values / values.sum(1, keepdim=True)
    found: Tensor = torch.special.entr(p).sum(1) / math.log(base)
    return found


def effective_area(maps: Tensor) -> Tensor:
    """Share of the image that a map uses: the exponential of its entropy over the number of pixels.

    A map that is constant on some pixels and zero elsewhere scores the share of those pixels (the perplexity of
    :func:`complexity`). Lower is more concentrated; it describes and does not judge; 1/n to 1. Signs of the maps
    ``(N, h, w)`` do not matter.

    Returns:
        ``(N,)``; 1 for a constant map, NaN (not counted) for a zero map.

    Example:
        >>> camlucida.metrics.effective_area(torch.eye(4)[None]).item()
        0.25
    """
    return complexity(maps).exp() / (maps.shape[-2] * maps.shape[-1])


def dead_zone_activity(maps: Tensor, dead: int | Tensor, *, empty: float = 0.0) -> Tensor:
    r"""Share of a map's norm on what the model provably cannot see.

    $\mu = \|\Lambda[dead]\|_2 / \|\Lambda\|_2$ (Taimeskhanov et al. 2024, See through walls, equation 7, where
    the last 54 of 224 rows are dead: 170 to 223). Lower is better; 0 to 1, times 100 in the paper. A constant
    map scores the root of the dead share: $\sqrt{54/224}$ = 0.4910.

    Args:
        maps: rectified maps ``(N, H, W)`` before any offset; negative values count as 0. Scaling by the
            minimum and maximum lifts zeros of signed maps: do not.
        dead: the number of last rows that are dead, or what is dead: boolean ``(H, W)``, or ``(N, H, W)`` for
            each image.
        empty: value of a zero map, 0 by default, ``nan`` to leave it out; ``maps.any()`` tells which are.

    Returns:
        ``(N,)``.

    Raises:
        CamlucidaError: the dead zone does not fit the maps.

    Example:
        >>> camlucida.metrics.dead_zone_activity(torch.ones(1, 224, 224), 54).round(decimals=4).item()
        0.491
    """
    where = _dead(maps, dead)
    values = rectify(maps.double())
    # Squares of very small values must not vanish.
    values = values / values.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    squares = values.square()
    total = squares.sum((1, 2))
    share = ((squares * where).sum((1, 2)) / torch.where(total == 0, 1, total)).sqrt()
    return torch.where(total == 0, empty, share)


def seen_area_lost(maps: Tensor, dead: int | Tensor) -> Tensor:
    """Share of what the model does see on which the map is exactly zero.

    The price of a quiet dead zone: a method may score 0 there by being blank in many more places. Lower is better; 0
    to 1; 1 for a zero map; NaN where everything is dead. Arguments are those of :func:`dead_zone_activity`.

    Example:
        >>> camlucida.metrics.seen_area_lost(torch.eye(4)[None], dead=2).item()
        0.75
    """
    seen = ~_dead(maps, dead)
    blank = (maps <= 0) & seen
    found = blank.flatten(1).sum(1).double() / seen.expand_as(blank).flatten(1).sum(1)
    return torch.where(maps.isnan().flatten(1).any(1), math.nan, found)


def _dead(maps: Tensor, dead: int | Tensor) -> Tensor:
    height, width = int(maps.shape[1]), int(maps.shape[2])
    if isinstance(dead, Tensor):
        if dead.dtype != torch.bool or dead.shape not in {maps.shape, maps.shape[1:]}:
            raise CamlucidaError(
                f"the dead zone must be boolean (H, W) or (N, H, W) as the maps {tuple(maps.shape)}, got "
                f"{dead.dtype} {tuple(dead.shape)}"
            )
        return (dead if dead.ndim == 3 else dead[None]).to(maps.device)
    if not 0 <= dead <= height:
        raise CamlucidaError(f"{dead} dead rows do not fit maps of {height} x {width}")
    rows = torch.arange(height, device=maps.device) >= height - dead
    return rows[None, :, None].expand(1, height, width)


# ------------------------------------------------------------------------------------------- metrics


@register(
    "sparseness",
    title="Sparseness",
    direction="higher",
    range=(0.0, 1.0),
    question="concentration",
    source="Chalasani et al. 2020, Gini index",
)
@dataclass(frozen=True)
class Sparseness(OneNumber):
    """Gini index of the attribution map.

    Higher is sparser; 0 to 1; 0 for a blank map.

    Example:
        >>> camlucida.metrics.Sparseness().names
        ('sparseness',)
    """

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:  # noqa: ARG002
        """On the attribution map at the input's resolution."""
        return sparseness(explanation.maps)


@register(
    "cam_entropy",
    title="CAM entropy",
    direction="none",
    range=(0.0, math.inf),
    unit="nats",
    question="concentration",
    source="Schöttl 2022; Piland et al. 2025 (DiffGradCAM), section 3.2",
    remark="on the signed map at the layer's own resolution; the papers' map is that of the method cam",
    numbers={"cam_entropy_bits": Facts("CAM entropy", unit="bits")},
)
@dataclass(frozen=True)
class CAMEntropy(Metric):
    """Entropy of the map at the layer's resolution, in nats (``cam_entropy``) and bits (``cam_entropy_bits``).

    It describes; 0 to the logarithm of the number of cells; 0 for a blank or constant map. Compare maps of one
    resolution only.

    Example:
        >>> camlucida.metrics.CAMEntropy().names
        ('cam_entropy', 'cam_entropy_bits')
    """

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:  # noqa: ARG002
        """On the signed map, before rectifying."""
        signed = explanation.signed
        return Measured.of(
            cam_entropy=cam_entropy(signed), cam_entropy_bits=cam_entropy(signed, base=2)
        )


@register(
    "complexity",
    title="Complexity",
    direction="lower",
    range=(0.0, math.inf),
    unit="nats",
    question="concentration",
    source="Bhatt et al. 2020, complexity",
    remark="a blank map does not count",
    numbers={"effective_area": Facts("Effective area", "none", (0.0, 1.0), "")},
)
@dataclass(frozen=True)
class Complexity(Metric):
    """Entropy of the shares of attribution, and the share of the image it stands for (``effective_area``).

    Lower is simpler; 0 to the logarithm of the number of pixels; NaN (not counted) for a blank map.

    Example:
        >>> camlucida.metrics.Complexity().names
        ('complexity', 'effective_area')
    """

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:  # noqa: ARG002
        """On the attribution map at the input's resolution."""
        maps = explanation.maps
        return Measured.of(complexity=complexity(maps), effective_area=effective_area(maps))


@register(
    "dead_zone",
    title="Dead-zone activity",
    direction="lower",
    range=(0.0, 1.0),
    question="dead zones",
    source="Taimeskhanov et al. 2024 (See through walls), equation 7",
    remark="only for models that provably do not see the last rows of their input",
    numbers={
        "dead_zone_finished": Facts("Dead-zone activity of the finished map"),
        "seen_area_lost": Facts("Seen area left blank"),
        "blank_map": Facts("Blank maps", direction="none"),
    },
    on_request=True,
)
@dataclass(frozen=True)
class DeadZoneActivity(Metric):
    """Share of the map's norm on the rows that the model cannot see.

    Numbers: ``dead_zone`` of the rectified map, before any offset or blur; ``dead_zone_finished`` of the
    attribution map, after blur and scaling; ``seen_area_lost``, the share of the seen part that is blank;
    ``blank_map``, 1 for a zero map, which scores 0. Lower is better; 0 to 1; 0.4910 for a constant map.

    Attributes:
        dead_rows: the number of last rows that are dead: 54 (default) of 224, as published.
        resolution: count rows of the ``"input"`` (default) or cells of the ``"native"`` map, for walls in a
            feature map; ``dead_zone_finished`` is then the same as ``dead_zone``.

    Example:
        >>> camlucida.metrics.DeadZoneActivity(dead_rows=10).names[0]
        'dead_zone'
    """

    dead_rows: Count = 54
    resolution: Literal["input", "native"] = "input"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """On the method's own map, enlarged bilinearly."""
        raw, maps = rectify(explanation.raw), explanation.maps
        if self.resolution == "input":
            height, width = scene.inputs.shape[-2:]
            raw = resize(raw, (height, width))
        else:
            maps = raw
        return Measured.of(
            dead_zone=dead_zone_activity(raw, self.dead_rows),
            dead_zone_finished=dead_zone_activity(maps, self.dead_rows),
            seen_area_lost=seen_area_lost(raw, self.dead_rows),
            blank_map=(~raw.flatten(1).any(1)).double(),
        )
