"""Score-CAM and its kin: channels weighted by what the model says to the image behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.limits import Count, NotNegative, Positive
from camlucida.engine.borrow import borrowed
from camlucida.engine.chunks import Chunks, Footprint
from camlucida.engine.maps import resize
from camlucida.methods.base import Method, RawMap, assemble, keyed, weigh
from camlucida.methods.masking import MaskSpace
from camlucida.methods.registry import Cost, register
from camlucida.methods.scoring import Channels, Noise, Views, Weighting, noise_seeds
from camlucida.methods.task import Bar, Task

Precision = Literal["full", "bf16"]
Place = Literal["map", "input"]
Path = Literal["cumulative", "linear"]


@register(
    "scorecam",
    use="Without gradients: how well the score survives when only what a feature marks is shown.",
    paper="Wang et al. 2020",
    year=2020,
    equation="6, 7, 9, 10, algorithm 1",
    needs=(),
    cost=Cost(forward=1, times=("channels",), first=1),
    weights="channel",
    quick_audits=False,
)
@dataclass(frozen=True)
class ScoreCAM(Method):
    r"""Each channel weighted by the target of the image masked with it.

    $L = \mathrm{ReLU}(\sum_k w_k A^k)$ with $w = \mathrm{softmax}_k(Y(x \odot H^k) - Y(x_b))$ and
    $H^k = \mathrm{minmax}(\mathrm{Up}(A^k))$. The baseline $x_b$ cancels in the softmax and is not run. A
    constant channel has $H^k = 0$: all of them, in all images, share one pass. No gradient is used. Batch
    norms behind convolutions are folded into them for these passes, where the model's output stays the same.

    ``details["weights"]`` is ``(N, K)``, ``details["passes"]`` ``(N,)`` the forward passes with masks. With
    several layers these keys carry the layer's name in brackets.

    Attributes:
        weighting: ``"softmax_logit"`` (default) takes the softmax over channels of the target; ``"prob"``
            weighs by the class's probability itself and rectifies at the input's resolution, as the authors'
            code does. A target that is no logit or probability becomes its logistic function then.
        mask_space: what is multiplied: the ``"input"`` as the model receives it (default), ``"pixel"`` values
            in [0, 1], which needs the preprocessing, or ``"auto"``, pixels where it is known.
        top_k: only so many channels, those with the most energy $\sum (A^k)^2$; the others weigh nothing. An
            approximation; ``None`` (default) for all.
        align_corners: enlarge the masks with aligned corners, as pytorch-grad-cam does; ``False`` by default.
        precision: ``"full"`` (default), or ``"bf16"`` to run the masked images under bfloat16 autocast: an
            approximation.
        compiled: run the masked images through ``torch.compile``: an approximation, to rounding; the first
            run of a model takes as long as compiling does. ``False`` by default.
        check: also compute without approximations and tell the error of the map; ``False`` by default.
        chunk: masked images in one pass; ``None`` (default) for as many as fit into ``memory``.
        memory: megabytes that one pass may take, about; ``None`` (default) for what is fast on the device.

    Source: Wang, Wang, Du, Yang, Zhang, Ding, Mardziel and Hu, "Score-CAM", CVPR workshops 2020
    (arXiv 1910.01279), definitions 4 and 5; the softmax is that of its algorithm 1.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.ScoreCAM(top_k=4))
    """

    weighting: Weighting = "softmax_logit"
    mask_space: MaskSpace = "input"
    top_k: Count | None = None
    align_corners: bool = False
    precision: Precision = "full"
    compiled: bool = False
    check: bool = False
    chunk: Count | None = None
    memory: Positive | None = None

    @property
    def repeats(self) -> int:
        """Passes per channel."""
        return 1

    def masked(self, images: Tensor, masks: Tensor, repeat: int, noise: Noise) -> Tensor:  # noqa: ARG002
        """What the model is shown.

        Args:
            images: ``(n, C, H, W)``.
            masks: ``(n, 1, H, W)`` in [0, 1].
            repeat: which pass of a channel this is, from 0.
            noise: from a number of channels to standard normal numbers ``(n, channels, H, W)``, of their own
                for each image, channel and repeat.
        """
        return images * masks

    def run(self, task: Task) -> RawMap:
        """One forward pass, then one for every channel of every image."""
        seeds = noise_seeds(task)
        if not (self.check and self.approximate):
            return self._run(task, seeds)
        raw = self._run(task.part(0, 2), seeds)
        whole = replace(self, top_k=None, precision="full", compiled=False, check=False)
        exact = whole._run(task.part(1, 2), seeds)  # noqa: SLF001
        return self._compared(raw, exact, task.size)

    def _run(self, task: Task, seeds: list[int]) -> RawMap:
        with borrowed(task.model, task.inputs) as module, torch.no_grad():
            task = replace(task, model=module)
            with Footprint(module, len(task.inputs)) as footprint:
                tapped = task.tap(gradients=False, own_pass=True)
            views = Views(
                task,
                tapped,
                weighting=self.weighting,
                mask_space=self.mask_space,
                half=self.precision == "bf16",
                through_compiler=self.compiled,
            )
            per_copy = footprint.per_image + views.per_image
            chunks = views.chunks = Chunks(self.chunk, self.memory, per_copy, task.inputs.device)
            plans = {
                name: Channels(
                    activation, seeds, self.top_k, self.repeats, align_corners=self.align_corners
                )
                for name, activation in tapped.activations.items()
            }
            bar = Bar(task, sum(plan.passes for plan in plans.values()))
            weights = {
                name: self.weigh(plan.scores(views, self.masked, chunks, bar))
                for name, plan in plans.items()
            }

        def combine(name: str, activation: Tensor, _: Tensor) -> Tensor:
            maps = weigh(weights[name], activation)
            return resize(maps, task.size) if self.weighting == "prob" else maps

        details = {
            name: {"weights": weights[name], "passes": plan.counts} for name, plan in plans.items()
        }
        notes = self._notes(plans, views)
        return assemble(self, task, tapped, combine, notes=notes, details=keyed(details))

    def weigh(self, scores: Tensor) -> Tensor:
        """The weights ``(N, K)`` from the mean targets ``(N, K)``, ``-inf`` for channels left out."""
        if self.weighting == "softmax_logit":
            return scores.softmax(1)
        return torch.where(scores.isneginf(), 0, scores)

    @property
    def approximate(self) -> bool:
        """Whether an option trades exactness for time."""
        return self.top_k is not None or self.precision != "full" or self.compiled

    def _notes(self, plans: dict[str, Channels], views: Views) -> dict[int, list[str]]:
        notes: dict[int, list[str]] = {}
        for i in range(len(views.images)):
            own = notes.setdefault(i, [])
            for plan in plans.values():
                if plan.left_out[i]:
                    own.append(
                        f"an approximation: the {self.top_k} of {plan.activation.shape[1]} channels with the "
                        f"most energy ({plan.share[i]:.1%} of it)"
                    )
            if self.precision == "bf16":
                own.append("an approximation: masked images in bfloat16")
            if self.compiled:
                own.append("an approximation: masked images through the compiled model")
            if views.note:
                own.append(views.note)
        return {i: own for i, own in notes.items() if own}

    def _compared(self, raw: RawMap, exact: RawMap, size: tuple[int, int]) -> RawMap:
        """The approximate map with its error at the input's resolution."""
        steps = self.steps
        apart = steps.finish(raw.fused, size) - steps.finish(exact.fused, size)
        error = apart.abs().amax((1, 2))
        notes = {i: list(own) for i, own in raw.notes.items()}
        for i, value in enumerate(error.tolist()):
            notes.setdefault(i, []).append(
                f"the map is off by {value:.2g} at most, by {float(apart[i].abs().mean()):.2g} on average "
                "(of 1), measured against the exact one"
            )
        return replace(raw, notes=notes, details={**raw.details, "error": error})


