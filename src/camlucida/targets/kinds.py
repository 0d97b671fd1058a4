"""Which target is meant, where a model's outputs are no logits of classes that exclude each other."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.common.arguments import Code, argument, in_python
from camlucida.common.errors import TargetError
from camlucida.targets.base import Target
from camlucida.targets.classes import (
    ClassTarget,
    ExpLogit,
    Logit,
    LogProbability,
    Probability,
    Segmentation,
)
from camlucida.targets.finer import FinerMargin, ResidualSoftmax
from camlucida.targets.margin import LogitMargin

Kind: TypeAlias = Literal["classes", "labels", "binary", "regression", "dense", "embedding"]
"""What a model's outputs are.

``classes`` that exclude each other (softmax), ``labels`` of which several may be present (sigmoid), ``binary``: one
logit that decides between two classes, ``regression``: values, ``dense``: a map per class, ``embedding``.
"""


@dataclass(frozen=True, eq=False)
class OneLogit(Logit):
    r"""The logit of a class of a model with a single logit: $z$ for class 1, $-z$ for class 0.

    It is the margin of one class over the other, $\log(p / (1 - p))$, and takes both logits, ``(N, 2)``.

    Example:
        >>> camlucida.targets.OneLogit(0)(torch.tensor([[-1.0, 1.0]]))
        tensor([-2.])
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, 2)`` to ``(N,)``."""
        return LogitMargin(self.classes)(outputs)

    def probability(self, outputs: Tensor) -> Target:  # noqa: ARG002
        """The probability of the class."""
        return Probability(self.classes)

    @property
    def word(self) -> str:
        """As it is shown."""
        return "Logit"


@dataclass(frozen=True, eq=False)
class Label(ClassTarget):
    r"""One of several labels, which do not exclude each other: its own logit decides, $p_k = \sigma(z_k)$.

    Attributes:
        classes: index or name of the label, one for all images or one per image; ``None`` for the most probable one.
        form: ``"logit"`` (default), ``"exp-logit"``, ``"probability"`` or ``"log-probability"``.

    Example:
        >>> camlucida.targets.Label(1, form="probability")(torch.tensor([[4.0, 0.0]]))
        tensor([0.5000])
    """

    form: Literal["logit", "exp-logit", "probability", "log-probability"] = "logit"

    def logits(self, outputs: Tensor) -> None:  # type: ignore[override]  # noqa: ARG002
        """``None``: there is no softmax over labels."""
        return

    def pin(self, outputs: Tensor) -> Self:
        """Fix the label of each image: a ``(N,)`` tensor of indices."""
        return replace(self, classes=self.indices(super().logits(outputs)))

    def probability(self, outputs: Tensor) -> Label | None:  # noqa: ARG002
        """The probability of the label whose logit this is."""
        return replace(self, form="probability") if self.form == "logit" else None

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``."""
        logit = self._gather(super().logits(outputs))
        forms = {
            "exp-logit": torch.exp,
            "probability": torch.sigmoid,
            "log-probability": F.logsigmoid,
        }
        return forms[self.form](logit) if self.form in forms else logit

    @property
    def word(self) -> str:
        """As it is shown."""
        return {
            "logit": "Logit",
            "exp-logit": "ExpLogit",
            "probability": "Probability",
            "log-probability": "LogProbability",
        }[self.form]


