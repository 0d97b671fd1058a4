"""Targets of embedders: how similar an image is to a reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from camlucida.common.errors import TargetError
from camlucida.targets.base import Target, tensor_of


@dataclass(frozen=True, eq=False)
class _Similarity(Target):
    """Base of the targets that compare an embedding with a reference.

    Attributes:
        reference: ``(D,)``, one for all images, or ``(N, D)``; kept constant.
    """

    reference: Tensor

    def __post_init__(self) -> None:
        """Take arrays and lists too."""
        object.__setattr__(self, "reference", tensor_of(self.reference, "the reference"))

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

    Example:
        >>> camlucida.DotProduct(torch.tensor([1.0, 2.0]))(torch.ones(1, 2))
        tensor([3.])
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

    Example:
        >>> camlucida.CosineSimilarity(torch.ones(4))(torch.ones(2, 4))
        tensor([1., 1.])
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

    Example:
        >>> camlucida.NegativeDistance(torch.zeros(3))(torch.ones(1, 3))
        tensor([-3.])
    """

    squared: bool = True

    def __call__(self, outputs: Tensor) -> Tensor:
        """Embeddings ``(N, D)`` to ``(N,)``, at most 0."""
        squares = (outputs - self._reference(outputs)).square().sum(1)
        if self.squared:
            return -squares
        apart = squares > 0
        return -torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
