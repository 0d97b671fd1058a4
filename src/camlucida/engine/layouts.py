"""How images are laid out in memory for passes that hooks look into, which run the model itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camlucida.engine.faster_forward import expects_channels_last, same

R = TypeVar("R")

_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], bool]] = WeakKeyDictionary()
"""Whether images are laid out channels-last for a model, by their shape, precision and device."""


def in_fast_layout(
    model: nn.Module, images: Tensor, work: Callable[[Tensor], R], outputs: Callable[[R], Tensor]
) -> R:
    """Do some work on images, laid out channels-last where convolutions like it and the model gives the same.

    No clock decides, so that a map does not depend on what else the machine does; the first time costs both layouts.

    Args:
        model: whose passes they are, borrowed.
        images: ``(N, C, H, W)``.
        work: runs the model on them.
        outputs: the model's outputs in the work's result, to compare.
    """
    half = torch.is_autocast_enabled(images.device.type)
    kind = (*images.shape[1:], images.dtype, images.device, half)
    known = _KNOWN.setdefault(model, {})
    turned = images.contiguous(memory_format=torch.channels_last)
    if kind in known:
        return work(turned if known[kind] else images)
    found = work(images)
    known[kind] = False
    if expects_channels_last(model, images):
        try:
            other = work(turned)
        except RuntimeError:  # a model that reshapes its maps with view()
            return found
        if same(outputs(other), outputs(found)):
            known[kind] = True
            return other
    return found