@dataclass(frozen=True, eq=False)
class Value(ClassTarget):
    """One of a model's outputs as it is, such as a regression's value.

    Attributes:
        classes: which of several outputs, one for all images or one per image; ``None`` is the first.
        of: how many there are; found.

    Example:
        >>> camlucida.targets.Value()(torch.tensor([[0.5], [2.0]]))
        tensor([0.5000, 2.0000])
    """

    of: int | None = None
    noun = ("value", "values")

    def logits(self, outputs: Tensor) -> None:  # type: ignore[override]  # noqa: ARG002
        """``None``: values are no logits."""
        return

    def pin(self, outputs: Tensor) -> Self:
        """Fix the output of each image: a ``(N,)`` tensor of indices."""
        which = 0 if self.classes is None else self.classes
        chosen = replace(self, classes=which).indices(super().logits(outputs))
        return replace(self, classes=chosen, of=outputs.shape[1])

    def unnamed(self, index: int) -> str | None:
        """``None`` for the only value."""
        return None if self.of == 1 else super().unnamed(index)

    def shown(self, value: float, name: str | None) -> str:
        """Such as ``"age: 31"``."""
        return f"{name}: {value:.3g}" if name else super().shown(value, name)

    def assumed(self, outputs: Tensor) -> tuple[str, ...]:
        """That one of several values was chosen."""
        if self.classes is not None or outputs.shape[1] == 1:
            return ()
        other = argument("target", 1)
        return (
            f"of the model's {outputs.shape[1]} values value 0 is explained; {other} chooses another",
        )

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``."""
        return self.pin(outputs)._gather(super().logits(outputs))  # noqa: SLF001


@dataclass(frozen=True, eq=False)
class Nothing(Target):
    """No target: for methods that ask for none, on outputs of which none is meant by default.

    Example:
        >>> camlucida.targets.Nothing().shown(0.0, None)
        'no target'
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """Zeros, ``(N,)``."""
        return outputs.new_zeros(len(outputs))

    def shown(self, value: float, name: str | None) -> str:  # noqa: ARG002
        """That there is none."""
        return "no target"


_FORMS = {
    Logit: "logit",
    ExpLogit: "exp-logit",
    Probability: "probability",
    LogProbability: "log-probability",
}


def _why(kind: Kind) -> str:
    """Why a target of a class makes no sense for outputs of another kind."""
    outputs = functools.partial(argument, "outputs")
    if kind == "labels":
        return (
            "compares a class with rivals that it excludes, but this model's outputs are labels that do not exclude "
            f"each other; explain a label's Logit or Probability, or say {outputs('classes')} if they do"
        )
    if kind == "regression":
        return (
            "explains a class, but this model's output is a value; leave out the target to explain the value, or say "
            f"{outputs('binary')} or {outputs('classes')} if it is a logit"
        )
    if kind == "dense":
        return (
            "explains one class for the whole image, but this model's output is a map; explain its Segmentation, "
            "which is the default"
        )
    similar = in_python("target", Code("CosineSimilarity(reference)"))
    return (
        "explains a class, but this model returns embeddings, which have none; say what is explained (only in Python: "
        f"{similar}), choose a method that asks for no class (camlucida methods says which), or say "
        f"{outputs('classes')} if these are logits"
    )


def for_kind(target: Target, kind: Kind | None, *, asks: bool = True) -> Target:
    """The target that is meant for such outputs.

    Args:
        target: as it was given; what is no :class:`ClassTarget` of ours stays as it is.
        kind: what the outputs are; ``None`` where it is not known.
        asks: whether the method's map depends on the target at all.

    Raises:
        TargetError: it makes no sense for them.

    Example:
        >>> camlucida.targets.for_kind(camlucida.Logit(3), "labels")
        Label(classes=3, form='logit')
    """
    made = type(target)
    ours = {*_FORMS, LogitMargin, FinerMargin, ResidualSoftmax}
    if kind in (None, "classes") or not isinstance(target, ClassTarget) or made not in ours:
        return target
    if kind == "binary":
        return OneLogit(target.classes) if made is Logit else target
    if kind == "labels" and made in _FORMS:
        return Label(target.classes, form=_FORMS[made])  # type: ignore[arg-type]
    if kind == "regression" and made is Logit:
        return Value(target.classes)
    if kind == "dense" and made is Logit:
        return Segmentation(target.classes)
    if kind == "embedding" and made is Logit and target.classes is None and not asks:
        return Nothing()
    raise TargetError(f"{made.__name__} {_why(kind)}")
