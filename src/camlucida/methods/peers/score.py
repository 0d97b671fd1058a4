"""What other libraries are given to explain: a network with one output, the target's value."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.engine.outputs import first_tensor


class Score(nn.Module):
    """A model that returns the target's value of each row, ``(rows, 1)``; its class 0 is what is explained.

    Args:
        model: the model.
        target: what a function is given as the target, see :class:`camlucida.methods.own.Wanted`.
    """

    def __init__(self, model: nn.Module, target: Any) -> None:
        super().__init__()
        self.model = model
        self.target = target
        self.training = False

    def forward(self, inputs: Tensor) -> Tensor:
        """``(rows, C, H, W)`` to ``(rows, 1)``."""
        value: Tensor = self.target(first_tensor(self.model(inputs)))
        return value[:, None]


@contextmanager
def hookable(model: nn.Module) -> Iterator[None]:
    """Inside the block no module writes over its input, which hooks on gradients do not allow.

    The numbers are the same. What the libraries warn of, that they set hooks, is not passed on.
    """
    inplace = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in inplace:
        module.inplace = False  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for module in inplace:
            module.inplace = True  # type: ignore[assignment]


def squares(inputs: Tensor, cells: int) -> Tensor:
    """Of each pixel, the number of its square in a grid of ``cells`` by ``cells``, ``(1, 1, H, W)``."""
    row, col = (
        torch.arange(size, device=inputs.device) * cells // size for size in inputs.shape[-2:]
    )
    return (row[:, None] * cells + col)[None, None]


NO_RELU = (
    "the model has no torch.nn.ReLU that {method} could change (ReLU6 and functions are none), so this is the plain "
    "gradient"
)
"""What is said of a method that changes how ReLUs hand gradients back, where there is none."""
