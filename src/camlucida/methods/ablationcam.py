"""AblationCAM: what the target loses when a channel is switched off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.limits import Count, Positive
from camlucida.engine.borrow import borrowed
from camlucida.engine.chunks import Chunks, Footprint
from camlucida.engine.linear_head import LinearHead, LinearInputs, find_head
from camlucida.engine.replay.replay import Replay, replay
from camlucida.methods.base import Method, RawMap, assemble, keyed, weigh
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Bar, Task
from camlucida.targets import target_values

Denominator = Literal["score", "abs"]

_TINY = 1e-8
_BYTES = 64 * 2**20  # of ablated outputs computed at a time


@register(
    "ablationcam",
    use="Without gradients: what the score loses when a feature is switched off.",
    paper="Desai & Ramaswamy 2020",
    year=2020,
    equation="4, 5",
    needs=(),
    cost=Cost(head_forward=1, times=("channels",), first=1),
    weights="channel",
    sums_to="weights",
    remark="one forward pass in all where pooling and one linear layer follow",
)
@dataclass(frozen=True)
class AblationCAM(Method):
    r"""Each channel weighted by the share of the target that is lost without it.

    $L = \mathrm{ReLU}(\sum_k w_k A^k)$ with $w_k = (Y(x) - Y(x \mid A^k := 0)) / Y(x)$. No gradient is used.
    The part of the model in front of the layer runs once. Where global average pooling and one linear layer
    follow, the ablated outputs are computed from those of the image, and no further pass is needed for any
    target.

    With $|Y(x)| < 10^{-8}$ the weights are the differences themselves. ``details["weights"]`` is ``(N, K)``,
    ``details["passes"]`` ``(N,)`` counts the passes behind the layer. With several layers these keys carry
    the layer's name in brackets.

    Attributes:
        ablation_value: what the channel is set to, 0 by default.
        denominator: divide by the ``"score"`` $Y(x)$ (default, the paper), which flips all signs where it is
            negative, or by its absolute value (``"abs"``).
        chunk: ablated copies in one pass; ``None`` (default) for as many as fit into ``memory``.
        memory: megabytes that one pass may take, about; ``None`` (default) for what is fast on the device.

    Source: Desai and Ramaswamy, "Ablation-CAM", WACV 2020, equations 4 and 5.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.AblationCAM(denominator="abs"))
    """

    ablation_value: float = 0.0
    denominator: Denominator = "score"
    chunk: Count | None = None
    memory: Positive | None = None

    def run(self, task: Task) -> RawMap:
        """One forward pass, then what lies behind the layer for every channel of every image."""
        with borrowed(task.model, task.inputs) as module, ExitStack() as stack:
            inputs = task.inputs
            with LinearInputs(module) as seen, Footprint(module, len(inputs)) as footprint:
                again = stack.enter_context(
                    replay(module, inputs, task.layers, task.target, grid=task.grid)
                )
            tapped = again.tapped
            # A ReLU behind the layer shows in the head only where some activation is negative.
            exact = self.ablation_value >= 0 and tapped.outputs.ndim == 2
            ablations = {
                name: _Ablation(
                    again,
                    name,
                    self.ablation_value,
                    find_head(activation, tapped.outputs, seen.calls) if exact else None,
                )
                for name, activation in tapped.activations.items()
            }
            chunks = Chunks(self.chunk, self.memory, footprint.per_image, inputs.device)
            bar = Bar(task, sum(ablation.passes for ablation in ablations.values()))
            weights: dict[str, Tensor] = {}
            details: dict[str, dict[str, Tensor]] = {}
            notes: dict[int, list[str]] = defaultdict(list)
            for name, ablation in ablations.items():
                losses = ablation.losses(chunks, bar.done)
                bar.next()
                weights[name] = self.weigh(losses, ablation.values)
                details[name] = {"weights": weights[name].float(), "passes": ablation.counts}
                of = f" of layer {name!r}" if len(ablations) > 1 else ""
                self._note(notes, of, losses, ablation)
            return assemble(
                self,
                task,
                tapped,
                lambda name, activation, _: weigh(weights[name], activation),
                details=keyed(details),
                notes=notes,
            )

    def weigh(self, losses: Tensor, values: Tensor) -> Tensor:
        """The weights ``(N, K)`` from what each ablation costs, ``(N, K)``, and the target ``(N,)``."""
        whole = values.abs() if self.denominator == "abs" else values
        usable = whole.abs() >= _TINY
        return losses / torch.where(usable, whole, 1)[:, None]

    def _note(
        self, notes: dict[int, list[str]], layer: str, losses: Tensor, ablation: _Ablation
    ) -> None:
        still = (losses == 0).all(1).tolist()
        for i, value in enumerate(ablation.values.tolist()):
            own = notes[i]
            if still[i]:
                own.append(f"no channel{layer} changes the target when it is ablated")
            if abs(value) < _TINY:
                own.append(
                    f"the target is {value:.1e}, too small to divide by: the weights{layer} are differences instead of "
                    "shares"
                )
            elif value < 0 and self.denominator == "score":
                own.append(
                    f"the target is negative ({value:.3g}), which flips the sign of all weights{layer}; "
                    "denominator='abs' keeps them"
                )


class _Ablation:
    """The channels of one layer, switched off one by one."""

    def __init__(self, again: Replay, name: str, value: float, head: LinearHead | None) -> None:
        self.again = again
        self.name = name
        self.value = value
        self.head = head
        self.activation = again.tapped.activations[name]
        self.target = again.tapped.target
        outputs = again.tapped.outputs
        if head is not None and outputs.device.type != "mps":
            # The closed form subtracts nearly equal numbers.
            outputs = outputs.double()
        self.outputs = outputs
        with torch.autocast(outputs.device.type, enabled=False):
            self.values = target_values(self.target, outputs, len(outputs))
        # A channel that has the value already loses nothing.
        changed = (self.activation != value).flatten(2).any(2)
        self.pairs = changed.nonzero()
        self.counts = torch.zeros(len(outputs), dtype=torch.long, device=outputs.device)
        if head is None:
            self.counts = changed.sum(1)
        self.passes = int(self.counts.sum())

    def losses(self, chunks: Chunks, progress: Callable[[int], None]) -> Tensor:
        """What each ablation costs, ``Y(x) - Y(x | A^k := value)``, ``(N, K)``."""
        losses = self.values.new_zeros(self.activation.shape[:2])
        if not len(self.pairs):
            return losses
        total = len(self.pairs)
        if self.head is None:
            ablated = chunks.run(self._replayed, total, progress)
        else:
            rows = _BYTES // (self.outputs.shape[1] * self.outputs.element_size())
            logits = Chunks(max(1, rows), None, 1, self.outputs.device)
            ablated = logits.run(self._closed(self.head), total)
        images, channels = self.pairs.unbind(1)
        losses[images, channels] = self.values[images] - ablated.to(losses)
        return losses

    def _read(self, outputs: Tensor, images: Tensor) -> Tensor:
        with torch.autocast(outputs.device.type, enabled=False):
            return target_values(self.target.take(images), outputs, len(images))

    def _replayed(self, start: int, stop: int) -> Tensor:
        images, channels = self.pairs[start:stop].unbind(1)
        altered = self.activation[images]
        altered[torch.arange(len(images), device=images.device), channels] = self.value
        return self._read(self.again.run(self.name, altered, images), images)

    def _closed(self, head: LinearHead) -> Callable[[int, int], Tensor]:
        weight = head.weight.to(self.outputs).T
        pooled = head.pool(self.activation.to(self.outputs))

        def work(start: int, stop: int) -> Tensor:
            images, channels = self.pairs[start:stop].unbind(1)
            change = self.value - pooled[images, channels]
            outputs = self.outputs[images] + change[:, None] * weight[channels]
            return self._read(outputs, images)

        return work
