"""Layers that run again on what they ran on before: their map is the same, and so it is defined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor


class FirstRun:
    """What a layer was given, and what it returned, when it ran first.

    A model that computes its trunk once for each of its heads runs every layer of it twice, on the same images. That
    is one map, which is used twice. A layer that is given something else the second time, such as an activation that
    is used in two places, has no one map.

    Args:
        given: to the layer.
        returned: by the layer; ``None`` where that is no single tensor.
        passed_on: what the rest of the model got in its place, where that is another tensor.
    """

    def __init__(
        self, given: tuple[Any, ...], returned: Tensor | None, passed_on: Tensor | None = None
    ) -> None:
        self._given = [t.detach() for t in given if isinstance(t, Tensor)]
        self.passed_on = returned if passed_on is None else passed_on
        self._returned = returned
        self._versions = [version_of(t) for t in (returned, self.passed_on)]

    def is_same(self, given: tuple[Any, ...], now: Tensor | None) -> bool:
        """Whether the layer is given and returns the same numbers now, and nothing has written to the first ones."""
        first = self._returned
        if first is None or now is None or self.passed_on is None or first.shape != now.shape:
            return False
        if any(is_functorch_wrapped_tensor(t) for t in (first, now)):
            return False
        if self._versions != [version_of(t) for t in (first, self.passed_on)]:
            return False
        second = [t.detach() for t in given if isinstance(t, Tensor)]
        pairs = [*zip(self._given, second, strict=False), (first.detach(), now.detach())]
        return len(second) == len(self._given) and all(
            a.shape == b.shape and bool(torch.equal(a, b)) for a, b in pairs
        )


def version_of(tensor: Tensor | None) -> int:
    """How often a tensor was written to."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version  # noqa: SLF001
