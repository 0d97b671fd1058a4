"""Where rows and columns of the image lie in what each module returns, read off the operations of a forward pass.

A convolution or pooling keeps rows and columns apart by definition, and what follows (flattening, windows,
class tokens, normalisation, residual sums, products with weights, attention) moves, splits and joins axes in ways
that are exact. So the axes are followed from operation to operation, with no name of any architecture. What an
operation of unknown kind returns has unknown axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from camlucida.engine.layers.operations import (
    ATTENTIONS,
    RULES,
    Run,
    attention,
    pointwise,
    tensors_in,
)
from camlucida.engine.layers.parts import Axes, image_axes, is_spatial


class FollowAxes(TorchDispatchMode):
    """Carries axes from the arguments of each operation to its results.

    Attributes:
        attended: called where weights between positions are made, that is inside of attention.
    """

    def __init__(self, attended: Callable[[], None] = lambda: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._axes: Any = WeakTensorKeyDictionary()
        self.attended = attended

    def start(self, images: Tensor) -> None:
        """Axes begin at the model's input."""
        self._axes[images] = image_axes(images.shape)

    def of(self, tensor: Tensor) -> Axes | None:
        """Axes of a tensor, ``None`` where no row or column is known in it."""
        found: Axes | None = self._axes.get(tensor)
        return found

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        known = any(t in self._axes for t in tensors_in(args))
        outputs = [result] if isinstance(result, Tensor) else result
        if not isinstance(outputs, list | tuple):
            return result
        name = func.overloadpacket.__name__.removesuffix("_")
        found: list[Axes | None] = [None] * len(outputs)
        if known:
            rule = pointwise if torch.Tag.pointwise in func.tags else RULES.get(name)
            if "scaled_dot_product" in name:
                rule = attention
            if rule is not None:
                try:
                    found = rule(Run(self.of, args, kwargs or {}, outputs))
                except (IndexError, TypeError, ValueError):  # an unusual form of an operation
                    found = [None] * len(outputs)
            if name in ATTENTIONS or "scaled_dot_product" in name:
                self.attended()
        for output, axes in zip(outputs, found, strict=False):
            if not isinstance(output, Tensor):
                continue
            if axes is not None and any(is_spatial(parts) for parts in axes):
                self._axes[output] = axes
                if name == "bmm" and sum(is_spatial(parts) for parts in axes[1:]) > 1:
                    self.attended()
            elif known and output in self._axes and output is not None:
                del self._axes[output]
        return result
