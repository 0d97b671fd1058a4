"""Insertion and deletion: how fast the probability rises and falls along the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count, Limits
from camlucida.common.statistics import gaussian, ranks
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.passes import probability, scores_of
from camlucida.metrics.registry import MetricCost, register

BlankKind = Literal["zero", "blur", "rise", "mean"]
ScoredClass = Literal["predicted", "explained"]

_KERNEL, _SIGMA = 11, 5.0


def blank(inputs: Tensor, start: BlankKind) -> Tensor:
    """An image ``(N, C, H, W)`` without its content, in the input's own space.

    ``"zero"``: zeros. ``"blur"``: blurred with a Gaussian of 11 x 11 pixels and sigma 5, zeros around the image.
    ``"rise"``: the same, but what of the Gaussian lies outside of the 11 x 11 pixels is mirrored into them, which
    makes it almost flat: the kernel in the code of Petsiuk et al. 2018 (RISE). ``"mean"``: the mean of each
    channel.

    Raises:
        CamlucidaError: for another word.
    """
    if start == "zero":
        return torch.zeros_like(inputs)
    if start == "mean":
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    if start not in {"blur", "rise"}:
        raise CamlucidaError(f"start must be 'zero', 'blur', 'rise' or 'mean', got {start!r}")
    weights = _kernel(mirrored=start == "rise").to(inputs)
    single = inputs.flatten(0, 1)[:, None]
    across = F.conv2d(single, weights.view(1, 1, 1, -1), padding=(0, _KERNEL // 2))
    return F.conv2d(across, weights.view(1, 1, -1, 1), padding=(_KERNEL // 2, 0)).view_as(inputs)


def _kernel(*, mirrored: bool) -> Tensor:
    """One line of the blur, which sums to 1: cut off at the ends of the window, or mirrored there."""
    reach = 4 * int(_SIGMA) if mirrored else _KERNEL // 2
    weights = gaussian(2 * reach + 1, _SIGMA, torch.empty(0, dtype=torch.float64))
    if not mirrored:
        return weights
    place = (torch.arange(_KERNEL)[:, None] + torch.arange(-reach, reach + 1)) % (2 * _KERNEL)
    place = torch.minimum(place, 2 * _KERNEL - 1 - place)
    return ((place == _KERNEL // 2) * weights).sum(1)


def path(
    model: nn.Module,
    begin: Tensor,
    end: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    step: int = 224,
    batch_size: int = 32,
    first: Tensor | None = None,
    last: Tensor | None = None,
) -> Tensor:
    """Probabilities on the way from one image to another, pixel by pixel in the order of the map.

    Args:
        model: returns logits ``(N, M)``.
        begin: where the way begins, ``(N, C, H, W)``, as the model takes it.
        end: where it ends.
        maps: ``(N, H, W)``; pixels change from the highest value down, in reading order among equals.
        classes: whose probability, ``(N,)``.
        step: pixels that change at a time.
        batch_size: images per forward pass.
        first: probabilities at the beginning ``(N,)``, where they are known already.
        last: the same at the end.

    Returns:
        ``(N, n_steps + 1)`` with ``n_steps = ceil(H W / step)``.

    Raises:
        CamlucidaError: the step is below 1, or maps and images differ in size.
    """
    if step < 1 or maps.shape != (len(begin), *begin.shape[2:]):
        raise CamlucidaError(
            f"the step must be at least 1 pixel and the maps of the images' size "
            f"{tuple(begin.shape[2:])}, got {step} and {tuple(maps.shape)}"
        )
    place = ranks(-maps.detach().flatten(1), "order").view_as(maps)
    steps = -(-maps[0].numel() // step)
    n = len(begin)
    known = {0: first, steps: last}
    wanted = [k for k in range(steps + 1) if known.get(k) is None]

    def make(index: Tensor, k: Tensor) -> Tensor:
        changed = place[index] <= (k * step)[:, None, None]
        return torch.where(changed[:, None], end[index], begin[index])

    places = [(i, k) for i in range(n) for k in wanted]
    values = scores_of(
        model, begin, places, make, lambda z, i: probability(model, z, classes[i]), batch_size
    )
    found = values.new_empty(n, steps + 1)
    found[:, wanted] = values.view(n, len(wanted))
    for k, value in known.items():
        if value is not None:
            found[:, k] = value.to(found)
    return found


def area(heights: Tensor, at: Tensor | Sequence[float] | None = None) -> Tensor:
    """Mean height ``(N,)`` of curves ``(N, P)``: trapezoids over the length of the way.

    Args:
        heights: ``(N, P)``.
        at: rising positions ``(P,)``; evenly spaced by default.
    """
    if heights.shape[1] == 1:
        return heights[:, 0]
    places = torch.as_tensor(range(heights.shape[1]) if at is None else at).to(heights)
    return torch.trapezoid(heights, places, dim=1) / (places[-1] - places[0])


def resample(curves: Tensor, at: Tensor, points: int) -> Tensor:
    """Heights ``(N, points)`` at even positions from 0 to 1, interpolated linearly.

    Args:
        curves: heights ``(N, K + 1)``.
        at: their positions ``(K + 1,)``, rising from 0 to 1.
        points: how many positions.
    """
    wanted = torch.linspace(0, 1, points, dtype=at.dtype, device=at.device)
    after = torch.searchsorted(at, wanted).clamp(1, len(at) - 1)
    share = (wanted - at[after - 1]) / (at[after] - at[after - 1])
    return torch.lerp(curves[:, after - 1], curves[:, after], share.to(curves))


# ------------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class _Way(Metric):
    """What insertion and deletion share: a way between the whole image and one without its content.

    Attributes:
        inserts: whether the way leads to the whole image.
        step: pixels that change at a time, 224 by default.
        score: the probability of the ``"predicted"`` class (default) or of the ``"explained"`` one.
        points: positions of the curve that is kept; the area is that of all steps.
        start: the image without its content: ``"zero"``, ``"blur"`` (Gaussian, 11 x 11 pixels, sigma 5), ``"rise"``
            (the kernel of the authors' code, see :func:`blank`) or ``"mean"``, all in the model's input space,
            where 0 is usually the mean colour of the training images.
    """

    inserts: ClassVar[bool]

    step: Count = 224
    score: ScoredClass = "predicted"
    points: Annotated[int, Limits(2)] = 101
    start: BlankKind = "zero"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Forward passes of partly changed images; the whole image's logits are the scene's."""
        maps = explanation.maps
        classes = scene.predicted if self.score == "predicted" else scene.classes
        whole, empty = scene.inputs, blank(scene.inputs, self.start)
        clean = probability(scene.model, scene.logits.double(), classes)
        known = {"last" if self.inserts else "first": clean}
        begin, end = (empty, whole) if self.inserts else (whole, empty)
        curves = path(
            scene.model,
            begin,
            end,
            maps,
            classes,
            step=self.step,
            batch_size=scene.batch_size,
            **known,
        )
        curves = torch.where(maps.isnan().flatten(1).any(1)[:, None], torch.nan, curves)
        steps = torch.arange(curves.shape[1], dtype=torch.float64, device=curves.device)
        shares = (steps * self.step / maps[0].numel()).clamp_max(1)
        at = torch.linspace(0, 1, self.points, dtype=torch.float64, device=curves.device)
        kept = resample(curves, shares, self.points)
        return Measured({self.names[0]: area(curves)}, {self.names[0]: kept}, {self.names[0]: at})


@register(
    "deletion",
    title="Deletion",
    direction="lower",
    range=(0.0, 1.0),
    question="faithfulness",
    source="Petsiuk et al. 2018, RISE, section 4.1; settings of the authors' code",
    needs=("model", "logits"),
    cost=MetricCost(pixels=224),
    over="share of pixels removed",
    height="probability of the explained class",
)
@dataclass(frozen=True)
class Deletion(_Way):
    """Area under the probability while pixels are deleted from the most relevant on.

    Lower is better: the map names first what the model needs. The curve is given over the share of pixels
    deleted, which become 0 (``start="zero"``) by default.

    Example:
        >>> camlucida.metrics.Deletion(step=1000).names
        ('deletion',)
    """

    inserts: ClassVar = False


@register(
    "insertion",
    title="Insertion",
    direction="higher",
    range=(0.0, 1.0),
    question="faithfulness",
    source="Petsiuk et al. 2018, RISE, section 4.1; settings of the authors' code",
    needs=("model", "logits"),
    cost=MetricCost(pixels=224),
    over="share of pixels shown",
    height="probability of the explained class",
)
@dataclass(frozen=True)
class Insertion(_Way):
    """Area under the probability while pixels are put back from the most relevant on.

    Higher is better: the map names first what is enough. The curve is given over the share of pixels
    inserted, into the blurred image (``start="blur"``) by default.

    Example:
        >>> camlucida.metrics.Insertion(score="explained").names
        ('insertion',)
    """

    inserts: ClassVar = True

    start: BlankKind = "blur"
