"""A step forward and backward to the images, compiled once eager steps have taken as long as compiling does."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from camlucida.engine.faster_forward import near, steps_of

Loss: TypeAlias = Callable[..., Tensor]
"""From images ``(n, C, H, W)`` and further tensors to losses ``(n,)``."""

_LOG = logging.getLogger("camlucida")

_AFTER = 40.0
"""Seconds of eager steps of one form and size after which they are compiled: compiling takes 10 to 50, so that it never
costs much more than it saves."""
_WORTH = 0.97
"""The share of an eager step's time that a compiled one has to stay under."""


@dataclass
class _Form:
    """What is known of the steps of one form: seconds spent eagerly, whether compiling was tried, what came of it."""

    spent: float = 0.0
    tried: bool = False
    run: Callable[..., tuple[Tensor, Tensor]] | None = None


def step(loss: Loss, images: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
    """Losses ``(n,)`` and their gradients at the images; zero where a loss does not depend on them."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        values = loss(leaf, *given)
        if not values.requires_grad:
            return values.detach(), torch.zeros_like(images)
        return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def many_steps(model: nn.Module, loss: Loss, key: Hashable) -> Callable[..., tuple[Tensor, Tensor]]:
    """The same as :func:`step` with this loss, for so many steps that compiling may pay.

    Args:
        model: borrowed, its fastest form known; what is compiled is kept while it lives and its values stay the same.
        loss: traced, so it must do the same for all images; what differs between them comes in further tensors.
        key: what tells this loss from others of the model.

    Returns:
        A function of images and the loss's further tensors. Compiled steps are used only where they give the same and
        are faster; without a compiler all steps are eager, which is logged.
    """
    forms: dict[Hashable, _Form] = steps_of(model)

    def run(images: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        layout = tuple(tuple(t.shape) for t in (images, *given))
        form = forms.setdefault((key, layout, images.dtype, images.device), _Form())
        if form.run is not None:
            with torch.no_grad():
                return form.run(images, *given)
        found, taken = _timed(lambda: step(loss, images, *given))
        form.spent += taken
        if form.spent > _AFTER and not form.tried:
            form.tried = True
            form.run = _compiled(loss, (images, *given), found, taken)
        return found

    return run


def _compiled(
    loss: Loss, given: tuple[Tensor, ...], found: tuple[Tensor, Tensor], eager: float
) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The step, compiled; ``None`` where that does not work, gives something else or takes as long."""
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            graph = make_fx(lambda *tensors: step(loss, *tensors))(*given)
            run = torch.compile(graph, dynamic=False, options={"freezing": True})
            run(*given)
            (values, gradient), taken = _timed(lambda: run(*given))
    except Exception as error:
        _LOG.warning(
            "steps are not compiled, they only take longer: %s: %s",
            type(error).__name__,
            str(error).partition("\n")[0],
        )
        return None
    same = torch.allclose(values, found[0], rtol=1e-4, atol=1e-5) and near(gradient, found[1])
    if not same or taken > _WORTH * eager:
        _LOG.debug("compiled steps are not used: same %s, %.3g s for %.3g s", same, taken, eager)
        return None
    return run


def _timed(work: Callable[[], tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], float]:
    started = time.perf_counter()
    found = work()
    if found[0].is_cuda:
        torch.cuda.synchronize(found[0].device)
    return found, time.perf_counter() - started
