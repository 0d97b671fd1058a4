"""Targets that compare a class with others: the margin of a logit over its rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.common.arguments import argument
from camlucida.common.errors import TargetError
from camlucida.common.limits import check_fields
from camlucida.targets.base import Target, any_of, tensor_of
from camlucida.targets.classes import ClassTarget, is_named, looked_up

Aggregator = Literal["mean", "max", "lse", "lae", "guideline"]


@dataclass(frozen=True, eq=False)
class Contrast(ClassTarget):
    """Base of the targets that compare a class with others.

    Attributes:
        rivals: the classes that it is compared with, by name or index: one, several for all images ``(R,)``, or
            several for each image ``(N, R)``; ``None`` leaves the choice to the target.

    Example:
        >>> isinstance(camlucida.FinerMargin("tabby", rivals=["tiger cat"]), camlucida.targets.Contrast)
        True
    """

    rivals: tuple[int | str, ...] | Sequence[Any] | Tensor | None = field(
        default=None, kw_only=True
    )

    def __post_init__(self) -> None:
        """Check the options."""
        given = (self.rivals,) if isinstance(self.rivals, int | str) else self.rivals
        given = given if is_named(given) else tensor_of(given, "rivals")
        object.__setattr__(self, "rivals", given)
        check_fields(self, TargetError)
        if isinstance(given, Tensor) and (given.ndim not in (1, 2) or not given.numel()):
            raise TargetError(
                f"rivals must be class indices (R,) or (N, R), got {tuple(given.shape)}"
            )

    @property
    def per_image(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes, and the rivals where each image has its own."""
        own = isinstance(self.rivals, Tensor) and self.rivals.ndim == 2
        return ("classes", "rivals") if own else ("classes",)

    def resolve(self, lookup: Callable[[str], int]) -> Self:
        """Turn the names of classes and rivals into indices."""
        found = super().resolve(lookup)
        named = is_named(self.rivals)
        return replace(found, rivals=looked_up(self.rivals, lookup)) if named else found

    def against(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The given rivals of each image, ``(N, R)``.

        Raises:
            TargetError: one is a name, out of range or the explained class, or there are not as many rows as images.
        """
        n, m = logits.shape
        if not isinstance(self.rivals, Tensor):
            raise TargetError(
                f"the rivals {self.rivals!r} hold a name, but the model's class names are not known; give indices, "
                f"or the names with {argument('class_names')}"
            )
        rivals = self.rivals.to(logits.device)
        if rivals.is_floating_point() or rivals.dtype == torch.bool:
            raise TargetError(f"rivals must be integers, got {rivals.dtype}")
        rivals = rivals.long().expand(n, -1) if rivals.ndim == 1 else rivals.long()
        if len(rivals) != n:
            raise TargetError(f"{len(rivals)} rows of rivals were given for {n} images")
        if any_of(out := (rivals < 0) | (rivals >= m)):
            raise TargetError(
                f"class {int(rivals[out][0])} does not exist: the model has {m} classes, 0 to {m - 1}"
            )
        if any_of(own := rivals == classes[:, None]):
            raise TargetError(
                f"class {int(rivals[own][0])} is what is explained, so it cannot be among its own rivals; name another "
                "rival, or another class to explain"
            )
        return rivals


@dataclass(frozen=True, eq=False)
class LogitMargin(Contrast):
    r"""How far a class's logit lies above its rivals' (DiffGradCAM eq. 1-2).

    $\Delta_i = z_i - \beta(z_{-i})$ with $\beta$ over the other M - 1 logits, or over those of the named
    ``rivals``: their mean, their maximum (the first of equal ones), $\log\sum\exp$ (``"lse"``; over all others
    $\Delta = \log(p/(1-p))$) or its average form ``"lae"``, which differs from ``"lse"`` by the constant
    $\log(M-1)$ only. Of a single rival all four are $z_i - z_j$.

    Attributes:
        aggregator: ``"mean"`` (default), ``"max"``, ``"lse"``, ``"lae"``, or ``"guideline"``, which chooses for each
            image and says which and why: ``"lse"`` where the variance of the rivals' logits times their number is at
            most 1, else ``"mean"``. That is our reading of section 4.6, which names no number: in the narrow case of
            Lemma 2 ($\sigma^2 = O(1/M)$) the log-odds differ from the mean by $\sigma^2/2$ only, in the broad one of
            Lemma 1 the mean varies least.
        rivals: the classes to compare with, see :class:`Contrast`; ``None`` (default) takes all others.

    Source: Piland, Sweet and Czajka, "DiffGradCAM", arXiv 2506.08514, equations 1, 2.

    Example:
        >>> logits = torch.tensor([[1.0, 5.0, 3.0]])
        >>> camlucida.LogitMargin(1, aggregator="max")(logits), camlucida.LogitMargin(1, rivals=[0])(logits)
        (tensor([2.]), tensor([4.]))
    """

    aggregator: Aggregator = "mean"

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``; raises ``TargetError`` for a single output."""
        if self.aggregator == "guideline":
            return self.pin(outputs)(outputs)
        logits, left_out = self._compared(outputs)
        count = (~left_out).sum(1)
        if self.aggregator == "mean":
            rivals = logits.masked_fill(left_out, 0).sum(1) / count
        else:
            masked = logits.masked_fill(left_out, -torch.inf)
            if self.aggregator == "max":
                rivals = masked.max(dim=1).values
            else:
                rivals = masked.logsumexp(1)
                if self.aggregator == "lae":
                    rivals = rivals - count.to(logits).log()
        return self._gather(logits) - rivals

    def pin(self, outputs: Tensor) -> Self:
        """Fix the class of each image, and what the guideline chooses for it."""
        pinned = super().pin(outputs)
        if self.aggregator != "guideline":
            return pinned
        variance, rivals = pinned.spread(outputs)
        soft = takes_lse(variance, rivals)
        return GuidedMargin(pinned.classes, rivals=pinned.rivals, soft=soft)  # type: ignore[return-value]

    def spread(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Variance of the rivals' logits of each image, and how many rivals there are; ``(N,)`` both."""
        logits, left_out = self._compared(outputs.detach())
        count = (~left_out).sum(1)
        mean = logits.masked_fill(left_out, 0).sum(1) / count
        squares = (logits - mean[:, None]).square().masked_fill(left_out, 0)
        return squares.sum(1) / count, count

    def remarks(self, outputs: Tensor) -> dict[int, str]:
        """What the guideline chose for each image, and why."""
        if self.aggregator != "guideline":
            return {}
        variance, count = (values.tolist() for values in self.spread(outputs))
        return {i: _guided(v, n) for i, (v, n) in enumerate(zip(variance, count, strict=True))}

    def _compared(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and which of them are no rivals; both ``(N, M)``."""
        self._rivals(logits := self.logits(outputs), "LogitMargin")
        classes = self.indices(logits)
        own = F.one_hot(classes, logits.shape[1]).bool()
        if self.rivals is None:
            return logits, own
        return logits, torch.ones_like(own).scatter(1, self.against(logits, classes), value=False)

    def opposite(self) -> Target:
        """Of a single rival its margin over the class, else minus this one."""
        if not isinstance(self.rivals, Tensor) or self.rivals.shape[-1] != 1:
            return super().opposite()
        if not isinstance(self.classes, Tensor) or self.classes.ndim != 1:
            return super().opposite()
        rivals = self.rivals.to(self.classes.device).expand(len(self.classes), 1)
        return replace(self, classes=rivals[:, 0], rivals=self.classes[:, None])


@dataclass(frozen=True, eq=False)
class GuidedMargin(LogitMargin):
    """A margin whose guideline has chosen for each image; the choice stays when the image is changed.

    Attributes:
        soft: of which images the rivals are joined by ``"lse"``, ``(N,)``; by their mean otherwise.

    Example:
        >>> camlucida.LogitMargin(1, aggregator="guideline").pin(torch.tensor([[1.0, 5.0, 3.0]])).soft
        tensor([False])
    """

    aggregator: Aggregator = "guideline"
    soft: Tensor | None = None

    @property
    def per_image(self) -> tuple[str, ...]:  # type: ignore[override]
        """The choice too."""
        return (*super().per_image, "soft")

    @property
    def word(self) -> str:
        """As it is shown."""
        return "LogitMargin"

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``."""
        kinds: tuple[Aggregator, Aggregator] = ("lse", "mean")
        soft, mean = (
            LogitMargin(self.classes, kind, rivals=self.rivals)(outputs) for kind in kinds
        )
        chosen = self.soft
        assert chosen is not None  # noqa: S101 - made by pin alone
        return torch.where(chosen.to(soft.device), soft, mean)

    def pin(self, outputs: Tensor) -> Self:  # noqa: ARG002
        """Itself: everything is fixed."""
        return self


def takes_lse(variance: Any, rivals: Any) -> Any:
    """Whether the guideline takes LSE for images whose rivals' logits vary so little; else the mean."""
    return variance * rivals <= 1


def _guided(variance: float, rivals: int) -> str:
    narrow = takes_lse(variance, rivals)
    chosen = (
        "chose lse: the difference from their mean is small, and the margin is the class's log-odds"
        if narrow
        else "chose the mean of the rivals, which varies least where their logits are spread"
    )
    return (
        f"the guideline {chosen} (standard deviation of the logits of {rivals} rivals {variance**0.5:.2g}; variance "
        f"times rivals {variance * rivals:.3g}, the bound is 1)"
    )
