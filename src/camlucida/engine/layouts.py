"""How images are laid out in memory for passes that hooks look into, which run the model itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camlucida.engine.faster_forward import expects_channels_last, same

R = TypeVar("R")

_AFTER = 3
"""Passes of a model in the usual layout before the other one is tried, which costs one of them."""


@dataclass
class _Seen:
    passes: int = 0
    channels_last: bool = False


_SEEN: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], _Seen]] = WeakKeyDictionary()


def in_fast_layout(
    model: nn.Module, images: Tensor, work: Callable[[Tensor], R], outputs: Callable[[R], Tensor]
) -> R:
    """Do some work on images, laid out channels-last where a pass of this model showed that it is faster and the same.

    Args:
        model: whose passes they are, borrowed.
        images: ``(N, C, H, W)``.
        work: runs the model on them.
        outputs: the model's outputs in the work's result, to compare.
    """
    half = torch.is_autocast_enabled(images.device.type)
    kind = (*images.shape, images.dtype, images.device, half)
    seen = _SEEN.setdefault(model, {}).setdefault(kind, _Seen())
    seen.passes += 1
    if seen.channels_last:
        return work(images.contiguous(memory_format=torch.channels_last))
    if seen.passes != _AFTER + 1 or not expects_channels_last(model, images):
        return work(images)
    found, usual = _timed(work, images)
    try:
        other, taken = _timed(work, images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:  # a model that reshapes its maps with view()
        return found
    seen.channels_last = taken < usual and same(outputs(other), outputs(found))
    return found


def _timed(work: Callable[[Tensor], R], images: Tensor) -> tuple[R, float]:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    started = time.perf_counter()
    found = work(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return found, time.perf_counter() - started
