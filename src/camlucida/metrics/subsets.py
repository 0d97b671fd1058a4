"""Does what a map says of a part of the image foretell what the score loses without it?

Faithfulness correlation, sensitivity-n, SaCo, monotonicity, IROF and F-Fidelity, each by its paper's definition.
Wherever parts are taken away, they become the baseline (0 in the model's input space unless told), and the score is the
explained target; for IROF and F-Fidelity the probability of the explained class.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from camlucida.common.limits import Count, Limits, Share
from camlucida.common.optional import require
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import correlation, ranks
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.faster_forward import fast_forward
from camlucida.engine.tap import run
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, OneNumber, Scene
from camlucida.metrics.curves import BlankKind, blank
from camlucida.metrics.passes import probability, scores_of
from camlucida.metrics.registry import Facts, MetricCost, register
from camlucida.metrics.robustness import streams
from camlucida.models.checkpoint import load_state, read_state_dict
from camlucida.targets import target_values

_CELLS = 14  # parts of an image are cells of an even grid: single pixels change nothing that can be measured


def losses(scene: Scene, explanation: Explanation, gone: Tensor, start: BlankKind) -> Tensor:
    """What the explained target loses without parts of the image.

    Args:
        scene: the images.
        explanation: whose target is asked.
        gone: which pixels go, ``(N, S, H, W)`` boolean.
        start: what stands there instead.

    Returns:
        ``(N, S)`` double.
    """
    inputs, (count, several) = scene.inputs, gone.shape[:2]
    empty = blank(inputs, start)
    with borrowed(scene.model, inputs) as module, torch.no_grad():
        inner = explanation.target.layer is not None
        forward = None if inner else fast_forward(module, inputs)

        def score(images: Tensor, which: Tensor) -> Tensor:
            target = explanation.target.take(which)
            outputs = forward(images) if forward else run(module, images, target=target)
            return target_values(target, outputs, len(which)).double()

        whole = score(inputs.clone(), torch.arange(count, device=inputs.device))
        index = torch.arange(count, device=inputs.device).repeat_interleave(several)
        parts = zip(
            torch.split(index, scene.batch_size), torch.split(gone.flatten(0, 1), scene.batch_size), strict=True
        )  # fmt: skip
        left = torch.cat([score(torch.where(m[:, None], empty[i], inputs[i]), i) for i, m in parts])
    return whole[:, None] - left.view(count, several)


def _random_parts(scene: Scene, samples: int, share: float) -> Tensor:
    """Random sets of cells that cover a share of the image, ``(N, samples, H, W)`` boolean."""
    height, width = scene.inputs.shape[-2:]
    side = min(_CELLS, height, width)
    drawn = streams(scene).rand((samples, side * side), scene.inputs)
    chosen = ranks(drawn.flatten(0, 1), "order").view_as(drawn) <= max(
        1, round(share * side * side)
    )
    rows, columns = (torch.arange(n, device=drawn.device) * side // n for n in (height, width))
    return chosen.view(*drawn.shape[:2], side, side)[..., rows, :][..., columns]


def _foretold(scene: Scene, e: Explanation, samples: int, share: float, start: BlankKind) -> Tensor:
    """Pearson's correlation of a map's sums over random parts with what is lost without them, ``(N,)``."""
    gone = _random_parts(scene, samples, share)
    sums = torch.einsum("nshw,nhw->ns", gone.to(e.maps), e.maps).double()
    return correlation(sums, losses(scene, e, gone, start))


@register(
    "faithfulness_correlation",
    title="Faithfulness correlation",
    direction="higher",
    range=(-1.0, 1.0),
    question="faithfulness",
    source="Bhatt, Weller & Moura 2020, definition 4",
    needs=("model",),
    cost=MetricCost(forwards=50),
    slow=True,
    remark="parts are sets of cells, since sets of single pixels change little",
)
@dataclass(frozen=True)
class FaithfulnessCorrelation(OneNumber):
    """How well the map's sum over a random part of the image foretells what the score loses without it.

    Attributes:
        samples: random parts of each image, 50 by default.
        share: of the image that a part covers, 0.2 by default.
        start: what stands there instead, see :func:`camlucida.metrics.curves.blank`.

    Example:
        >>> camlucida.metrics.FaithfulnessCorrelation(samples=10).names
        ('faithfulness_correlation',)
    """

    samples: Count = 50
    share: Share = 0.2
    start: BlankKind = "zero"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """Pearson's correlation over the parts."""
        return _foretold(scene, explanation, self.samples, self.share, self.start)


