"""A step forward and backward to the images, eager or compiled."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from camlucida.engine.faster_forward import near, steps_of

Loss: TypeAlias = Callable[..., Tensor]
"""From images ``(n, C, H, W)`` and further tensors to losses ``(n,)``."""

_LOG = logging.getLogger("camlucida")


def step(loss: Loss, images: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
    """Losses ``(n,)`` and their gradients at the images; zero where a loss does not depend on them."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        values = loss(leaf, *given)
        if not values.requires_grad:
            return values.detach(), torch.zeros_like(images)
        return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def compiled_steps(
    model: nn.Module, loss: Loss, key: Hashable
) -> Callable[..., tuple[Tensor, Tensor]]:
    """The same as :func:`step` with this loss, compiled at the first step of each shape, which takes 10 to 50 seconds.

    Args:
        model: borrowed, its fastest form known; what is compiled is kept while it lives and its values stay the same.
        loss: traced, so it must do the same for all images; what differs between them comes in further tensors.
        key: what tells this loss from others of the model.

    Returns:
        A function of images and the loss's further tensors. Compiled steps are used only where they give the same;
        without a compiler all steps are eager, which is logged.
    """
    forms: dict[Hashable, Callable[..., tuple[Tensor, Tensor]]] = steps_of(model)

    def steps(images: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        shapes = tuple(tuple(t.shape) for t in (images, *given))
        form = (key, shapes, images.dtype, images.device)
        if form not in forms:
            run = _compiled(loss, (images, *given))
            forms[form] = partial(step, loss) if run is None else run
        with torch.no_grad():
            return forms[form](images, *given)

    return steps


def _compiled(loss: Loss, given: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The step, compiled; ``None`` where that does not work or gives something else."""
    from torch.fx.experimental.proxy_tensor import make_fx

    found = step(loss, *given)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            graph = make_fx(lambda *tensors: step(loss, *tensors))(*given)
            run = torch.compile(graph, dynamic=False, options={"freezing": True})
            values, gradient = run(*given)
    except Exception as error:
        _LOG.warning(
            "steps are not compiled, they only take longer: %s: %s",
            type(error).__name__,
            str(error).partition("\n")[0],
        )
        return None
    same = torch.allclose(values, found[0], rtol=1e-4, atol=1e-5) and near(gradient, found[1])
    return run if same else None
