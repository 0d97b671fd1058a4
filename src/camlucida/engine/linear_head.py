"""Find the linear head of a network that ends in global average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from camlucida.common.turns import here
from camlucida.engine.maps import rectify

LinearCall = tuple[nn.Module, Tensor, Tensor]
"""A linear layer, what it received and what it returned, both ``(N, ...)`` flattened to two dimensions."""


@dataclass(frozen=True)
class LinearHead:
    r"""The rest of a network behind a layer, $z = W\,\mathrm{mean}(A) + b$.

    Attributes:
        weight: ``W``, ``(M, K)``.
        rectified: a ReLU stands between layer and pooling (DenseNet's ``features``).
    """

    weight: Tensor
    rectified: bool

    def pool(self, activation: Tensor) -> Tensor:
        """``(N, K, h, w)`` to ``(N, K)``, what the linear layer receives."""
        return (rectify(activation) if self.rectified else activation).mean((2, 3))


class LinearInputs:
    """Records what goes into and comes out of every linear layer (or 1x1 convolution of a vector)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[LinearCall] = []

    def __enter__(self) -> Self:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
                return
            # A convolution of a map is no linear layer; keeping it would keep the whole network's maps.
            if output.ndim >= 2 and output.flatten(1).shape[1] == output.shape[1]:
                self.calls.append((module, args[0].flatten(1), output.flatten(1)))

        linear = [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self.handles = [module.register_forward_hook(here(hook)) for module in linear]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def find_head(
    activation: Tensor, outputs: Tensor, calls: Sequence[LinearCall]
) -> LinearHead | None:
    """The linear layer that turns the pooled activation into the outputs, ``None`` where there is none.

    What the layer received is compared with the pooled activation, so that a network with anything in
    between (a norm, a second layer) is refused rather than explained wrongly. A ReLU between layer and
    pooling is allowed (DenseNet's ``features``).

    Args:
        activation: ``(N, K, h, w)`` of the layer.
        outputs: ``(N, M)`` of the same forward pass.
        calls: what :class:`LinearInputs` recorded in it.
    """
    for module, received, returned in reversed(calls):
        if returned.shape != outputs.shape or not _same(returned, outputs):
            continue
        weight = module.weight
        assert isinstance(weight, Tensor)  # noqa: S101
        for rectified in (False, True):
            head = LinearHead(weight.detach().flatten(1), rectified)
            mean = head.pool(activation)
            if received.shape == mean.shape and _same(received, mean):
                return head
    return None


def no_head(layer: str) -> str:
    """What to say where :func:`find_head` finds none behind a layer."""
    return (
        f"there is more than global average pooling and one linear layer behind layer {layer!r}; if another pooling "
        "layer follows it, name that one (layers=, on the command line --layer)"
    )


def _same(a: Tensor, b: Tensor) -> bool:
    # One image with NaN in it must not hide the head from the others.
    a, b = a.to(b).nan_to_num(), b.nan_to_num()
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().amax()))
