"""What a model says to images behind masks made of channels: Score-CAM and its kin share it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from camlucida.engine.chunks import Chunks
from camlucida.engine.faster_forward import fast_forward
from camlucida.engine.maps import normalise, resize
from camlucida.engine.tap import Tap
from camlucida.methods.masking import Masked, MaskSpace
from camlucida.methods.task import Bar, Task
from camlucida.targets import Probability, Target

Weighting = Literal["softmax_logit", "prob"]

Noise: TypeAlias = Callable[[int], Tensor]
"""From a number of channels to standard normal numbers ``(n, channels, H, W)``."""

Change: TypeAlias = Callable[[Tensor, Tensor, int, Noise], Tensor]
"""From images ``(n, C, H, W)``, masks ``(n, 1, H, W)``, the repeat and noise to what the model is shown."""


class Channels:
    """The channels of one layer that have to be scored.

    Args:
        activation: ``(N, K, h, w)``.
        seeds: of the noise, one per image.
        top_k: how many channels of each image, those with the most energy; ``None`` for all.
        repeats: passes per channel.
        align_corners: how masks are enlarged, see :func:`camlucida.engine.maps.resize`.

    Attributes:
        left_out: whether channels of an image are not scored.
        share: of each image's energy in those that are.
        counts: passes per image, ``(N,)``.
        passes: of all images together.
    """

    def __init__(
        self,
        activation: Tensor,
        seeds: list[int],
        top_k: int | None,
        repeats: int,
        *,
        align_corners: bool,
    ) -> None:
        self.repeats, self.align_corners = repeats, align_corners
        self.activation = activation
        self.seeds = seeds
        flat = activation.flatten(2)
        energy = flat.square().sum(2)
        chosen = torch.ones_like(energy, dtype=torch.bool)
        if top_k is not None and top_k < activation.shape[1]:
            order = energy.argsort(dim=1, descending=True, stable=True)
            chosen = torch.zeros_like(chosen).scatter(1, order[:, :top_k], True)
        varied = flat.amax(2) > flat.amin(2)
        self.pairs = (chosen & varied).nonzero()
        self.constant = chosen & ~varied
        self.chosen = chosen
        self.left_out = (~chosen).any(1).tolist()
        kept = torch.where(chosen, energy, 0).sum(1) / energy.sum(1).clamp_min(1e-30)
        self.share = kept.tolist()
        self.counts = repeats * (chosen & varied).sum(1)
        self.passes = repeats * len(self.pairs) + int(self.constant.any())

    def scores(self, views: Views, masked: Change, chunks: Chunks, bar: Bar) -> Tensor:
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
        for repeat in range(self.repeats):

            def score(start: int, stop: int, repeat: int = repeat) -> Tensor:
                rows, ks = images[start:stop], channels[start:stop]
                large = resize(
                    self.activation[rows, ks], views.task.size, align_corners=self.align_corners
                )
                masks = normalise(large)
                noise = self._noise(rows, ks, repeat, masks)
                return views.changed(rows, lambda x: masked(x, masks[:, None], repeat, noise))

            sums += chunks.run(score, len(self.pairs), bar.done).to(sums)
            bar.next()
        scores[images, channels] = sums / self.repeats
        return scores

    def _noise(self, images: Tensor, channels: Tensor, repeat: int, masks: Tensor) -> Noise:
        """Numbers that depend on seed, image, channel and repeat alone, not on what shares a pass."""

        def draw(number: int) -> Tensor:
            drawn = []
            for i, k in zip(images.tolist(), channels.tolist(), strict=True):
                step = (k * self.repeats + repeat) * 0x9E3779B97F4A7C15
                generator = torch.Generator().manual_seed((self.seeds[i] + step) % 2**63)
                drawn.append(
                    torch.randn(
                        number,
                        *masks.shape[1:],
                        generator=generator,
                        dtype=torch.float32,
                        device="cpu",
                    )
                )
            return torch.stack(drawn).to(masks)

        return draw


def noise_seeds(task: Task) -> list[int]:
    """A seed for each image, drawn from its generator."""
    drawn = task.generator.rand((2,), torch.empty(0, dtype=torch.float64, device="cpu"))
    return [int(a * 2**24) * 2**24 + int(b * 2**24) for a, b in drawn.tolist()][: len(task.inputs)]


class Views(Masked):
    """The images, as Score-CAM masks them and shows them to the model.

    Args:
        task: whose model is borrowed.
        tapped: of these images.
        weighting: what a score is, see :class:`camlucida.methods.scorecam.ScoreCAM`.
        mask_space: what is multiplied with the masks.
        half: run under bfloat16 autocast.
        through_compiler: run the compiled model.

    Attributes:
        per_image: bytes that a masked image takes before the model sees it.
        chunks: how many images go through at a time, for a compiled model.
    """

    def __init__(
        self,
        task: Task,
        tapped: Tap,
        *,
        weighting: Weighting,
        mask_space: MaskSpace,
        half: bool,
        through_compiler: bool,
    ) -> None:
        target, self.logistic = _scored(weighting, tapped.target, tapped.outputs)
        super().__init__(task, target, mask_space)
        self.per_image = 3 * self.images[0].numel() * self.images.element_size()
        self.half = half
        self.chunks: Chunks | None = None
        self.compiled = through_compiler
        if target.layer is None:
            with self._precision():
                self.forward = fast_forward(
                    task.model, task.inputs, tapped.outputs, compile=through_compiler
                )

    def nothing(self) -> Tensor:
        """The target of each image when its mask is 0: one pass for all, ``(N,)``."""
        outputs = self.shown(torch.zeros_like(self.images[:1]))
        every = torch.arange(len(self.images), device=self.images.device)
        return self.read(outputs.expand(len(every), *outputs.shape[1:]), every)

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        """The score ``(n,)`` of outputs that belong to the images ``index``."""
        values = super().read(outputs, index)
        return values.sigmoid() if self.logistic else values

    def run(self, inputs: Tensor) -> Tensor:
        """The model's output in the precision asked for."""
        number = len(inputs)
        if self.compiled and self.chunks is not None and number < self.chunks.size:
            # For every other size the model would be compiled anew.
            rest = inputs[-1:].expand(self.chunks.size - number, *inputs.shape[1:])
            inputs = torch.cat([inputs, rest])
        with self._precision():
            return super().run(inputs)[:number]

    def _precision(self) -> AbstractContextManager[object]:
        device = self.task.inputs.device.type
        return torch.autocast(device, torch.bfloat16) if self.half else nullcontext()


def _scored(weighting: Weighting, target: Target, outputs: Tensor) -> tuple[Target, bool]:
    """The target whose value is the score, and whether its logistic function is taken."""
    if weighting == "softmax_logit" or isinstance(target, Probability):
        return target, False
    wanted = target.probability(outputs)
    return (target, True) if wanted is None else (wanted, False)
