"""Targets inside the model: cells of a feature map, and distances at any layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from camlucida.common.errors import TargetError
from camlucida.targets.base import Target, any_of, tensor_of


@dataclass(frozen=True, eq=False)
class Cell(Target):
    r"""One cell of a feature map, summed over its channels: $\|a_{:,r,c}\|_1$ (FAME, loss $L_a$).

    Attributes:
        layer: the layer, by name or module; the forward pass stops there.
        row: row of the cell, one for all images or one per image, ``(N,)``; negative counts from below.
        col: column of the cell, counted as the row is.
        absolute: sum the absolute values (default) or the signed ones; they agree behind a ReLU.

    Example:
        >>> explanation = camlucida.explain(model, images, method="fame:iterations=2", target=camlucida.Cell("1", 3, 4))
        >>> explanation.maps.shape
        torch.Size([2, 32, 32])
    """

    layer: str | nn.Module = ""
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
            if any_of(out := (position < -extent) | (position >= extent)):
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

    Example:
        >>> camlucida.Cells("1")(torch.ones(1, 8, 2, 2))
        tensor([32.])
    """

    layer: str | nn.Module = ""
    mask: Tensor | None = None
    absolute: bool = True

    def __post_init__(self) -> None:
        """Take arrays and lists too."""
        object.__setattr__(self, "mask", tensor_of(self.mask, "the mask"))

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

    Example:
        >>> camlucida.HalfSquaredDistance(torch.zeros(10))(torch.ones(1, 10))
        tensor([5.])
    """

    reference: Tensor
    layer: str | nn.Module | None = None

    def __post_init__(self) -> None:
        """Take arrays and lists too."""
        object.__setattr__(self, "reference", tensor_of(self.reference, "the reference"))

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
