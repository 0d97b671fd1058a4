"""The layers of a model: which of them can be explained, and what their cells see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from camlucida.common.arguments import argument
from camlucida.common.errors import LayerError, ModelError
from camlucida.engine.borrow import unwrap
from camlucida.engine.layers import Evidence, Grid, default_layer, list_layers
from camlucida.engine.layers.blocks import candidate_layers
from camlucida.engine.layers.receptive_field import ReceptiveField, receptive_fields
from camlucida.models.loaded import LoadedModel
from camlucida.models.loading import preprocess_of


@dataclass(frozen=True)
class LayerRow:
    """A module of a model, as far as it is known.

    Attributes:
        name: its dotted name.
        kind: the class of the module.
        shape: ``(K, h, w)`` of its feature map; ``None`` where it has none.
        stride: distance of neighbouring cells, vertical and horizontal, in pixels of the input.
        field: how many pixels a cell can depend on; ``None`` where that is not known.
        reason: why the module cannot be explained; empty where it can.
        default: whether methods explain it where no layer is named.
        grid: how its output is read as a map; ``None`` where it has none.
        evidence: why it is read so.
        block: whether it is one of the blocks that the model is made of, which are the usual layers to explain.

    Example:
        >>> camlucida.models.describe_layers(model, (32, 32)).rows[0].shape
        (8, 32, 32)
    """

    name: str
    kind: str
    shape: tuple[int, int, int] | None = None
    stride: tuple[float, float] | None = None
    field: ReceptiveField | None = None
    reason: str = ""
    default: bool = False
    grid: Grid | None = None
    evidence: Evidence | None = None
    block: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        seen: Any = None
        if self.field is not None:
            seen = "global" if self.field.is_global else self.field.size
        return {
            "name": self.name,
            "class": self.kind,
            "shape": self.shape,
            "stride": self.stride,
            "receptive_field": seen,
            "read_as": None if self.grid is None else str(self.grid),
            "evidence": None if self.evidence is None else vars(self.evidence),
            "candidate": not self.reason,
            "reason": self.reason or None,
            "default": self.default,
            "block": self.block,
        }


@dataclass(frozen=True)
class ModelLayers:
    """The modules of a model in its order.

    Attributes:
        model: the model's name.
        input: ``(C, H, W)`` of the input that they were run on.
        rows: one per module.
        default: the layer that methods explain where none is named; ``None`` where no layer can be explained.
        reason: why it is this one, or why none can be explained.

    Example:
        >>> found = camlucida.models.describe_layers(model, (32, 32))
        >>> found.default, [row.name for row in found.rows if not row.reason]
        ('4', ['0', '1', '2', '3', '4'])
    """

    model: str
    input: tuple[int, int, int]
    rows: tuple[LayerRow, ...]
    default: str | None
    reason: str = ""

    @property
    def candidates(self) -> tuple[LayerRow, ...]:
        """The default and what to try beside it: the last block of each resolution, or of one resolution all blocks."""
        blocks = [row for row in self.rows if row.block and row.shape is not None]
        last = {row.shape[1:]: row for row in blocks if row.shape is not None}
        chosen = {row.name for row in (last.values() if len(last) > 1 else blocks)}
        return tuple(row for row in self.rows if row.default or row.name in chosen)


_WHY = "it is the last map of the image that the output is made from; what follows pools it or reads it as a whole"


def describe_layers(
    model: nn.Module | LoadedModel, size: tuple[int, int] | None = None
) -> ModelLayers:
    """Run a model once on noise, and say which of its layers can be explained.

    Args:
        model: what :func:`camlucida.load_model` returned, or any model; returned as it was.
        size: height and width of the input; by default those of the model's preprocessing, else 224 x 224.

    Raises:
        ModelError: the model does not run on an input of this size.

    Example:
        >>> camlucida.models.describe_layers(model, (32, 32)).default
        '4'
    """
    module = model.module if isinstance(model, LoadedModel) else model
    name = model.name if isinstance(model, LoadedModel) else type(model).__name__
    preprocess = model.preprocess if isinstance(model, LoadedModel) else preprocess_of(module)
    channels = 1 if preprocess is not None and preprocess.channels == "gray" else 3
    if size is None:
        size = (224, 224) if preprocess is None else preprocess.size
    inputs = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    try:
        infos = {info.name: info for info in list_layers(module, inputs)}
    except ModelError as error:
        raise ModelError(
            f"{name} does not run on an input of {size[0]}x{size[1]} pixels ({error}); give another with "
            f"{argument('size')}"
        ) from error
    fields = receptive_fields(module, inputs)
    default: str | None = None
    reason = _WHY
    blocks: tuple[str, ...] = ()
    try:
        default = default_layer(module, inputs)
        blocks = candidate_layers(module, inputs)
    except LayerError as error:
        reason = str(error)
    rows = []
    for layer, child in unwrap(module).named_modules():
        info = infos.get(layer)
        if info is None:
            rows.append(LayerRow(layer, type(child).__name__, reason="does not run by itself"))
            continue
        stride = None
        if info.shape is not None:
            stride = (size[0] / info.shape[1], size[1] / info.shape[2])
        rows.append(
            LayerRow(
                layer,
                info.kind,
                info.shape,
                stride,
                fields.get(layer),
                info.reason.removeprefix("it "),
                layer == default,
                info.grid,
                info.evidence,
                layer in blocks,
            )
        )
    return ModelLayers(name, (channels, *size), tuple(rows[1:]), default, reason)
