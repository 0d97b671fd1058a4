"""Score-CAM and its kin: channels weighted by what the model says to the image behind them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from camlucida.borrow import borrowed
from camlucida.chunks import Chunks, Footprint, check_budget
from camlucida.errors import MethodError
from camlucida.fold import Forward, compiled, folded
from camlucida.layers import Layers
from camlucida.maps import normalise, resize
from camlucida.methods.base import Context, Method, RawMap, assemble
from camlucida.methods.masking import MaskSpace
from camlucida.methods.registry import register
from camlucida.outputs import first_tensor
from camlucida.preprocess import Preprocess
from camlucida.seeds import ImageGenerators
from camlucida.tap import Tap, run, tap
from camlucida.targets import Logit, Probability, Target, evaluate

Weighting = Literal["softmax_logit", "prob"]
Precision = Literal["full", "bf16"]
Place = Literal["map", "input"]
Path = Literal["cumulative", "linear"]


@register(
    "scorecam",
    paper="Wang et al. 2020",
    year=2020,
    equation="definition 2, equations 5, 6",
    needs="a layer",
    passes="1 + channels x forward",
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
        precision: ``"full"`` (default), or ``"bf16"`` to run the masked images under bfloat16 autocast: an
            approximation.
        compiled: run the masked images through ``torch.compile``: an approximation, to rounding; the first
            run of a model takes as long as compiling does. ``False`` by default.
        check: also compute without approximations and tell the error of the map; ``False`` by default.
        chunk: masked images in one pass; ``None`` (default) for as many as fit into ``memory``.
        memory: megabytes that one pass may take, about; ``None`` (default) for what is fast on the device.

    Source: Wang, Wang, Du, Yang, Zhang, Ding, Mardziel and Hu, "Score-CAM", CVPR workshops 2020
    (arXiv 1910.01279).
    """

    weighting: Weighting = "softmax_logit"
    mask_space: MaskSpace = "input"
    top_k: int | None = None
    precision: Precision = "full"
    compiled: bool = False
    check: bool = False
    chunk: int | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_budget(self.chunk, self.memory)
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise MethodError(f"top_k must be a number of channels >= 1, got {self.top_k!r}")

    @property
    def repeats(self) -> int:
        """Passes per channel."""
        return 1

    def masked(
        self,
        images: Tensor,
        masks: Tensor,
        repeat: int,  # noqa: ARG002
        noise: Callable[[int], Tensor],  # noqa: ARG002
    ) -> Tensor:
        """What the model is shown.

        Args:
            images: ``(n, C, H, W)``.
            masks: ``(n, 1, H, W)`` in [0, 1].
            repeat: which pass of a channel this is, from 0.
            noise: from a number of channels to standard normal numbers ``(n, channels, H, W)``, of their own
                for each image, channel and repeat.
        """
        return images * masks

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """One forward pass, then one for every channel of every image."""
        with borrowed(model, inputs) as module, torch.no_grad():
            with Footprint(module, len(inputs)) as footprint:
                tapped = tap(
                    module, inputs, layers, target, gradients=False, grid=context.get("grid")
                )
            views = _Views(self, module, inputs, tapped, context.get("preprocess"))
            per_copy = footprint.per_image + views.per_image
            chunks = Chunks(self.chunk, self.memory, per_copy, inputs.device)
            views.chunks = chunks
            seeds = _seeds(context["generator"], inputs)
            plans = {
                name: _Channels(self, activation, seeds)
                for name, activation in tapped.activations.items()
            }
            bar = _Bar(context.get("progress"), sum(plan.passes for plan in plans.values()))
            weights: dict[int, Tensor] = {}
            details: dict[str, Tensor] = {}
            for name, plan in plans.items():
                found = self.weigh(plan.scores(views, chunks, bar))
                weights[id(plan.activation)] = found.to(plan.activation)
                key = f"[{name}]" if len(plans) > 1 else ""
                details |= {f"weights{key}": found, f"passes{key}": plan.counts}
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))

        def combine(activation: Tensor, _: Tensor) -> Tensor:
            maps = torch.einsum("nk,nkhw->nhw", weights[id(activation)], activation)
            return resize(maps, size) if self.weighting == "prob" else maps

        raw = assemble(self, inputs, tapped, combine)
        notes = self._notes(plans, views)
        raw = replace(raw, notes=notes, details=details)
        return self._checked(raw, model, inputs, target, layers, context) if self.check else raw

    def weigh(self, scores: Tensor) -> Tensor:
        """The weights ``(N, K)`` from the mean targets ``(N, K)``, ``-inf`` for channels left out."""
        if self.weighting == "softmax_logit":
            return scores.softmax(1)
        return torch.where(scores.isneginf(), 0, scores)

    @property
    def approximate(self) -> bool:
        """Whether an option trades exactness for time."""
        return self.top_k is not None or self.precision != "full" or self.compiled

    def _notes(self, plans: dict[str, _Channels], views: _Views) -> dict[int, list[str]]:
        notes: dict[int, list[str]] = {}
        for i in range(len(views.inputs)):
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

    def _checked(
        self,
        raw: RawMap,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        context: Context,
    ) -> RawMap:
        if not self.approximate:
            return raw
        whole = replace(self, top_k=None, precision="full", compiled=False, check=False)
        exact = whole.run(model, inputs, target, layers, **context)
        steps = self.steps
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
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
    paper="Wang et al. 2020 (SS-CAM)",
    year=2020,
    equation="section 3, smooth on feature map / on input",
    needs="a layer",
    passes="1 + samples x channels x forward",
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
    Localization" (arXiv 2006.14255), section 3. The authors' code divides sigma by the range of each
    activation; here the noise is added to the normalised map, as torch-cam does.
    """

    samples: int = 35
    std: float = 2.0
    place: Place = "map"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.samples < 1:
            raise MethodError(f"samples must be at least 1, got {self.samples}")
        if self.std < 0:
            raise MethodError(f"std must be >= 0, got {self.std}")

    @property
    def repeats(self) -> int:
        """Passes per channel."""
        return self.samples

    def masked(
        self,
        images: Tensor,
        masks: Tensor,
        repeat: int,  # noqa: ARG002
        noise: Callable[[int], Tensor],
    ) -> Tensor:
        """The masked images with noise on the mask or on themselves."""
        if self.place == "map":
            return images * (masks + self.std * noise(1))
        return images * masks + self.std * noise(images.shape[1])


@register(
    "iscam",
    paper="Naidu et al. 2020",
    year=2020,
    equation="section 3, integration",
    needs="a layer",
    passes="1 + samples x channels x forward",
)
@dataclass(frozen=True)
class ISCAM(ScoreCAM):
    r"""Score-CAM whose scores are averaged while the mask grows.

    $w = \mathrm{softmax}_k(\frac{1}{n}\sum_{i=1}^{n} Y(M^k_i) - Y(x_b))$ with
    $M^k_i = \sum_{p=1}^{i} \frac{p}{n}\, x \odot H^k$, the paper's running sum (``path="cumulative"``), or
    $M^k_i = \frac{i}{n}\, x \odot H^k$, the straight path of integrated gradients (``path="linear"``).
    Everything else is as in :class:`ScoreCAM`.

    Attributes:
        samples: n, 10 by default.
        path: how the mask grows, see above; the running sum (default) ends at (n + 1) / 2 times the mask.

    Source: Naidu, Ghosh, Maurya, Nayak and Kundu, "IS-CAM: Integrated Score-CAM for axiomatic-based
    explanations" (arXiv 2010.03023), section 3; the running sum as torch-cam reads it.
    """

    samples: int = 10
    path: Path = "cumulative"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.samples < 1:
            raise MethodError(f"samples must be at least 1, got {self.samples}")

    @property
    def repeats(self) -> int:
        """Passes per channel."""
        return self.samples

    def factor(self, repeat: int) -> float:
        """What the masked image is multiplied with in the pass ``repeat``, from 0."""
        i = repeat + 1
        return i * (i + 1) / (2 * self.samples) if self.path == "cumulative" else i / self.samples

    def masked(
        self,
        images: Tensor,
        masks: Tensor,
        repeat: int,
        noise: Callable[[int], Tensor],  # noqa: ARG002
    ) -> Tensor:
        """The masked images on their way from nothing."""
        return images * (self.factor(repeat) * masks)


# ------------------------------------------------------------------------------------- channels and scores


class _Bar:
    """Progress in passes."""

    def __init__(self, progress: Callable[[float, float], None] | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.before = 0
        self.now = 0

    def done(self, now: int) -> None:
        """So many passes of the present part are done."""
        self.now = now
        if self.progress is not None:
            self.progress(self.before + now, self.total)

    def next(self) -> None:
        """The present part is over."""
        self.before += self.now
        self.now = 0


class _Channels:
    """The channels of one layer that have to be scored."""

    def __init__(self, method: ScoreCAM, activation: Tensor, seeds: list[int]) -> None:
        self.method = method
        self.activation = activation
        self.seeds = seeds
        flat = activation.flatten(2)
        energy = flat.square().sum(2)
        chosen = torch.ones_like(energy, dtype=torch.bool)
        if method.top_k is not None and method.top_k < activation.shape[1]:
            order = energy.argsort(dim=1, descending=True, stable=True)
            chosen = torch.zeros_like(chosen).scatter(1, order[:, : method.top_k], True)
        varied = flat.amax(2) > flat.amin(2)
        self.pairs = (chosen & varied).nonzero()
        self.constant = chosen & ~varied
        self.chosen = chosen
        self.left_out = (~chosen).any(1).tolist()
        kept = torch.where(chosen, energy, 0).sum(1) / energy.sum(1).clamp_min(1e-30)
        self.share = kept.tolist()
        self.counts = method.repeats * (chosen & varied).sum(1)
        self.passes = method.repeats * len(self.pairs) + int(self.constant.any())

    def scores(self, views: _Views, chunks: Chunks, bar: _Bar) -> Tensor:
        """Mean target of each channel's masked images, ``(N, K)``; ``-inf`` for channels left out."""
        scores = self.activation.new_full(self.activation.shape[:2], -torch.inf)
        if self.constant.any():
            nothing = views.nothing().to(scores)
            bar.done(1)
            bar.next()
            scores = torch.where(self.constant, nothing[:, None], scores)
        if not len(self.pairs):
            return scores
        images, channels = self.pairs.unbind(1)
        sums = scores.new_zeros(len(self.pairs))
        for repeat in range(self.method.repeats):

            def score(start: int, stop: int, repeat: int = repeat) -> Tensor:
                rows, ks = images[start:stop], channels[start:stop]
                masks = normalise(resize(self.activation[rows, ks], views.size))
                noise = self._noise(rows, ks, repeat, masks)
                return views.values(
                    rows, lambda x: self.method.masked(x, masks[:, None], repeat, noise)
                )

            sums += chunks.run(score, len(self.pairs), bar.done).to(sums)
            bar.next()
        scores[images, channels] = sums / self.method.repeats
        return scores

    def _noise(
        self, images: Tensor, channels: Tensor, repeat: int, masks: Tensor
    ) -> Callable[[int], Tensor]:
        """Numbers that depend on seed, image, channel and repeat alone, not on what shares a pass."""

        def draw(number: int) -> Tensor:
            drawn = []
            for i, k in zip(images.tolist(), channels.tolist(), strict=True):
                step = (k * self.method.repeats + repeat) * 0x9E3779B97F4A7C15
                generator = torch.Generator().manual_seed((self.seeds[i] + step) % 2**63)
                drawn.append(torch.randn(number, *masks.shape[1:], generator=generator))
            return torch.stack(drawn).to(masks)

        return draw


