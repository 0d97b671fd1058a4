"""Targets of classifiers: logits, probabilities, margins, and regions of dense outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor

from camlucida.common.arguments import argument
from camlucida.common.errors import TargetError
from camlucida.common.optional import first_line
from camlucida.targets.base import Target, any_of, tensor_of

Classes: TypeAlias = int | str | Sequence[int | str] | Tensor | None
"""One class for all images, one per image, or ``None`` for the predicted class of each image."""


@dataclass(frozen=True, eq=False)
class ClassTarget(Target):
    """Base of the targets that explain a class of a classifier with logits ``(N, M)``.

    Attributes:
        classes: index or name, one per image or one for all; ``None`` explains the predicted class, the
            arg-max of the logits, the first of equal ones.

    Example:
        >>> isinstance(camlucida.Logit("tabby"), camlucida.targets.ClassTarget)
        True
    """

    classes: Classes = None
    per_image = ("classes",)
    noun: ClassVar[tuple[str, str]] = ("class", "classes")
    """What is chosen by ``classes``: one, and several."""

    def unnamed(self, index: int) -> str | None:
        """What a class without a name is called; ``None`` where there is but one."""
        return f"{self.noun[0]} {index}"

    def logits(self, outputs: Tensor) -> Tensor:
        """The logits ``(N, M)``.

        Raises:
            TargetError: for an output that is not ``(N, M)``.
        """
        if outputs.ndim != 2:
            raise TargetError(
                f"{type(self).__name__} explains classifiers with logits (N, M), but the model returned "
                f"shape {tuple(outputs.shape)}; for dense outputs use Segmentation, for embeddings "
                "CosineSimilarity"
            )
        if not outputs.is_floating_point() or not outputs.shape[1]:
            raise TargetError(
                f"the model returned {tuple(outputs.shape)} values of {outputs.dtype}, which are no logits (N, M)"
            )
        return outputs

    def pin(self, outputs: Tensor) -> Self:
        """Fix the class of each image: a ``(N,)`` tensor of indices."""
        return replace(self, classes=self.indices(self.logits(outputs)))

    def resolve(self, lookup: Callable[[str], int]) -> Self:
        """Turn class names into indices."""
        named = is_named(self.classes)
        return replace(self, classes=looked_up(self.classes, lookup)) if named else self

    def indices(self, logits: Tensor) -> Tensor:
        """The class index of each image, ``(N,)``.

        Raises:
            TargetError: when a class is out of range, is a name, or there are not as many as images.
        """
        n, m = logits.shape[:2]
        if self.classes is None:
            return logits.flatten(2).mean(-1).argmax(1) if logits.ndim > 2 else logits.argmax(1)
        unresolved = [self.classes] if isinstance(self.classes, str) else self.classes
        if isinstance(unresolved, Sequence) and any(isinstance(c, str) for c in unresolved):
            raise TargetError(
                f"class {self.classes!r} is a name, but the model's class names are not known; give an index, or "
                f"the names with {argument('class_names')}"
            )
        try:
            classes = torch.as_tensor(self.classes, device=logits.device)
        except (
            ValueError,
            TypeError,
            RuntimeError,
        ) as error:  # of the wrong type, or far too large
            raise TargetError(f"these are no class indices: {first_line(error)}") from error
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise TargetError(f"class indices must be integers, got {classes.dtype}")
        if classes.ndim == 0:
            classes = classes.expand(n)
        if classes.shape != (n,):
            raise TargetError(
                f"{classes.numel()} classes were given for {n} images; pass one per image, or one for all"
            )
        if any_of(out := (classes < 0) | (classes >= m)):
            one, several = self.noun
            raise TargetError(
                f"{one} {int(classes[out][0])} does not exist: the model has {m} {several}, 0 to {m - 1}"
            )
        return classes.long()

    def _gather(self, scores: Tensor) -> Tensor:
        return scores.gather(1, self.indices(scores)[:, None])[:, 0]

    def _rivals(self, logits: Tensor, name: str) -> None:
        if logits.shape[1] < 2:
            raise TargetError(
                f"{name} compares a class with the others, but the model has a single output; use Logit"
            )


@dataclass(frozen=True, eq=False)
class Logit(ClassTarget):
    """The logit of a class, ``z_c``: the default target.

    Example:
        >>> camlucida.Logit(2)(torch.tensor([[1.0, 5.0, 3.0]]))
        tensor([3.])
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``."""
        return self._gather(self.logits(outputs))

    def probability(self, outputs: Tensor) -> Target | None:
        """The softmax probability of the class, where there are others."""
        several = type(self) is Logit and self.logits(outputs).shape[1] > 1
        return Probability(self.classes) if several else None


@dataclass(frozen=True, eq=False)
class ExpLogit(ClassTarget):
    """The exponential of a class's logit, ``exp(z_c)``: the score behind Grad-CAM++'s equation 19.

    Example:
        >>> camlucida.ExpLogit(0)(torch.tensor([[0.0, 5.0]]))
        tensor([1.])
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``, positive."""
        return self._gather(self.logits(outputs)).exp()


@dataclass(frozen=True, eq=False)
class Probability(ClassTarget):
    """The softmax probability of a class, ``p_c``. Its gradient vanishes where the softmax saturates.

    Example:
        >>> camlucida.Probability(0)(torch.tensor([[2.0, 2.0]]))
        tensor([0.5000])
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)`` in [0, 1]; raises ``TargetError`` for a single output."""
        self._rivals(logits := self.logits(outputs), "Probability")
        return self._gather(logits.softmax(1))


@dataclass(frozen=True, eq=False)
class LogProbability(ClassTarget):
    """The logarithm of the softmax probability of a class, ``log p_c``.

    Example:
        >>> camlucida.LogProbability(0)(torch.tensor([[2.0, 2.0]]))
        tensor([-0.6931])
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``, at most 0; raises ``TargetError`` for a single output."""
        self._rivals(logits := self.logits(outputs), "LogProbability")
        return self._gather(logits.log_softmax(1))


@dataclass(frozen=True, eq=False)
class Segmentation(ClassTarget):
    r"""The logits of a class summed over a region of a dense output ``(N, M, H, W)``.

    $Y = \sum_{ij \in \mathcal{M}} z_{c,ij}$, the target of Seg-Grad-CAM (Vinogradova, Dibrov and Myers,
    AAAI 2020, equation 2).

    Attributes:
        mask: ``(H, W)`` or ``(N, H, W)``, bool or weights, at the output's resolution, also as an array or
            lists; ``None`` sums over the pixels that the model assigns to the class.

    Example:
        >>> camlucida.Segmentation(1, mask=torch.ones(4, 4))(torch.ones(1, 2, 4, 4))
        tensor([16.])
    """

    mask: Tensor | None = None

    def __post_init__(self) -> None:
        """Take arrays and lists too."""
        object.__setattr__(self, "mask", tensor_of(self.mask, "the mask"))

    @property
    def per_image(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes, and the mask where each image has its own."""
        per_image = self.mask is not None and self.mask.ndim == 3
        return ("classes", "mask") if per_image else ("classes",)

    def logits(self, outputs: Tensor) -> None:  # type: ignore[override]  # noqa: ARG002
        """``None``: a dense output has no class logits per image."""
        return

    def pin(self, outputs: Tensor) -> Self:
        """Fix the class (by default the one with the largest mean logit) and the region."""
        self._check(outputs)
        classes = self.indices(outputs)
        mask = self.mask
        if mask is None:
            mask = outputs.argmax(1) == classes[:, None, None]
        return replace(self, classes=classes, mask=mask)

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M, H, W)`` to ``(N,)``; raises ``TargetError`` for other shapes."""
        self._check(outputs)
        if self.mask is None:
            return self.pin(outputs)(outputs)
        index = self.indices(outputs)[:, None, None, None].expand(-1, 1, *outputs.shape[2:])
        scores = outputs.gather(1, index)[:, 0]
        return (scores * self.mask.to(scores)).sum(dim=(1, 2))

    def assumed(self, outputs: Tensor) -> tuple[str, ...]:
        """Over which pixels is summed, where no mask says so."""
        if self.mask is not None:
            return ()
        which = (
            "all pixels"
            if outputs.shape[1] == 1
            else "the pixels that the model assigns to the class"
        )
        return (f"Segmentation is the sum of the output of the explained class over {which}",)

    def remarks(self, outputs: Tensor) -> dict[int, str]:
        """Of which images no pixel is summed."""
        mask = self.pin(outputs).mask
        classes = self.indices(outputs).tolist()
        empty = ~mask.bool().flatten(-2).any(-1).expand(len(outputs))  # type: ignore[union-attr]
        why = "the model assigns no pixel to" if self.mask is None else "the mask holds no pixel of"
        return {
            image: f"{why} class {classes[image]}, so the target sums nothing and explains nothing"
            for image in empty.nonzero().flatten().tolist()
        }

    def _check(self, outputs: Tensor) -> None:
        if outputs.ndim != 4:
            raise TargetError(
                f"Segmentation needs a dense output (N, M, H, W), the model returned "
                f"{tuple(outputs.shape)}"
            )
        if self.mask is not None:
            shape = tuple(self.mask.shape)
            if shape[-2:] != tuple(outputs.shape[2:]) or shape[:-2] not in (
                (),
                (outputs.shape[0],),
            ):
                raise TargetError(
                    f"the mask has shape {shape}; expected (H, W) or (N, H, W) of the output "
                    f"{tuple(outputs.shape)}"
                )


def is_named(classes: Any) -> bool:
    """Whether a class, or one in a list, is given by its name."""
    if isinstance(classes, str):
        return True
    return isinstance(classes, Sequence) and any(is_named(one) for one in classes)


def looked_up(classes: Any, lookup: Callable[[str], int]) -> Any:
    """The same with indices in place of names."""
    if isinstance(classes, str):
        return lookup(classes)
    return [looked_up(c, lookup) for c in classes] if isinstance(classes, Sequence) else classes
