"""Cell analyses along the depth of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError, LayerError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.layers import Layer, list_layers, resolve
from camlucida.explanation.photos import Photo
from camlucida.explanation.subject import prepare
from camlucida.methods import Progress
from camlucida.methods.fame import FAME
from camlucida.models import LoadedModel
from camlucida.studies.fame.cell_maps import ITERATIONS, CellAnalysis, cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def depth_curve(
    model: nn.Module | LoadedModel,
    image: Photo | Tensor,
    layers: Sequence[Layer] | None = None,
    *,
    method: FAME | str = f"fame:iterations={ITERATIONS}",
    most: int = 16,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> list[CellAnalysis]:
    """Cell analyses along the depth of a network: where does "a cell looks at its patch" stop being true?

    Args:
        model: any torch vision model.
        image: one photo, or a tensor ``(C, H, W)``.
        layers: names or modules, shallow to deep; by default the last candidate of each resolution.
        method: FAME with its options, also as text.
        most: cells per layer, spread evenly over the map, so that shallow layers with thousands of cells cost
            no more than deep ones.
        preprocess: how the photo becomes an input.
        progress: is called with layers done and their total.

    Returns:
        One analysis per layer, each of at most ``most`` cells.

    Raises:
        CamlucidaError: a layer has no feature map, or ``most`` is below 1.

    Example:
        >>> fast = camlucida.methods.FAME(iterations=2)
        >>> found = camlucida.studies.fame.depth_curve(model, images[0], method=fast, most=1)
        >>> [a.size for a in found]
        [(32, 32), (16, 16)]
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
            cells(
                model,
                image,
                name,
                method=method,
                cells=spread_cells(h, w, most),
                preprocess=preprocess,
            )
        )
        if progress is not None:
            progress(i + 1, len(names))
    return analyses


def spread_cells(rows: int, columns: int, most: int) -> list[tuple[int, int]]:
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


def depth_figure(analyses: Sequence[CellAnalysis]) -> Figure:
    """Share of a cell's attribution on its patch, and its spread, against depth.

    Example:
        >>> fast = camlucida.methods.FAME(iterations=2)
        >>> found = camlucida.studies.fame.depth_curve(model, images[0], ["1", "4"], method=fast, most=1)
        >>> camlucida.studies.fame.depth_figure(found).savefig("depth.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = range(len(analyses))
    labels = [f"{a.layer}\n{a.size[0]}x{a.size[1]}" for a in analyses]
    left.plot(places, [a.mean("inside") for a in analyses], "o-", color="black", label="measured")
    left.plot(places, [a.chance for a in analyses], "s--", color="0.5", label="chance")
    left.set_ylabel("share of attribution on the patch")
    left.set_ylim(0, 1)
    left.legend(fontsize=7)
    right.plot(
        places, [a.mean("rms_radius") for a in analyses], "o-", color="black", label="spread"
    )
    right.plot(places, [a.mean("offset") for a in analyses], "^:", color="0.35", label="offset")
    half = [
        math.hypot(a.maps.shape[1] / a.size[0], a.maps.shape[2] / a.size[1]) / math.sqrt(12)
        for a in analyses
    ]
    right.plot(places, half, "s--", color="0.5", label="spread of an even patch")
    right.set_ylabel("pixels")
    right.legend(fontsize=7)
    for axis in (left, right):
        axis.set_xticks(list(places), labels, rotation=60, ha="right", fontsize=6)
    return figure
