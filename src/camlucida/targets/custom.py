"""Functions and classes as targets, and how any target is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor

from camlucida.common.errors import TargetError
from camlucida.targets.base import Target
from camlucida.targets.classes import Classes, Logit


@dataclass(frozen=True, eq=False)
class Custom(Target):
    """Any function of the model's output, ``(N, ...)`` to ``(N,)``.

    Example:
        >>> camlucida.targets.Custom(lambda outputs: outputs.sum(1))(torch.ones(2, 3))
        tensor([3., 3.])
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, outputs: Tensor) -> Tensor:
        """The function's value."""
        return self.function(outputs)


TargetLike: TypeAlias = Target | Callable[[Tensor], Tensor] | Classes
"""A target, a function, or classes whose logit is explained."""


def as_target(target: TargetLike) -> Target:
    """Turn classes into :class:`Logit` and functions into :class:`Custom`.

    Raises:
        TargetError: for anything else.

    Example:
        >>> camlucida.targets.as_target(3)
        Logit(classes=3)
    """
    if isinstance(target, Target):
        return target
    if target is None or isinstance(target, int | str | Tensor):
        return Logit(target)
    if isinstance(target, Sequence) and all(isinstance(c, int | str) for c in target):
        return Logit(target)
    if isinstance(target, type) and issubclass(target, Target):
        raise TargetError(f"pass an instance of the target, {target.__name__}(), not the class")
    if callable(target):
        return Custom(cast("Callable[[Tensor], Tensor]", target))
    if hasattr(target, "__array__"):
        return Logit(torch.as_tensor(target, device="cpu"))
    raise TargetError(
        f"a target is a class index or name, one per image, a camlucida target or a function from "
        f"outputs to (N,), got {type(target).__name__}"
    )


def target_values(target: Target, outputs: Tensor, images: int) -> Tensor:
    """The target's values ``(N,)``, computed in single precision at least.

    Raises:
        TargetError: when the target returns anything but one value per image.

    Example:
        >>> camlucida.targets.target_values(camlucida.Logit(0), torch.ones(2, 3), images=2)
        tensor([1., 1.])
    """
    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    values = target.lasting()(outputs)
    if not isinstance(values, Tensor) or values.shape != (images,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TargetError(
            f"a target must return one value per image, shape ({images},), but "
            f"{getattr(target, 'function', target)!r} returned {got}"
        )
    return values