@register(
    "sensitivity_n",
    title="Sensitivity-n",
    direction="higher",
    range=(-1.0, 1.0),
    question="faithfulness",
    source="Ancona et al. 2018, section 3.2",
    needs=("model",),
    cost=MetricCost(forwards=100),
    slow=True,
    remark="the mean over several sizes of the part; the paper draws the curve",
)
@dataclass(frozen=True)
class SensitivityN(Metric):
    """Faithfulness correlation for parts of several sizes, and its mean.

    Attributes:
        samples: random parts of each size, 20 by default.
        shares: of the image that a part covers.
        start: what stands there instead.

    Example:
        >>> camlucida.metrics.SensitivityN(shares=(0.1,)).names
        ('sensitivity_n',)
    """

    samples: Count = 20
    shares: tuple[Share, ...] = (0.02, 0.05, 0.1, 0.2, 0.4)
    start: BlankKind = "zero"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """The mean over the sizes; the curve over them beside it."""
        found = [_foretold(scene, explanation, self.samples, n, self.start) for n in self.shares]
        curves = torch.stack(found, 1)
        at = torch.tensor(self.shares, dtype=torch.float64, device=curves.device)
        return Measured(
            {"sensitivity_n": curves.mean(1)}, {"sensitivity_n": curves}, {"sensitivity_n": at}
        )


