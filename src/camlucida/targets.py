"""What is explained: a scalar per image.

A target is a callable from the model's output ``(N, ...)`` to ``(N,)``, vectorised over the batch. Contrast
is a property of the target, not of the method: DiffGradCAM is Grad-CAM on a :class:`LogitMargin`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.errors import TargetError
from camlucida.layers import Layer

Classes: TypeAlias = int | str | Sequence[int | str] | Tensor | None
"""One class for all images, one per image, or ``None`` for the predicted class of each image."""

Aggregator = Literal["mean", "max", "lse", "lae"]


class Target:
    """Base of all targets; a subclass is a frozen dataclass that defines ``__call__``.

    Attributes:
        layer: the layer whose output is the argument of ``__call__``; ``None`` for the model's output.
            With a layer the forward pass stops there.
        per_image: names of the fields that may hold one entry per image.
    """

    layer: Layer | None = None
    per_image: tuple[str, ...] = ()

    def __call__(self, outputs: Tensor) -> Tensor:
        """The scalar of each image: ``(N, ...)`` to ``(N,)``."""
        raise NotImplementedError

    def logits(self, outputs: Tensor) -> Tensor | None:  # noqa: ARG002
        """The class logits ``(N, M)`` in the model's output, ``None`` for a target without classes."""
        return None

    def pin(self, outputs: Tensor) -> Self:  # noqa: ARG002
        """This target with everything fixed that depends on the image, such as the predicted class."""
        return self

    def take(self, index: Tensor) -> Self:
        """This target for the images ``index``, a ``(N',)`` tensor of positions, repeats allowed."""
        chosen = {
            name: value[index.to(value.device)]
            for name in self.per_image
            if isinstance(value := getattr(self, name), Tensor) and value.ndim > 0
        }
        return replace(self, **chosen) if chosen else self  # type: ignore[type-var]

    def for_images(self, images: int) -> Self:
        """This target with its lists turned into tensors, checked against the number of images.

        Raises:
            TargetError: when a list is not as long as there are images.
        """
        changed: dict[str, Tensor] = {}
        for name in self.per_image:
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                if any(isinstance(item, str) for item in value):
                    continue
                value = changed[name] = torch.as_tensor(value)
            if isinstance(value, Tensor) and value.ndim > 0 and len(value) != images:
                plural = name if name.endswith("s") else f"{name}s"
                raise TargetError(
                    f"{len(value)} {plural} were given for {images} images; pass one per image, or one "
                    "for all"
                )
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    def resolve(self, lookup: Callable[[str], int]) -> Self:  # noqa: ARG002
        """This target with class names turned into indices by ``lookup``."""
        return self

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        options = {name: _plain(value) for name, value in vars(self).items()}
        return {"target": type(self).__name__, **options}


