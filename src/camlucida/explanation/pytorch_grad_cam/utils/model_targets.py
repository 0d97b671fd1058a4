"""pytorch-grad-cam's targets: each is a function of the output for one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from camlucida.targets import (
    ClassTarget,
    FinerMargin,
    Logit,
    Probability,
    ResidualSoftmax,
    Target,
)

__all__ = [
    "BinaryClassifierOutputTarget",
    "ClassifierOutputReST",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputTarget",
    "FinerWeightedTarget",
    "RawScoresOutputTarget",
    "SemanticSegmentationTarget",
    "SoftmaxOutputTarget",
]


@dataclass(frozen=True, eq=False)
class OneEach(Target):
    """A function of its own for each image.

    Attributes:
        functions: from the output for one image to a number, or to numbers that are added up.
        targets: of each image the position of its function.
    """

    functions: tuple[Callable[..., Any], ...]
    targets: Sequence[int] | Tensor
    per_image = ("targets",)

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, ...)`` to ``(N,)``."""
        chosen = torch.as_tensor(self.targets).tolist()
        return torch.stack(
            [self.functions[i](one).sum() for i, one in zip(chosen, outputs, strict=True)]
        )


class ForClass:
    """A target of one class; ``target`` is ours that it stands for."""

    target: ClassVar[ClassTarget]

    def __init__(self, category: int) -> None:
        self.category = int(category)

    def __call__(self, model_output: Tensor) -> Tensor:
        """``(M,)`` or ``(N, M)`` to a number for each row."""
        rows = model_output if model_output.ndim > 1 else model_output[None]
        values = replace(self.target, classes=self.category)(rows)
        return values if model_output.ndim > 1 else values[0]


class ClassifierOutputTarget(ForClass):
    """The logit of a class."""

    target = Logit()


class ClassifierOutputSoftmaxTarget(ForClass):
    """The probability of a class."""

    target = Probability()


class ClassifierOutputReST(ForClass):
    """A class's logit plus its log-probability."""

    target = ResidualSoftmax()


class BinaryClassifierOutputTarget:
    """The only logit, for class 1, or minus it, for class 0."""

    def __init__(self, category: int) -> None:
        self.sign = 1 if category == 1 else -1

    def __call__(self, model_output: Tensor) -> Tensor:
        """``(1,)`` to ``(1,)``."""
        return model_output * self.sign


class FinerWeightedTarget:
    """How a class differs from others: each difference weighed by the other's probability."""

    def __init__(
        self, main_category: int, comparison_categories: Sequence[int], alpha: float
    ) -> None:
        self.target = FinerMargin(main_category, rivals=list(comparison_categories), alpha=alpha)

    def __call__(self, model_output: Tensor) -> Tensor:
        """``(M,)`` to a number."""
        return self.target(model_output[None])[0]


class SoftmaxOutputTarget:
    """All probabilities."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """``(M,)`` to ``(M,)``."""
        return model_output.softmax(-1)


class RawScoresOutputTarget:
    """The output as it is."""

    def __call__(self, model_output: Tensor) -> Tensor:
        """Unchanged."""
        return model_output


class SemanticSegmentationTarget:
    """The sum of a class's output over the pixels of a mask."""

    def __init__(self, category: int, mask: np.ndarray[Any, Any]) -> None:
        self.category = category
        self.mask = torch.as_tensor(mask)

    def __call__(self, model_output: Tensor) -> Tensor:
        """``(M, H, W)`` to a number."""
        return (model_output[self.category] * self.mask.to(model_output.device)).sum()
