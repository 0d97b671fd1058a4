"""Forward passes of altered images, in chunks, on a model that is given back as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.engine.borrow import borrowed
from camlucida.engine.faster_forward import fast_forward, has_fast_form
from camlucida.engine.outputs import first_tensor
from camlucida.engine.reading import probabilities

_MANY = 16
"""Images from which on a faster form of the model is worth looking for."""


def scores_of(
    model: nn.Module,
    like: Tensor,
    places: Sequence[tuple[int, int]],
    make: Callable[[Tensor, Tensor], Tensor],
    read: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
) -> Tensor:
    """Altered images through a model.

    Args:
        model: runs in evaluation mode and without gradients.
        like: the model's inputs, for their type and device.
        places: which altered images: pairs of an image's index and of a number that ``make`` understands.
        make: from both as tensors ``(n,)`` to inputs ``(n, C, H, W)``.
        read: from logits ``(n, M)``, in double precision, and image indices ``(n,)`` to scores ``(n, ...)``.
        batch_size: images per pass.

    Returns:
        The scores of all places, ``(len(places), ...)``; empty for none.

    Raises:
        CamlucidaError: the batch size is below 1.
    """
    if batch_size < 1:
        raise CamlucidaError(f"batch_size must be at least 1 image, got {batch_size}")
    found = []
    with borrowed(model, like) as module, torch.inference_mode():
        many = len(places) >= _MANY or has_fast_form(module)
        forward = fast_forward(module, like) if many else lambda x: first_tensor(module(x))
        for start in range(0, len(places), batch_size):
            some = torch.tensor(places[start : start + batch_size], device=like.device)
            images = make(some[:, 0], some[:, 1]).to(like.dtype)
            logits = forward(images).double()
            found.append(read(logits, some[:, 0]))
    return torch.cat(found).clone() if found else like.new_zeros(0, dtype=torch.float64)


def probability(model: nn.Module, logits: Tensor, classes: Tensor) -> Tensor:
    """The model's own probability ``(n,)`` of a class of each row: a softmax, of a label its sigmoid."""
    return pick(probabilities(model, logits), classes)


def pick(values: Tensor, classes: Tensor) -> Tensor:
    """The entry ``(n,)`` of each row ``(n, M)`` at a class; NaN where the class is -1."""
    known = classes >= 0
    entries = values.gather(1, classes.clamp_min(0)[:, None])[:, 0]
    return torch.where(known, entries, torch.nan)