@register(
    "sscam",
    use="As Score-CAM, steadier against noise, and slower.",
    paper="Wang et al. 2020 (SS-CAM)",
    year=2020,
    equation="smooth on feature map (1), smooth on input (2)",
    needs=(),
    cost=Cost(forward=1, times=("samples", "channels"), first=1),
    weights="channel",
    quick={"samples": 3},
    quick_audits=False,
)
@dataclass(frozen=True)
class SSCAM(ScoreCAM):
    r"""Score-CAM whose scores are averaged over noisy copies.

    $w = \mathrm{softmax}_k(\frac{1}{n}\sum_{i=1}^{n} Y(M^k_i) - Y(x_b))$ with
    $M^k_i = x \odot (H^k + \delta_i)$ (``place="map"``, SS-CAM (1)) or $M^k_i = x \odot H^k + \delta_i$
    (``place="input"``, SS-CAM (2)), and $\delta_i \sim \mathcal{N}(0, \sigma^2)$ for every pixel. Everything
    else is as in :class:`ScoreCAM`; a constant channel gets no noise.

    Attributes:
        samples: n, 35 by default, as in the authors' code.
        std: sigma, 2 by default; the mask lies in [0, 1].
        place: where the noise is added, to the ``"map"`` (default) or the masked ``"input"``.

    Source: Wang, Naidu, Michael and Kundu, "SS-CAM: Smoothed Score-CAM for Sharper Visual Feature
    Localization" (arXiv 2006.14255), smooth on feature map and smooth on input. Published code adds the noise
    to the map before it is normalised, with $(\sigma / (\max - \min))^2$ as its standard deviation, and weighs
    by the mean probabilities themselves; here all of Score-CAM's definition is kept, as torch-cam does.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.SSCAM(samples=1, top_k=2))
    """

    samples: Count = 35
    std: NotNegative = 2.0
    place: Place = "map"

    @property
    def repeats(self) -> int:
        """Passes per channel."""
        return self.samples

    def masked(self, images: Tensor, masks: Tensor, repeat: int, noise: Noise) -> Tensor:  # noqa: ARG002
        """The masked images with noise on the mask or on themselves."""
        if self.place == "map":
            return images * (masks + self.std * noise(1))
        return images * masks + self.std * noise(images.shape[1])


