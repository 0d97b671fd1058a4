"""Insertion and deletion: how fast the probability rises and falls along the map.

A curve of 225 heights is known well from some 20 of them. Between two known heights it wanders about like a random
walk, whose area strays from the straight line's by a variance of s^2 w^3 / 12 over a width w, with s^2 the variance
per width. The heights are therefore chosen a few at a time, where this is largest, until the area is known to a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count, Limits, Positive
from camlucida.common.statistics import Floats, gaussian, ranks
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.passes import probability, scores_of
from camlucida.metrics.registry import MetricCost, register

BlankKind = Literal["zero", "blur", "rise", "mean"]
ScoredClass = Literal["predicted", "explained"]

_KERNEL, _SIGMA = 11, 5.0

MOST = 18
"""Heights of a curve that are computed, beside its two ends, unless its area is known well enough with fewer. Twice as
many are, at most, where after these it is not even known to twice the bound."""
_COARSE = 8
"""Evenly spaced heights to begin with, the ends among them."""
_AT_A_TIME = 4
"""Heights of a curve that are chosen together."""
_PRIOR = 0.05
"""Weight of what is known of any curve beside what this one shows, as a share of its length."""


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
    error: float | None = None,
    most: int = MOST,
    watch: Callable[[Tensor], object] | None = None,
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
        error: compute only some of the heights, until twice the standard error of the area is at most this, and draw
            straight lines between them; ``None`` (default) computes all.
        most: heights of each image, beside the two ends, after which twice the error is enough; at twice as many it
            ends.
        watch: as of :func:`sample_curves`.

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

    def make(index: Tensor, k: Tensor) -> Tensor:
        changed = place[index] <= (k * step)[:, None, None]
        return torch.where(changed[:, None], end[index], begin[index])

    def heights(places: list[tuple[int, int]]) -> Tensor:
        return scores_of(
            model, begin, places, make, lambda z, i: probability(model, z, classes[i]), batch_size
        )

    known = torch.full((len(begin), steps + 1), torch.nan, dtype=torch.float64, device=begin.device)
    for k, value in ((0, first), (steps, last)):
        if value is not None:
            known[:, k] = value.to(known)
    bound = None if steps <= most + 1 else error
    return sample_curves(known, heights, bound, most=most, watch=watch)


def sample_curves(
    known: Tensor,
    heights: Callable[[list[tuple[int, int]]], Tensor],
    error: float | None,
    *,
    most: int = MOST,
    watch: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Curves of which only as many heights are computed as their area takes.

    Args:
        known: ``(N, P)``, NaN where a height is not known.
        heights: computes those of pairs of a row and a position, ``(n,)``.
        error: bound of twice the standard error of the area; ``None`` computes every height.
        most: heights of each curve, beside its ends, after which twice the error is enough; at twice as many it ends.
        watch: called with the curves as far as they are known, ``(N, P)`` with NaN elsewhere, whenever more is.

    Returns:
        ``(N, P)``, straight between the heights that are known.
    """
    found, points = known.clone(), known.shape[1]
    at = np.linspace(0, 1, points)
    there = ~known.isnan().cpu().numpy()
    few = np.linspace(0, points - 1, points if error is None else min(_COARSE, points))
    wanted = [
        (i, k)
        for i in range(len(known))
        for k in few.round().astype(int).tolist()
        if not there[i, k]
    ]
    while wanted:
        rows, columns = zip(*wanted, strict=True)
        found[rows, columns] = heights(wanted).to(found)
        there[rows, columns] = True
        if watch is not None:
            watch(found)
        table = found.cpu().numpy()
        wanted = [
            (i, k)
            for i, row in enumerate(table if error is not None else ())
            for k in _next(row, there[i], at, error or 0.0, most)
        ]
    table = found.cpu().numpy()
    lines = [np.interp(at, at[of], row[of]) for row, of in zip(table, there, strict=True)]
    return torch.from_numpy(np.stack(lines)).to(found)


def _next(
    row: Floats, there: npt.NDArray[np.bool_], at: Floats, error: float, most: int
) -> list[int]:
    """The positions where the next heights are computed: in the middle of where the curve is known worst."""
    known = np.flatnonzero(there)
    if not np.isfinite(row[known]).all():
        return []
    variance = wandering(at[known], row[known])
    off = 2 * math.sqrt(variance.sum())
    room = min(_AT_A_TIME, (most if off <= 2 * error else 2 * most) - (len(known) - 2))
    if off <= error or room <= 0:
        return []
    inside = np.diff(known) // 2
    worst = np.argsort(-variance, kind="stable")
    return [int(known[i] + inside[i]) for i in worst if inside[i] > 0][:room]