def _groups(maps: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Pixels in groups of the same size from the brightest down, ``(N, K, H, W)``, and the map's sums ``(N, K)``."""
    flat = maps.flatten(1)
    place = (ranks(-flat, "order") - 1) * groups // flat.shape[1]
    member = place[:, None] == torch.arange(groups, device=maps.device)[:, None]
    return member.view(len(maps), groups, *maps.shape[1:]), (member * flat[:, None]).sum(2)


@register(
    "saco",
    title="SaCo",
    direction="higher",
    range=(-1.0, 1.0),
    question="faithfulness",
    source="Wu et al. 2024, algorithm 1",
    needs=("model",),
    cost=MetricCost(forwards=10),
    slow=True,
    remark="the paper replaces pixels by the mean of the image, start=mean",
)
@dataclass(frozen=True)
class SaCo(OneNumber):
    """Whether every brighter group of pixels matters more than every darker one, in proportion to the map.

    The salience-guided faithfulness coefficient: over all pairs of groups, the difference of the map's sums counts for
    it where the brighter group costs the score more, and against it otherwise.

    Attributes:
        groups: of as many pixels, 10 by default.
        start: what stands there instead, ``"mean"`` by default.

    Example:
        >>> camlucida.metrics.SaCo(groups=5).names
        ('saco',)
    """

    groups: Annotated[int, Limits(2)] = 10
    start: BlankKind = "mean"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """Between -1 and 1; NaN for a constant map."""
        gone, sums = _groups(explanation.maps, self.groups)
        lost = losses(scene, explanation, gone, self.start)
        weight = (sums[:, :, None] - sums[:, None]).double().triu(1)
        right = torch.where(lost[:, :, None] >= lost[:, None], 1.0, -1.0)
        total = weight.abs().sum((1, 2))
        return torch.where(total > 0, (weight * right).sum((1, 2)) / total, torch.nan)


@register(
    "monotonicity",
    title="Monotonicity",
    direction="higher",
    range=(0.0, 1.0),
    question="faithfulness",
    source="Arya et al. 2019, section 5",
    needs=("model",),
    cost=MetricCost(forwards=10),
    slow=True,
    remark="the share of steps; the paper asks whether all of them rise",
)
@dataclass(frozen=True)
class Monotonicity(OneNumber):
    """How often the score rises as the image is put together from the darkest places of the map to the brightest.

    Attributes:
        groups: steps, 10 by default.
        start: the image to begin with, ``"blur"`` by default.

    Example:
        >>> camlucida.metrics.Monotonicity(groups=5).names
        ('monotonicity',)
    """

    groups: Annotated[int, Limits(2)] = 10
    start: BlankKind = "blur"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """The share of steps at which it rises."""
        member, _ = _groups(explanation.maps, self.groups)
        lost = losses(scene, explanation, _missing(member), self.start)
        rounding = 1e-5 * lost.abs().amax(1, keepdim=True)
        return (lost.diff(dim=1) < -rounding).double().mean(1)


def _missing(member: Tensor) -> Tensor:
    """What is not there yet at each step: nothing is at first, the darkest groups come first."""
    count = member.shape[1]
    steps = [member[:, : count - k].any(1) for k in range(count)]
    return torch.stack([*steps, torch.zeros_like(steps[0])], 1)


@register(
    "irof",
    title="IROF",
    direction="higher",
    range=(-math.inf, 1.0),
    question="faithfulness",
    source="Rieger & Hansen 2020, section 3",
    needs=("logits", "model"),
    cost=MetricCost(forwards=100),
    slow=True,
    remark="over the share of segments that are gone, so that images can be compared; needs scikit-image",
)
@dataclass(frozen=True)
class IROF(OneNumber):
    """How fast the probability of the class falls as segments of the image go, the brightest of the map first.

    Iterative removal of features: the area over the curve of the probability, as a share of the whole image's.
    Segments are of similar colour (SLIC) and become the image's mean colour.

    Attributes:
        segments: about so many, 100 by default.
        start: what stands there instead, ``"mean"`` by default.

    Example:
        >>> camlucida.metrics.IROF(segments=20).names
        ('irof',)
    """

    segments: Annotated[int, Limits(2)] = 100
    start: BlankKind = "mean"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """The area over the curve; 1 less the mean height."""
        parts = scene.once(("segments", self.segments), lambda: _segments(scene, self.segments))
        stage = torch.stack([
            _removed_at(labels, e) for labels, e in zip(parts, explanation.maps, strict=True)
        ])  # fmt: skip
        counts = stage.flatten(1).amax(1) + 1
        heights = [
            _kept(scene, self.start, [stage[i : i + 1] <= k for k in range(-1, int(n))], i)
            for i, n in enumerate(counts.tolist())
        ]
        shares = [h / h[0] for h in heights]
        return torch.stack([1 - torch.trapezoid(s) / (len(s) - 1) for s in shares])


def _segments(scene: Scene, about: int) -> Tensor:
    """Parts of similar colour, numbered from 0, ``(N, H, W)``."""
    slic = require("skimage.segmentation", "benchmark").slic
    images = scene.images("auto")[0].detach().cpu().double()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    scaled = ((images - low) / (high - low).clamp_min(1e-12)).movedim(1, -1).numpy()
    found = [slic(one, n_segments=about, start_label=0, channel_axis=-1) for one in scaled]
    return torch.from_numpy(np.stack(found)).to(scene.inputs.device)


def _removed_at(labels: Tensor, values: Tensor) -> Tensor:
    """When each pixel goes, by the mean of the map in its segment, the brightest first from 0, ``(H, W)``."""
    _, known = torch.unique(labels, return_inverse=True)
    flat = known.flatten()
    count = int(flat.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64, device=labels.device)
    sums.index_add_(0, flat, values.flatten().double())
    means = sums / torch.bincount(flat, minlength=count)
    rank = ranks(-means[None], "order")[0].long() - 1
    return rank[known]


def _kept(scene: Scene, start: BlankKind, gone: Sequence[Tensor], image: int) -> Tensor:
    """The probability of the class of one image with each of these parts gone."""
    empty = blank(scene.inputs, start)
    masks = torch.cat(list(gone))
    places = [(image, k) for k in range(len(masks))]

    def make(i: Tensor, k: Tensor) -> Tensor:
        return torch.where(masks[k][:, None], empty[i], scene.inputs[i])

    def read(logits: Tensor, i: Tensor) -> Tensor:
        return probability(scene.model, logits, scene.classes[i])

    return scores_of(scene.model, scene.inputs, places, make, read, scene.batch_size)


@register(
    "f_fidelity",
    title="F-Fidelity+",
    direction="higher",
    range=(-1.0, 1.0),
    question="faithfulness",
    source="Zheng et al. 2025, equations 4 and 5",
    needs=("logits", "model"),
    cost=MetricCost(forwards=100),
    slow=True,
    remark="the paper asks a copy of the model that was tuned on images with random holes, tuned=FILE; without it "
    "this is the robust fidelity that the paper repairs",
    numbers={"f_fidelity_minus": Facts("F-Fidelity−", direction="lower")},
)
@dataclass(frozen=True)
class FFidelity(Metric):
    """What the class's probability loses as random pixels go from the brightest part of the map, and from the rest.

    Never more than a share of the image goes, as much as a tuned model has learned to do without.

    Attributes:
        share: of the image that counts as the explanation, 0.1 by default.
        alpha: share of the part that goes, 0.5 by default.
        beta: share of the image that goes at most, 0.1 by default.
        samples: random removals of each part, 50 by default.
        start: what stands there instead, see :func:`camlucida.metrics.curves.blank`.
        tuned: a file with weights for the same network, tuned on images with random holes
            (``camlucida train sham DATA --attack holes``); the model itself by default.

    Example:
        >>> camlucida.metrics.FFidelity(samples=5).names
        ('f_fidelity', 'f_fidelity_minus')
    """

    share: Share = 0.1
    alpha: Share = 0.5
    beta: Share = 0.1
    samples: Count = 50
    start: BlankKind = "zero"
    tuned: str | None = None

    def describe(self) -> dict[str, Any]:
        """Name and options, and which weights the file holds: others make another measurement."""
        found = super().describe()
        if self.tuned is not None:
            weights = read_state_dict(Path(self.tuned))
            found["options"]["tuned_weights"] = fingerprint(*weights, *weights.values())[:12]
        return found

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """The mean over random removals."""
        asked = scene
        if self.tuned is not None:
            path = self.tuned
            asked = scene.once(("tuned", path), lambda: replace(scene, model=_tuned(scene, path)))
        flat = explanation.maps.flatten(1)
        first = ranks(-flat, "order") <= max(1, round(self.share * flat.shape[1]))
        bright = first.view_as(explanation.maps)
        draw, size = streams(scene), explanation.maps.shape[1:]
        drawn = draw.rand((self.samples, *size), scene.inputs)
        found = []
        for part, covers in ((bright, self.share), (~bright, 1 - self.share)):
            odds = min(self.alpha, self.beta / max(covers, 1e-12))
            gone = (drawn < odds) & part[:, None]
            none = torch.zeros_like(gone[:, :1])
            heights = [
                _kept(asked, self.start, [torch.cat([none[i], gone[i]])], i)
                for i in range(len(gone))
            ]
            found.append(torch.stack([h[0] - h[1:].mean() for h in heights]))
        return Measured(dict(zip(self.names, found, strict=True)))


def _tuned(scene: Scene, path: str) -> nn.Module:
    """The network with the weights of a file."""
    with torch.inference_mode(mode=False):
        model = copy.deepcopy(unwrap(scene.model)).eval()
        load_state(
            model, read_state_dict(Path(path)), f"{path!r} does not fit the network", finite=True
        )
    return model