@register(
    "iscam",
    use="As Score-CAM, averaged while more and more of the photo is shown, and slower.",
    paper="Naidu et al. 2020",
    year=2020,
    equation="the integrated score",
    needs=(),
    cost=Cost(forward=1, times=("samples", "channels"), first=1),
    weights="channel",
    quick={"samples": 3},
    quick_audits=False,
)
@dataclass(frozen=True)
class ISCAM(ScoreCAM):
    r"""Score-CAM whose scores are averaged while the mask grows.

    $w = \mathrm{softmax}_k(\frac{1}{n}\sum_{i=1}^{n} Y(M^k_i) - Y(x_b))$ with
    $M^k_i = \sum_{p=1}^{i} \frac{p}{n}\, x \odot H^k$, a running sum (``path="cumulative"``), or
    $M^k_i = \frac{i}{n}\, x \odot H^k$, the straight path of integrated gradients (``path="linear"``).
    Everything else is as in :class:`ScoreCAM`.

    Attributes:
        samples: n, 10 by default.
        path: how the mask grows, see above; the running sum (default) ends at (n + 1) / 2 times the mask.

    Source: Naidu, Ghosh, Maurya, Nayak and Kundu, "IS-CAM: Integrated Score-CAM for axiomatic-based
    explanations" (arXiv 2010.03023); the running sum as torch-cam reads it.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.ISCAM(samples=1, top_k=2))
    """

    samples: Count = 10
    path: Path = "cumulative"

    @property
    def repeats(self) -> int:
        """Passes per channel."""
        return self.samples

    def factor(self, repeat: int) -> float:
        """What the masked image is multiplied with in the pass ``repeat``, from 0."""
        i = repeat + 1
        return i * (i + 1) / (2 * self.samples) if self.path == "cumulative" else i / self.samples

    def masked(self, images: Tensor, masks: Tensor, repeat: int, noise: Noise) -> Tensor:  # noqa: ARG002
        """The masked images on their way from nothing."""
        return images * (self.factor(repeat) * masks)