@dataclass(frozen=True, eq=False)
class ClassTarget(Target):
    """Base of the targets that explain a class of a classifier with logits ``(N, M)``.

    Attributes:
        classes: index or name, one per image or one for all; ``None`` explains the predicted class, the
            arg-max of the logits, the first of equal ones.
    """

    classes: Classes = None
    per_image = ("classes",)

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
        return outputs

    def pin(self, outputs: Tensor) -> Self:
        """Fix the class of each image: a ``(N,)`` tensor of indices."""
        return replace(self, classes=self.indices(self.logits(outputs)))

    def resolve(self, lookup: Callable[[str], int]) -> Self:
        """Turn class names into indices."""
        classes = self.classes
        if isinstance(classes, str):
            return replace(self, classes=lookup(classes))
        if isinstance(classes, Sequence):
            return replace(self, classes=[lookup(c) if isinstance(c, str) else c for c in classes])
        return self

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
                f"class {self.classes!r} is a name, but the model's class names are not known; pass an "
                "index, or class_names= to explain"
            )
        classes = torch.as_tensor(self.classes, device=logits.device)
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise TargetError(f"class indices must be integers, got {classes.dtype}")
        if classes.ndim == 0:
            classes = classes.expand(n)
        if classes.shape != (n,):
            raise TargetError(
                f"{classes.numel()} classes were given for {n} images; pass one per image, or one for all"
            )
        if (out := (classes < 0) | (classes >= m)).any():
            raise TargetError(
                f"class {int(classes[out][0])} does not exist: the model has {m} classes, 0 to {m - 1}"
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
    """The logit of a class, ``z_c``: the default target."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``."""
        return self._gather(self.logits(outputs))


@dataclass(frozen=True, eq=False)
class ExpLogit(ClassTarget):
    """The exponential of a class's logit, ``exp(z_c)``: the score behind Grad-CAM++'s equation 19."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``, positive."""
        return self._gather(self.logits(outputs)).exp()


@dataclass(frozen=True, eq=False)
class Probability(ClassTarget):
    """The softmax probability of a class, ``p_c``. Its gradient vanishes where the softmax saturates."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)`` in [0, 1]; raises ``TargetError`` for a single output."""
        self._rivals(logits := self.logits(outputs), "Probability")
        return self._gather(logits.softmax(1))


@dataclass(frozen=True, eq=False)
class LogProbability(ClassTarget):
    """The logarithm of the softmax probability of a class, ``log p_c``."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``, at most 0; raises ``TargetError`` for a single output."""
        self._rivals(logits := self.logits(outputs), "LogProbability")
        return self._gather(logits.log_softmax(1))


@dataclass(frozen=True, eq=False)
class LogitMargin(ClassTarget):
    r"""How far a class's logit lies above its rivals' (DiffGradCAM eq. 1-2).

    $\Delta_i = z_i - \beta(z_{-i})$ with $\beta$ over the other M - 1 logits: their mean, their maximum
    (the first of equal ones), $\log\sum\exp$ (``"lse"``; then $\Delta = \log(p/(1-p))$) or its average
    form ``"lae"``, which differs from ``"lse"`` by the constant $\log(M-1)$ only.

    Attributes:
        aggregator: ``"mean"`` (default), ``"max"``, ``"lse"`` or ``"lae"``.

    Source: Piland, Sweet and Czajka, "DiffGradCAM", arXiv 2506.08514, equations 1, 2.
    """

    aggregator: Aggregator = "mean"

    def __post_init__(self) -> None:
        """Check the aggregator."""
        if self.aggregator not in get_args(Aggregator):
            raise TargetError(
                f"aggregator must be one of {', '.join(get_args(Aggregator))}, got {self.aggregator!r}"
            )

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, M)`` to ``(N,)``; raises ``TargetError`` for a single output."""
        self._rivals(logits := self.logits(outputs), "LogitMargin")
        own = F.one_hot(self.indices(logits), logits.shape[1]).bool()
        others = logits.shape[1] - 1
        if self.aggregator == "mean":
            rivals = logits.masked_fill(own, 0).sum(1) / others
        else:
            masked = logits.masked_fill(own, -torch.inf)
            if self.aggregator == "max":
                rivals = masked.max(dim=1).values
            else:
                rivals = masked.logsumexp(1)
                if self.aggregator == "lae":
                    rivals = rivals - torch.log(logits.new_tensor(others))
        return self._gather(logits) - rivals


@dataclass(frozen=True, eq=False)
class Segmentation(ClassTarget):
    r"""The logits of a class summed over a region of a dense output ``(N, M, H, W)``.

    $Y = \sum_{ij \in \mathcal{M}} z_{c,ij}$, the target of Seg-Grad-CAM (Vinogradova, Dibrov and Myers,
    AAAI 2020, equation 2).

    Attributes:
        mask: ``(H, W)`` or ``(N, H, W)``, bool or weights, at the output's resolution; ``None`` sums over
            the pixels that the model assigns to the class.
    """

    mask: Tensor | None = None

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


@dataclass(frozen=True, eq=False)
class _Similarity(Target):
    """Base of the targets that compare an embedding with a reference.

    Attributes:
        reference: ``(D,)``, one for all images, or ``(N, D)``; kept constant.
    """

    reference: Tensor

    @property
    def per_image(self) -> tuple[str, ...]:  # type: ignore[override]
        """The reference, where each image has its own."""
        return ("reference",) if self.reference.ndim == 2 else ()

    def _reference(self, outputs: Tensor) -> Tensor:
        if outputs.ndim != 2:
            raise TargetError(
                f"{type(self).__name__} needs embeddings (N, D), the model returned "
                f"{tuple(outputs.shape)}"
            )
        reference = self.reference.detach().to(outputs)
        if reference.ndim == 1:
            reference = reference.expand(outputs.shape[0], -1)
        if reference.shape != outputs.shape:
            raise TargetError(
                f"the reference has shape {tuple(self.reference.shape)}, the embeddings "
                f"{tuple(outputs.shape)}; pass (D,) or (N, D)"
            )
        return reference


@dataclass(frozen=True, eq=False)
class DotProduct(_Similarity):
    r"""Inner product of the image's embedding with a reference, $\langle\phi(x), \phi_{ref}\rangle$.

    Attributes:
        reference: ``(D,)``, one for all images, or ``(N, D)``; kept constant.
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` to ``(N,)``."""
        return (outputs * self._reference(outputs)).sum(1)


@dataclass(frozen=True, eq=False)
class CosineSimilarity(_Similarity):
    r"""Cosine between the image's embedding and a reference, $\cos(\phi(x), \phi_{ref})$.

    Attributes:
        reference: ``(D,)``, one for all images, or ``(N, D)``; kept constant.
        detach_norms: treat the norm of the image's embedding as a constant (the convention of the class
            activation maps for faces); ``False`` (default) differentiates through it.
        eps: smallest norm product, 1e-8.
    """

    detach_norms: bool = False
    eps: float = 1e-8

    def __call__(self, outputs: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` to ``(N,)`` in [-1, 1]."""
        reference = self._reference(outputs)
        norm: Tensor = torch.linalg.vector_norm(outputs, dim=1)
        if self.detach_norms:
            norm = norm.detach()
        product = norm * torch.linalg.vector_norm(reference, dim=1)
        cosine: Tensor = (outputs * reference).sum(1) / product.clamp_min(self.eps)
        return cosine


@dataclass(frozen=True, eq=False)
class NegativeDistance(_Similarity):
    r"""Negative Euclidean distance between the image's embedding and a reference.

    Attributes:
        reference: ``(D,)`` or ``(N, D)``; kept constant.
        squared: use $-\|\phi(x) - \phi_{ref}\|^2$ (default), which has a gradient everywhere; the plain
            distance has none where both embeddings are equal, where 0 is used.
    """

    squared: bool = True

    def __call__(self, outputs: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` to ``(N,)``, at most 0."""
        squares = (outputs - self._reference(outputs)).square().sum(1)
        if self.squared:
            return -squares
        apart = squares > 0
        return -torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


