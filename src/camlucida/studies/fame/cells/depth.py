"""Cell analyses along the depth of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError, LayerError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.layers import Layer, list_layers, resolve
from camlucida.explanation.subject import Photo, prepare
from camlucida.methods import Progress
from camlucida.methods.fame import FAME
from camlucida.models import LoadedModel
from camlucida.studies.fame.cells.analysis import CellAnalysis, analyse_cells


def depth_curve(
    model: nn.Module | LoadedModel,
    image: Photo | Tensor,
    layers: Sequence[Layer] | None = None,
    *,
    method: FAME | None = None,
    most: int = 16,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> list[CellAnalysis]:
    """Cell analyses along the depth of a network: where does "a cell looks at its patch" stop being true?

    Args:
        model: any torch vision model.
        image: one photo, or a tensor ``(C, H, W)``.
        layers: names or modules, shallow to deep; by default the last candidate of each resolution.
        method: FAME with its options.
        most: cells per layer, spread evenly over the map, so that shallow layers with thousands of cells cost
            no more than deep ones.
        preprocess: how the photo becomes an input.
        progress: called with layers done and their total.

    Returns:
        One analysis per layer, each of at most ``most`` cells.

    Raises:
        CamlucidaError: a layer has no feature map, or ``most`` is below 1.
    """
    if most < 1:
        raise CamlucidaError(f"most must be at least 1 cell per layer, got {most}")
    module, inputs, _, _ = prepare(model, image, preprocess)
    infos = {info.name: info for info in list_layers(module, inputs) if info.candidate}
    names = [resolve(module, layer)[0] for layer in layers] if layers else _per_resolution(infos)
    analyses = []
    for i, name in enumerate(names):
        if name not in infos or infos[name].shape is None:
            raise LayerError(f"layer {name!r} has no feature map that can be analysed")
        _, h, w = infos[name].shape or (0, 0, 0)
        analyses.append(
            analyse_cells(
                model, image, name, method=method, cells=spread(h, w, most), preprocess=preprocess
            )
        )
        if progress is not None:
            progress(i + 1, len(names))
    return analyses


def spread(rows: int, columns: int, most: int) -> list[tuple[int, int]]:
    """At most ``most`` cells spread evenly over a map of ``rows`` times ``columns``, row by row."""
    if rows * columns <= most:
        return [(r, c) for r in range(rows) for c in range(columns)]
    side = max(1, math.isqrt(most))
    at = [
        sorted(
            {round((i + 0.5) * extent / min(side, extent) - 0.5) for i in range(min(side, extent))}
        )
        for extent in (rows, columns)
    ]
    return [(r, c) for r in at[0] for c in at[1]]


def _per_resolution(infos: dict[str, Any]) -> list[str]:
    last: dict[tuple[int, int], str] = {}
    for name, info in infos.items():
        last[info.shape[1:]] = name
    # Containers are named before what they hold: order by the layers chosen, not by what came first.
    return [name for name in infos if name in last.values()]
