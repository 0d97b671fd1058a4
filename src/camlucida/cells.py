"""Does a cell of a feature map look at the patch under it? One FAME map per cell, and the numbers.

Class activation maps are enlarged as if a cell stood for the patch at its place. FAME run on single cells
(Zhang and Günther, FAME, figure 2) shows where a cell really looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.borrow import borrowed
from camlucida.errors import LayerError
from camlucida.layers import Layer, list_layers, resolve
from camlucida.methods import Progress
from camlucida.methods.fame import FAME
from camlucida.models import LoadedModel
from camlucida.preprocess import Preprocess
from camlucida.receptive_field import ReceptiveField, receptive_fields
from camlucida.render import View, overlay
from camlucida.seeds import ImageGenerators
from camlucida.subject import Photo, prepare
from camlucida.tap import tap
from camlucida.targets import Cell, Cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Box = tuple[int, int, int, int]

ITERATIONS = 75
"""Steps per cell; the paper's figure does not say how many it took, and 75 are stable already."""


@dataclass(frozen=True)
class CellFacts:
    """Where one cell looks.

    Attributes:
        row: row of the cell.
        col: column of the cell.
        nominal: (top, left, bottom, right) in pixels of the patch under the cell, ends exclusive.
        support: box of the pixels on which the cell's value depends at this image, by its gradient; ``None``
            for a dead cell.
        activation: sum of the absolute activations of the cell.
        inside: share of the movement that falls on the nominal patch, in [0, 1]; before any blur.
        inside_blurred: the same of the blurred map.
        offset: distance in pixels from the patch's centre to the centroid of the movement.
        offset_rows: its part downwards.
        offset_cols: its part to the right.
        rms_radius: root mean square distance in pixels of the movement from its centroid.
        passes: forward-backward passes taken.
        dead: the cell is zero or nothing moves it; all numbers are then NaN.
    """

    row: int
    col: int
    nominal: Box
    support: Box | None
    activation: float
    inside: float
    inside_blurred: float
    offset: float
    offset_rows: float
    offset_cols: float
    rms_radius: float
    passes: int
    dead: bool