def wandering(at: Floats, heights: Floats) -> Floats:
    r"""Variance of the area between each two neighbouring known heights ``(P - 1,)``: $s^2 w^3 / 12$.

    $s^2$ is the mean square of the change per width over an interval and its two neighbours, with what a
    probability may change by, $p (1 - p)$, as one more observation of little weight.

    Args:
        at: their positions ``(P,)``, rising from 0 to 1.
        heights: probabilities ``(P,)``.
    """
    width, change = np.diff(at), np.diff(heights) ** 2
    around = np.ones(3)
    room = heights * (1 - heights)
    room = np.maximum(room[1:], room[:-1]).clip(0)
    squares = np.convolve(change, around, "same") + _PRIOR * room
    found: Floats = squares / (np.convolve(width, around, "same") + _PRIOR) * width**3 / 12
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

_FEW = "the area is estimated from about 20 heights, to about 0.005; exact=true computes all steps, as published"


@dataclass(frozen=True)
class _Way(Metric):
    """What insertion and deletion share: a way between the whole image and one without its content.

    Attributes:
        inserts: whether the way leads to the whole image.
        step: pixels that change at a time, 224 by default.
        score: the probability of the ``"predicted"`` class (default) or of the ``"explained"`` one.
        points: positions of the curve that is kept.
        error: only so many heights are computed that twice the standard error of the area is this much or less, 0.005
            by default; after 18 heights twice as much is enough, and after 36 it is left at that.
        exact: compute the heights of all steps, as published.
        start: the image without its content: ``"zero"``, ``"blur"`` (Gaussian, 11 x 11 pixels, sigma 5), ``"rise"``
            (the kernel of the authors' code, see :func:`blank`) or ``"mean"``, all in the model's input space,
            where 0 is usually the mean colour of the training images.
    """

    inserts: ClassVar[bool]

    step: Count = 224
    score: ScoredClass = "predicted"
    points: Annotated[int, Limits(2)] = 101
    error: Positive = 0.005
    exact: bool = False
    start: BlankKind = "zero"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Forward passes of partly changed images; the whole image's logits are the scene's."""
        maps = explanation.maps
        classes = scene.predicted if self.score == "predicted" else scene.classes
        whole = scene.inputs
        empty, bare = scene.once(
            (blank, self.start, self.score), lambda: self._empty(scene, classes)
        )
        clean = probability(scene.model, scene.logits.double(), classes)
        begin, end, first, last = (
            (empty, whole, bare, clean) if self.inserts else (whole, empty, clean, bare)
        )
        curves = path(
            scene.model,
            begin,
            end,
            maps,
            classes,
            step=self.step,
            batch_size=scene.batch_size,
            first=first,
            last=last,
            error=None if self.exact else self.error,
            watch=None if scene.watch is None else partial(scene.watch, self.names[0]),
        )
        curves = torch.where(maps.isnan().flatten(1).any(1)[:, None], torch.nan, curves)
        steps = torch.arange(curves.shape[1], dtype=torch.float64, device=curves.device)
        shares = (steps * self.step / maps[0].numel()).clamp_max(1)
        at = torch.linspace(0, 1, self.points, dtype=torch.float64, device=curves.device)
        kept = resample(curves, shares, self.points)
        return Measured({self.names[0]: area(curves)}, {self.names[0]: kept}, {self.names[0]: at})

    def _empty(self, scene: Scene, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The images without their content, and the probabilities there."""
        empty = blank(scene.inputs, self.start)
        every = [(i, 0) for i in range(len(scene))]
        return empty, scores_of(
            scene.model, scene.inputs, every, lambda i, _: empty[i],
            lambda z, i: probability(scene.model, z, classes[i]), scene.batch_size,
        )  # fmt: skip


@register(
    "deletion",
    title="Deletion",
    direction="lower",
    range=(0.0, 1.0),
    question="faithfulness",
    source="Petsiuk et al. 2018, RISE, section 4.1; settings of the authors' code",
    needs=("model", "logits"),
    cost=MetricCost(forwards=20),
    remark=_FEW,
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
    cost=MetricCost(forwards=20),
    remark=_FEW,
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