@dataclass(frozen=True, eq=False)
class Cell(Target):
    r"""One cell of a feature map, summed over its channels: $\|a_{:,r,c}\|_1$ (FAME, loss $L_a$).

    Attributes:
        layer: the layer, by name or module; the forward pass stops there.
        row: row of the cell, one for all images or one per image, ``(N,)``; negative counts from below.
        col: column of the cell, likewise.
        absolute: sum the absolute values (default) or the signed ones; they agree behind a ReLU.
    """

    layer: Layer = ""
    row: int | Tensor | Sequence[int] = 0
    col: int | Tensor | Sequence[int] = 0
    absolute: bool = True
    per_image = ("row", "col")

    def pin(self, outputs: Tensor) -> Self:
        """Fix row and column as ``(N,)`` tensors."""
        row, column = self._position(outputs)
        return replace(self, row=row, col=column)

    def __call__(self, outputs: Tensor) -> Tensor:
        """Feature maps ``(N, K, h, w)`` to ``(N,)``; raises ``TargetError`` outside the map."""
        row, column = self._position(outputs)
        images = torch.arange(outputs.shape[0], device=outputs.device)
        cell = outputs[images, :, row, column]
        return cell.abs().sum(1) if self.absolute else cell.sum(1)

    def _position(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        n, _, *size = outputs.shape
        positions = []
        for name, value, extent in zip(("row", "column"), (self.row, self.col), size, strict=True):
            position = torch.as_tensor(value, device=outputs.device)
            if position.ndim == 0:
                position = position.expand(n)
            if position.shape != (n,):
                raise TargetError(f"{position.numel()} {name}s were given for {n} images")
            if (out := (position < -extent) | (position >= extent)).any():
                raise TargetError(
                    f"{name} {int(position[out][0])} lies outside the {size[0]}x{size[1]} map of "
                    f"layer {self.layer!r}"
                )
            positions.append(position % extent)
        return positions[0], positions[1]


@dataclass(frozen=True, eq=False)
class Cells(Target):
    r"""A set of cells of a feature map, $\sum_{(r,c)} \|a_{:,r,c}\|_1$ (FAME, loss $L_a$ summed).

    Attributes:
        layer: the layer, by name or module; the forward pass stops there.
        mask: which cells, ``(h, w)`` or ``(N, h, w)``, bool or weights; ``None`` (default) is all of them.
        absolute: sum the absolute values (default) or the signed ones.
    """

    layer: Layer = ""
    mask: Tensor | None = None
    absolute: bool = True

    @property
    def per_image(self) -> tuple[str, ...]:  # type: ignore[override]
        """The mask, where each image has its own."""
        return ("mask",) if self.mask is not None and self.mask.ndim == 3 else ()

    def __call__(self, outputs: Tensor) -> Tensor:
        """Feature maps ``(N, K, h, w)`` to ``(N,)``; raises ``TargetError`` for another map size."""
        cells = (outputs.abs() if self.absolute else outputs).sum(1)
        if self.mask is None:
            return cells.sum(dim=(1, 2))
        if self.mask.shape[-2:] != outputs.shape[-2:]:
            raise TargetError(
                f"the mask has shape {tuple(self.mask.shape)}, the map of layer {self.layer!r} is "
                f"{tuple(outputs.shape[-2:])}"
            )
        return (cells * self.mask.to(cells)).sum(dim=(1, 2))


@dataclass(frozen=True, eq=False)
class HalfSquaredDistance(Target):
    r"""Half the squared distance of a layer's output to a given one, $\frac{1}{2}\|f(x) - t\|^2$ (LOTS).

    Descending it moves the image towards the target vector; the general form behind FAME.

    Attributes:
        reference: what the output shall become, one for all images or one per image; kept constant.
        layer: the layer where the forward pass stops; ``None`` (default) is the model's output.

    Source: Rozsa, Günther and Boult, "LOTS about attacking deep features", IJCB 2017, equation 1.
    """

    reference: Tensor
    layer: Layer | None = None

    @property
    def per_image(self) -> tuple[str, ...]:  # type: ignore[override]
        """The reference, where each image has its own."""
        own = self.reference.ndim in (2, 4) and self.reference.shape[0] > 1
        return ("reference",) if own else ()

    def __call__(self, outputs: Tensor) -> Tensor:
        """Outputs ``(N, ...)`` to ``(N,)``, at least 0."""
        reference = self.reference.detach().to(outputs)
        if reference.ndim < outputs.ndim:
            reference = reference[None]
        if reference.shape[1:] != outputs.shape[1:] or reference.shape[0] not in (1, len(outputs)):
            raise TargetError(
                f"the reference has shape {tuple(self.reference.shape)}, the outputs "
                f"{tuple(outputs.shape)}; pass one for all images or one per image"
            )
        return (outputs - reference).square().flatten(1).sum(1) / 2


@dataclass(frozen=True, eq=False)
class Custom(Target):
    """Any function of the model's output, ``(N, ...)`` to ``(N,)``."""

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
        return Logit(torch.as_tensor(target))
    raise TargetError(
        f"a target is a class index or name, one per image, a camlucida target or a function from "
        f"outputs to (N,), got {type(target).__name__}"
    )


def evaluate(target: Target, outputs: Tensor, images: int) -> Tensor:
    """The target's values ``(N,)``, computed in single precision at least.

    Raises:
        TargetError: when the target returns anything but one value per image.
    """
    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    values = target(outputs)
    if not isinstance(values, Tensor) or values.shape != (images,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TargetError(
            f"a target must return one value per image, shape ({images},), but "
            f"{getattr(target, 'function', target)!r} returned {got}"
        )
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= 64 else f"tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    return getattr(value, "__qualname__", repr(value))