@dataclass(frozen=True)
class CellAnalysis:
    """One FAME map for every cell of a feature map.

    Attributes:
        layer: name of the layer.
        size: (h, w) of its map.
        cells: the facts, row by row.
        maps: ``(h * w, H, W)`` in [0, 1].
        field: the layer's theoretical receptive field, where it is known.
        view: the picture, as the model saw it.
        method: FAME with its options.
    """

    layer: str
    size: tuple[int, int]
    cells: tuple[CellFacts, ...]
    maps: Tensor
    field: ReceptiveField | None
    view: View
    method: FAME

    def mean(self, name: str) -> float:
        """Mean of a number over the cells that are not dead; NaN when all are."""
        values = [getattr(cell, name) for cell in self.cells if not cell.dead]
        return float(np.mean(values)) if values else math.nan

    @property
    def chance(self) -> float:
        """Mean share of the image that a nominal patch covers: what ``inside`` would be without aim."""
        height, width = self.maps.shape[1:]
        areas = [_area(cell.nominal) for cell in self.cells]
        return float(np.mean(areas)) / (height * width)

    def summary(self) -> dict[str, Any]:
        """Means over the cells, ready for JSON."""
        names = ("inside", "inside_blurred", "offset", "rms_radius", "passes")
        return {
            "layer": self.layer,
            "size": list(self.size),
            "receptive_field": str(self.field) if self.field else None,
            "dead_cells": sum(cell.dead for cell in self.cells),
            "chance": self.chance,
            **{name: self.mean(name) for name in names},
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON."""
        return {
            **self.summary(),
            "method": self.method.describe(),
            "cells": [asdict(cell) for cell in self.cells],
        }

    def figure(self, cell: float = 1.1) -> Figure:
        """The maps tiled as the cells lie, each over the picture, its nominal patch framed in white.

        Args:
            cell: width of a tile in inches.
        """
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.patches import Rectangle

        all_rows = sorted({facts.row for facts in self.cells})
        all_columns = sorted({facts.col for facts in self.cells})
        rows, columns = len(all_rows), len(all_columns)
        tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        figure = Figure(figsize=(cell * columns, cell * rows + 0.4), layout=tight)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for facts, attribution in zip(self.cells, self.maps, strict=True):
            axis = axes[all_rows.index(facts.row), all_columns.index(facts.col)]
            axis.imshow(np.asarray(overlay(self.view, attribution)))
            top, left, bottom, right = facts.nominal
            scale = self.view.scaled().picture.width / attribution.shape[1]
            axis.add_patch(
                Rectangle(
                    (left * scale - 0.5, top * scale - 0.5),
                    (right - left) * scale,
                    (bottom - top) * scale,
                    fill=False,
                    edgecolor="white",
                    linewidth=1,
                )
            )
        inside, chance = self.mean("inside"), self.chance
        figure.suptitle(
            f"{self.layer}: {inside:.0%} of a cell's attribution lies on the patch under it "
            f"(chance {chance:.0%})",
            fontsize=9,
        )
        return figure


def nominal_cell(row: int, col: int, cells: tuple[int, int], size: tuple[int, int]) -> Box:
    """The patch under a cell: rows ``[round(r H / h), round((r + 1) H / h))``, columns alike.

    Args:
        row: row of the cell.
        col: column of the cell.
        cells: (h, w) of the feature map.
        size: (H, W) of the image.

    Returns:
        (top, left, bottom, right) in pixels, ends exclusive.
    """
    (h, w), (height, width) = cells, size
    return (
        round(row * height / h),
        round(col * width / w),
        round((row + 1) * height / h),
        round((col + 1) * width / w),
    )


def analyse_cells(
    model: nn.Module | LoadedModel,
    image: Photo | Tensor,
    layer: Layer,
    *,
    method: FAME | None = None,
    cells: Sequence[tuple[int, int]] | None = None,
    batch_size: int = 49,
    preprocess: Preprocess | None = None,
    progress: Progress | None = None,
) -> CellAnalysis:
    """Explain every cell of a feature map by itself.

    The image is repeated, one cell per copy, and the forward pass ends at the layer.

    Args:
        model: any torch vision model.
        image: one photo, or a tensor ``(C, H, W)`` that is ready.
        layer: name or module.
        method: FAME with its options; 75 iterations by default.
        cells: (row, column) of some cells; all by default.
        batch_size: copies at a time.
        preprocess: how the photo becomes an input; by default the model's own.
        progress: called with the number of cells done and their total.

    Returns:
        Maps and numbers. Dead cells have an empty map.

    Raises:
        CamlucidaError: for an unknown layer, a cell outside its map, an image that cannot be read.
    """
    fame = FAME(iterations=ITERATIONS) if method is None else method
    module, inputs, view, used = prepare(model, image, preprocess)
    if len(inputs) != 1:
        raise LayerError(f"cells are analysed for one image at a time, got {len(inputs)}")
    name, _ = resolve(module, layer)
    with borrowed(module, inputs):
        seen = tap(module, inputs, name, Cells(name), gradients=False).activations[name]
        h, w = (int(seen.shape[2]), int(seen.shape[3]))
        chosen = [(r, c) for r in range(h) for c in range(w)] if cells is None else list(cells)
        size = (int(inputs.shape[2]), int(inputs.shape[3]))
        facts: list[CellFacts] = []
        maps: list[Tensor] = []
        for start in range(0, len(chosen), batch_size):
            some = chosen[start : start + batch_size]
            copies = inputs.expand(len(some), -1, -1, -1).contiguous()
            target = Cell(name, [r for r, _ in some], [c for _, c in some])
            raw = fame.run(
                module,
                copies,
                target,
                (),
                generator=ImageGenerators.of(0, copies),
                preprocess=used,
                progress=_Part(progress, start, len(some), len(chosen)),
            )
            slope = tap(module, copies, "input", target).gradients["input"]
            blurred = fame.steps.finish(raw.fused, size)
            facts += [
                _facts(
                    cell,
                    (h, w),
                    raw.details["movement"][i],
                    blurred[i],
                    slope[i],
                    activation=float(raw.values[i]),
                    passes=int(raw.details["passes"][i]),
                )
                for i, cell in enumerate(some)
            ]
            maps += list(blurred.cpu())
        field = receptive_fields(module, inputs).get(name)
    picture = view.cropped().resize((size[1], size[0]), Image.Resampling.BILINEAR)
    seen_view = View(picture, (0, 0, size[1], size[0]))
    return CellAnalysis(name, (h, w), tuple(facts), torch.stack(maps), field, seen_view, fame)


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
    """
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


def depth_figure(analyses: Sequence[CellAnalysis]) -> Figure:
    """Share of a cell's attribution on its patch, and its spread, against depth."""
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


class _Part:
    """A batch's share of the progress over all cells."""

    def __init__(self, progress: Progress | None, start: int, count: int, total: int) -> None:
        self.progress = progress
        self.start, self.count, self.total = start, count, total

    def __call__(self, done: float, total: float) -> None:
        if self.progress is not None:
            self.progress(self.start + self.count * done / total, self.total)


def _facts(
    cell: tuple[int, int],
    cells: tuple[int, int],
    moved: Tensor,
    blurred: Tensor,
    slope: Tensor,
    *,
    activation: float,
    passes: int,
) -> CellFacts:
    size = (int(moved.shape[0]), int(moved.shape[1]))
    top, left, bottom, right = nominal = nominal_cell(*cell, cells, size)
    mass = moved.double()
    total = float(mass.sum())
    if total == 0:
        lost = (math.nan,) * 6
        return CellFacts(*cell, nominal, _box(slope), activation, *lost, passes, dead=True)
    share = mass / total
    y = torch.arange(size[0], dtype=torch.double, device=moved.device) + 0.5
    x = torch.arange(size[1], dtype=torch.double, device=moved.device) + 0.5
    cy, cx = float(share.sum(1) @ y), float(share.sum(0) @ x)
    radius = float(share.sum(1) @ (y - cy) ** 2 + share.sum(0) @ (x - cx) ** 2) ** 0.5
    dy, dx = cy - (top + bottom) / 2, cx - (left + right) / 2
    return CellFacts(
        *cell,
        nominal,
        _box(slope),
        activation,
        float(share[top:bottom, left:right].sum()),
        float(blurred[top:bottom, left:right].sum() / blurred.sum()),
        math.hypot(dy, dx),
        dy,
        dx,
        radius,
        passes,
        dead=False,
    )


def _area(box: Box) -> int:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def _box(slope: Tensor) -> Box | None:
    touched = slope.abs().sum(0).nonzero()
    if len(touched) == 0:
        return None
    (top, left), (bottom, right) = touched.amin(0).tolist(), (touched.amax(0) + 1).tolist()
    return (top, left, bottom, right)
