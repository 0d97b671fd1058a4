"""RISE: the mean of random masks, weighted by what the model says to the image behind them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from camlucida.common.limits import Count, Limits, Positive
from camlucida.common.seeds import ImageGenerators
from camlucida.engine.borrow import borrowed
from camlucida.engine.chunks import Chunks
from camlucida.engine.maps import Steps
from camlucida.methods.base import Method, RawMap
from camlucida.methods.masking import Masked, MaskSpace
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import Target, target_values

Score = Literal["probability", "target"]
Border = Literal["clamp", "reflect"]
Interrupt = Literal["raise", "keep"]

_BLOCK = 100  # masks drawn at a time: what is drawn depends on neither batch nor chunk
_EVERY = 500  # masks between two looks at whether the map has settled


@register(
    "rise",
    use="Any model that can be asked, without looking inside: many photos with random parts "
    "hidden.",
    paper="Petsiuk, Das & Saenko 2018",
    year=2018,
    equation="6, section 3.2",
    needs=(),
    cost=Cost(forward=1, times=("masks",), first=1),
    quick={"masks": 200},
    quick_audits=False,
    scale="average",
)
@dataclass(frozen=True)
class RISE(Method):
    r"""Random masks averaged with the probability that survives behind each.

    $L = \frac{1}{N p_1} \sum_i p_c(x \odot M_i)\, M_i$. A mask is an ``s`` x ``s`` grid of cells that are
    kept with probability $p_1$, enlarged bilinearly and cut out at a random offset. The model is a black box.

    The work may end early, with the map so far: ``details["masks"]`` says how many masks each image had.

    Attributes:
        masks: N, 4000 by default (the paper's number for VGG; 8000 for ResNet).
        s: cells of a mask's side, 7 by default.
        p1: probability that a cell is kept, 0.5 by default.
        border: how the grid goes on beyond its outermost cells when it is enlarged: they are repeated
            (``"clamp"``, default) or the cells behind them mirrored (``"reflect"``, the authors' code).
        debias: divide by how often each pixel was kept instead of by $N p_1$, which removes the pattern of
            the finite sample; ``False`` by default.
        score: ``"probability"`` (default, the paper) turns a class's logit into its softmax probability;
            every other target is used as it is, as ``"target"`` does for the logit too.
        mask_space: what is multiplied: the ``"input"`` as the model receives it (default, the authors'
            code), or ``"pixel"`` values in [0, 1]; ``"auto"`` is pixels where the preprocessing is known.
        tolerance: an image stops when its map's correlation with the one 500 masks before is above
            1 - tolerance; ``None`` (default) for all masks. The same for batch and single image.
        budget_seconds: time per image after which no further masks are drawn; ``None`` (default) for no
            limit. How far that gets depends on the machine.
        on_interrupt: what Ctrl-C does: ``"raise"`` (default) ends everything, ``"keep"`` ends the masks of
            this batch and keeps its maps so far, once every image has one.
        chunk: masks in one forward pass, halved when the device runs out of memory; ``None`` (default) is 16
            on a CPU, whose caches hold no more, and 64 on other devices.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.RISE(masks=10))
    """

    explains = "input"
    steps = Steps(rectify=False)  # every value counts: a mean of masks has no sign

    masks: Count = 4000
    s: Annotated[int, Limits(1, 1000)] = 7
    p1: Annotated[float, Limits(0, 1, open_low=True, open_high=True)] = 0.5
    border: Border = "clamp"
    debias: bool = False
    score: Score = "probability"
    mask_space: MaskSpace = "input"
    tolerance: Positive | None = None
    budget_seconds: Positive | None = None
    on_interrupt: Interrupt = "raise"
    chunk: Count | None = None

    def run(self, task: Task) -> RawMap:
        """Forward passes only, block by block for all images."""
        with borrowed(task.model, task.inputs) as module, torch.no_grad():
            task = replace(task, model=module)
            outputs, target, _ = task.ask()
            target = self._scored(target, outputs)
            values = target_values(target, outputs, len(task.inputs))
            masked = Masked(task, target, self.mask_space, outputs)
            sums = _Sums(task.inputs, self)
            try:
                self._fill(sums, masked, task)
            except KeyboardInterrupt:
                if self.on_interrupt == "raise" or 0 in sums.counts:
                    raise
            maps = sums.maps()
        notes: dict[int, list[str]] = {}
        for i, count in enumerate(sums.counts):
            if count < self.masks:
                notes[i] = [f"ended after {count} of {self.masks} masks"]
            if sums.blind(i):
                notes.setdefault(i, []).append("every mask scored the same: no place matters more")
            if masked.note:
                notes.setdefault(i, []).append(masked.note)
        details = {"masks": torch.tensor(sums.counts, device="cpu")}
        return RawMap.of_input(maps, outputs, target, values, notes=notes, details=details)

    def _fill(self, sums: _Sums, masked: Masked, task: Task) -> None:
        """Add masks until there are enough of them."""
        inputs = task.inputs
        started = time.monotonic()
        limit = math.inf if self.budget_seconds is None else self.budget_seconds * len(inputs)
        size = self.chunk or (16 if inputs.device.type == "cpu" else 64)
        chunks = Chunks(size, None, 1, inputs.device)
        active = list(range(len(inputs)))
        for start in range(0, self.masks, _BLOCK):
            count = min(_BLOCK, self.masks - start)
            drawn = self.draw(task.generator, inputs)
            for done, i in enumerate(active):
                masks, index = (
                    self.make(drawn[i, :count], inputs),
                    torch.full((count,), i, device="cpu"),
                )

                def score(a: int, b: int, masks: Tensor = masks, index: Tensor = index) -> Tensor:
                    return masked.values(masks[a:b], index[a:b])

                sums.add(i, masks, chunks.run(score, count))
                task.report(start + count * (done + 1) / len(active), self.masks)
            active = [i for i in active if not sums.settled(i)]
            if not active or time.monotonic() - started > limit:
                break
        task.report(self.masks, self.masks)

    def draw(self, generator: ImageGenerators, inputs: Tensor) -> Tensor:
        """The random numbers behind the next 100 masks of each image, ``(N, 100, s * s + 2)``."""
        # In single precision, so that every type of input sees the same masks.
        return generator.rand((_BLOCK, self.s**2 + 2), torch.empty(0, device=inputs.device))

    def make(self, drawn: Tensor, inputs: Tensor) -> Tensor:
        """Masks ``(B, H, W)`` in [0, 1] for images ``(N, C, H, W)`` from random numbers ``(B, s * s + 2)``."""
        height, width = (int(side) for side in inputs.shape[-2:])
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        cells = self.s**2
        kept = (drawn[:, :cells] < self.p1).to(dtype).view(-1, self.s, self.s)
        cell = (-(-height // self.s), -(-width // self.s))
        large = kept
        for dim, side in enumerate(cell, 1):
            large = self._enlarged(large, dim, (self.s + 1) * side)
        offset = (drawn[:, cells:] * torch.tensor(cell, device=drawn.device)).long()
        rows = offset[:, :1] + torch.arange(height, device=drawn.device)
        columns = offset[:, 1:] + torch.arange(width, device=drawn.device)
        which = torch.arange(len(large), device=drawn.device)[:, None, None]
        return large[which, rows[:, :, None], columns[:, None]]

    def _enlarged(self, cells: Tensor, dim: int, size: int) -> Tensor:
        """The cells along a dimension as pixels: linearly, with half-pixel centres."""
        pixels = torch.arange(size, dtype=cells.dtype, device=cells.device)
        at, last = (pixels + 0.5) * self.s / size - 0.5, self.s - 1
        if self.border == "reflect":
            at = last - (at.abs() - last).abs()
        at = at.clamp(0, last)
        below = at.long()
        one, other = (cells.index_select(dim, i) for i in (below, (below + 1).clamp_max(last)))
        share = (at - below).view([-1 if d == dim else 1 for d in range(cells.ndim)])
        return one + share * (other - one)

    def _scored(self, target: Target, outputs: Tensor) -> Target:
        """The probability of the class whose logit is to be explained."""
        wanted = target.probability(outputs) if self.score == "probability" else None
        return wanted or target


@dataclass(frozen=True)
class _Sum:
    """Of one image: masks times scores, masks, their number, the lowest and the highest score."""

    weighted: Tensor
    kept: Tensor
    count: int = 0
    lowest: float = math.inf
    highest: float = -math.inf


class _Sums:
    """What has been added up so far."""

    def __init__(self, inputs: Tensor, method: RISE) -> None:
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        nothing = torch.zeros_like(inputs[0, 0], dtype=dtype)
        self.method = method
        self.sums = [_Sum(nothing, nothing)] * len(inputs)
        self.before: dict[int, Tensor] = {}

    @property
    def counts(self) -> list[int]:
        return [one.count for one in self.sums]

    def add(self, i: int, masks: Tensor, values: Tensor) -> None:
        one = self.sums[i]
        with torch.autocast(masks.device.type, enabled=False):
            weighted = torch.einsum("n,nhw->hw", values.to(masks), masks)
        # In one piece: an interrupt finds a sum with these masks or without them.
        self.sums[i] = _Sum(
            one.weighted + weighted,
            one.kept + masks.sum(0),
            one.count + len(masks),
            min(one.lowest, float(values.min())),
            max(one.highest, float(values.max())),
        )

    def blind(self, i: int) -> bool:
        """Whether every mask scored the same, so that the sum shows the masks' own density only."""
        return self.sums[i].lowest == self.sums[i].highest

    def map(self, i: int) -> Tensor:
        one = self.sums[i]
        if self.blind(i):
            return torch.full_like(one.weighted, one.lowest)
        if self.method.debias:
            seen = one.kept > 0
            return torch.where(seen, one.weighted / torch.where(seen, one.kept, 1), 0)
        return one.weighted / (one.count * self.method.p1)

    def maps(self) -> Tensor:
        return torch.stack([self.map(i) for i in range(len(self.sums))])

    def settled(self, i: int) -> bool:
        if self.method.tolerance is None or self.sums[i].count % _EVERY:
            return False
        now, before = self.map(i).flatten(), self.before.get(i)
        self.before[i] = now
        if before is None:
            return False
        a, b = now - now.mean(), before - before.mean()
        norm = float(a.norm() * b.norm())
        return norm == 0 or float(a @ b) / norm > 1 - self.method.tolerance
