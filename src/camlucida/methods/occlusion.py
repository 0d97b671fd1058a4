"""Occlusion: what the target loses when a place is hidden, and what it gains when nothing else is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.limits import Count
from camlucida.engine.borrow import borrowed
from camlucida.engine.maps import Steps
from camlucida.engine.replay.replay import replay
from camlucida.methods.base import Method, RawMap, assemble
from camlucida.methods.masking import Masked, MaskSpace
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import target_values

Way = Literal["both", "hide", "show"]
"""Places are hidden in the whole image, shown alone in an empty one, or both, of which the mean is taken."""

_AT_A_TIME = 16


def grid_masks(cells: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """The places of an even grid, ``(cells * cells, H, W)``, 1 in one place each."""
    rows, columns = (torch.arange(n, device=like.device) * cells // n for n in size)
    numbers = rows[:, None] * cells + columns
    return (numbers == torch.arange(cells**2, device=like.device)[:, None, None]).to(like)


def loss_by_place(
    values: Callable[[Tensor, Tensor], Tensor], whole: Tensor, places: int, way: Way
) -> Tensor:
    """What each place adds to the target, ``(N, places)``.

    ``values`` takes image numbers and, for each, the places that are left, ``(n, places)`` boolean, and returns the
    target ``(n,)``; ``whole`` is the target of the whole images.
    """
    count = len(whole)
    index = torch.arange(count, device=whole.device).repeat_interleave(places)
    one = torch.eye(places, dtype=torch.bool, device=whole.device).repeat(count, 1)
    parts: list[Tensor] = []
    if way != "show":
        hidden = torch.cat([values(i, ~m) for i, m in _some(index, one)])
        parts.append(whole[:, None] - hidden.view(count, places))
    if way != "hide":
        shown = torch.cat([values(i, m) for i, m in _some(index, one)])
        every = torch.arange(count, device=whole.device)
        empty = values(every, torch.zeros(count, places, dtype=torch.bool, device=whole.device))
        parts.append(shown.view(count, places) - empty[:, None])
    return torch.stack(parts).mean(0)


def _some(index: Tensor, masks: Tensor) -> zip[tuple[Tensor, Tensor]]:
    return zip(torch.split(index, _AT_A_TIME), torch.split(masks, _AT_A_TIME), strict=True)


@register(
    "occlusion",
    use="Without gradients and easy to explain: what the score loses when a place of the photo is covered.",
    paper="Zeiler & Fergus 2014",
    year=2014,
    equation="section 4.2",
    needs=(),
    cost=Cost(forward=2, times=("cells", "cells"), first=2),
    quick={"cells": 5},
    quick_audits=False,
    control="exact",
    remark="with both ways, what two places say together is not missed where one of them is enough",
)
@dataclass(frozen=True)
class Occlusion(Method):
    r"""What the target loses without a place of the image, and gains with nothing but that place.

    The places are the cells of an even grid. A hidden place is 0 in the model's input (the mean colour of most
    models) unless told otherwise. The map is signed: a place that counts against the target is negative.

    Attributes:
        cells: places across and down, 8 by default.
        way: ``"hide"`` a place (the paper), ``"show"`` nothing else, or the mean of ``"both"`` (default).
        mask_space: hide in pixels or in the model's ``"input"`` (default).

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.Occlusion(cells=4))
    """

    explains = "input"

    cells: Count = 8
    way: Way = "both"
    mask_space: MaskSpace = "input"

    @property
    def steps(self) -> Steps:
        """No rectifying: what counts against the target is shown."""
        return Steps(rectify=False)

    def run(self, task: Task) -> RawMap:
        """Two forward passes for each place."""
        with borrowed(task.model, task.inputs), torch.no_grad():
            outputs, target, whole = task.ask()
            masked = Masked(task, target, self.mask_space, outputs)
            places = grid_masks(self.cells, task.size, masked.images).flatten(1)
            done = 0

            def values(index: Tensor, left: Tensor) -> Tensor:
                nonlocal done
                done += len(index)
                task.report(done, 2 * len(whole) * len(places) + len(whole))
                masks = (left.to(places) @ places).view(-1, *task.size)
                return masked.values(masks, index)

            lost = loss_by_place(values, whole, len(places), self.way)
        signed = lost.view(-1, self.cells, self.cells)
        return RawMap.of_input(signed, outputs, target, whole)


@register(
    "cell-occlusion",
    use="Without gradients: what the score loses when a cell of the layer is switched off.",
    paper="Zeiler & Fergus 2014",
    year=2014,
    equation="section 4.2, on a layer",
    needs=(),
    cost=Cost(head_forward=2, times=("positions",), first=1),
    quick_audits=False,
    control="exact",
    remark="exact for what lies behind the layer, whatever it is",
)
@dataclass(frozen=True)
class CellOcclusion(Method):
    r"""What the target loses without a cell of the layer's map, and gains with nothing but that cell.

    All channels of a cell become 0. Behind pooling and one linear layer this is HiResCAM's map.

    Attributes:
        way: ``"hide"`` a cell, ``"show"`` nothing else, or the mean of ``"both"`` (default).

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.CellOcclusion())
    """

    way: Way = "both"

    @property
    def steps(self) -> Steps:
        """No rectifying: what counts against the target is shown."""
        return Steps(rectify=False)

    def run(self, task: Task) -> RawMap:
        """One forward pass, then two of what lies behind the layer for each cell."""
        with replay(task.model, task.inputs, task.layers, task.target, grid=task.grid) as again:
            tapped = again.tapped
            found: dict[str, Tensor] = {}
            for name, activation in tapped.activations.items():
                size = activation.shape[2:]

                def values(
                    index: Tensor, left: Tensor, name: str = name, activation: Tensor = activation
                ) -> Tensor:
                    mask = left.view(-1, 1, *activation.shape[2:]).to(activation)
                    outputs = again.run(name, activation[index] * mask, index)
                    return target_values(tapped.target.take(index), outputs, len(index))

                lost = loss_by_place(values, tapped.values, size.numel(), self.way)
                found[name] = lost.view(-1, *size)
            return assemble(self, task, tapped, lambda name, _, __: found[name])