def _seeds(generator: ImageGenerators, inputs: Tensor) -> list[int]:
    drawn = generator.rand((2,), torch.empty(0, dtype=torch.float64))
    return [int(a * 2**24) * 2**24 + int(b * 2**24) for a, b in drawn.tolist()][: len(inputs)]


class _Views:
    """The images, as they are masked and shown to the model."""

    def __init__(
        self,
        method: ScoreCAM,
        model: nn.Module,
        inputs: Tensor,
        tapped: Tap,
        preprocess: Preprocess | None,
    ) -> None:
        if method.mask_space == "pixel" and preprocess is None:
            raise MethodError(
                "mask_space='pixel' needs to know how pixels become inputs; pass preprocess= to explain, or "
                "use mask_space='input'"
            )
        self.model = model
        self.inputs = inputs
        self.size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        self.pixels = None if method.mask_space == "input" else preprocess
        self.note = ""
        if method.mask_space == "auto" and preprocess is None:
            self.note = (
                "masks were multiplied with the model's input, since its preprocessing is not known; where "
                "that includes a mean, 0 is not black"
            )
        images = inputs.detach().to(torch.promote_types(inputs.dtype, torch.float32))
        self.images = self.pixels.denormalise(images) if self.pixels is not None else images
        self.per_image = 3 * self.images[0].numel() * self.images.element_size()
        assert tapped.target is not None  # noqa: S101
        self.target, self.logistic = _scored(method.weighting, tapped.target, tapped.outputs)
        self.half = method.precision == "bf16"
        self.channels_last = _likes_channels_last(model, inputs, self.half)
        self.chunks: Chunks | None = None
        self.compiled = method.compiled
        self.forward: Forward | None = None
        if self.target.layer is None:
            make = compiled if method.compiled else folded
            self.forward = make(model, inputs, tapped.outputs)

    def nothing(self) -> Tensor:
        """The target of each image when its mask is 0: one pass for all, ``(N,)``."""
        outputs = self._outputs(torch.zeros_like(self.images[:1]))
        every = torch.arange(len(self.images), device=self.images.device)
        return self._read(outputs.expand(len(every), *outputs.shape[1:]), every)

    def values(self, index: Tensor, mask: Callable[[Tensor], Tensor]) -> Tensor:
        """The target ``(n,)`` of the images ``index`` after ``mask``."""
        return self._read(self._outputs(mask(self.images[index])), index)

    def _read(self, outputs: Tensor, index: Tensor) -> Tensor:
        with torch.autocast(outputs.device.type, enabled=False):
            values = evaluate(self.target.take(index), outputs, len(index))
            return values.sigmoid() if self.logistic else values

    def _outputs(self, images: Tensor) -> Tensor:
        if self.pixels is not None:
            images = self.pixels.normalise(images)
        images = images.to(self.inputs.dtype)
        device = images.device.type
        with torch.autocast(device, torch.bfloat16) if self.half else nullcontext():
            if self.channels_last:
                try:
                    return self._run(images.contiguous(memory_format=torch.channels_last))
                except RuntimeError as error:
                    # A model that reshapes its maps with view() wants them as usual.
                    if "view" not in str(error):
                        raise
                    self.channels_last = False
            return self._run(images.contiguous())

    def _run(self, images: Tensor) -> Tensor:
        if self.forward is None:
            return run(self.model, images, {}, lambda _, output: output, self.target)
        number = len(images)
        if self.compiled and self.chunks is not None and number < self.chunks.size:
            # For every other size the model would be compiled anew.
            rest = images[-1:].expand(self.chunks.size - number, *images.shape[1:])
            images = torch.cat([images, rest])
        return first_tensor(self.forward(images))[:number]


def _scored(weighting: Weighting, target: Target, outputs: Tensor) -> tuple[Target, bool]:
    """The target whose value is the score, and whether its logistic function is taken."""
    if weighting == "softmax_logit" or isinstance(target, Probability):
        return target, False
    logits = target.logits(outputs)
    if type(target) is Logit and logits is not None and logits.shape[1] > 1:
        return Probability(target.classes), False
    return target, True


def _likes_channels_last(model: nn.Module, inputs: Tensor, half: bool) -> bool:
    """Whether convolutions of this model are faster on channels-last images."""
    convolves = any(isinstance(m, nn.Conv2d) and m.groups == 1 for m in model.modules())
    return convolves and (inputs.device.type == "cpu" or (half and inputs.is_cuda))
