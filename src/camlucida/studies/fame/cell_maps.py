"""One FAME map for every cell of a feature map, and where the cell looks, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError, LayerError, TargetError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import Layer, default_layer, resolve
from camlucida.engine.layers.receptive_field import ReceptiveField, receptive_fields
from camlucida.engine.tap import tap
from camlucida.explanation.overlays import View, overlay
from camlucida.explanation.photos import Photo
from camlucida.explanation.subject import prepare
from camlucida.methods import Progress, Task
from camlucida.methods.build import build_as
from camlucida.methods.fame import FAME
from camlucida.models import LoadedModel
from camlucida.report import Column, Table
from camlucida.targets import Cell as CellTarget
from camlucida.targets import Cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

PixelBox = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, ends exclusive."""


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
        dead: the cell is zero, nothing moves it or the movement is not finite; all numbers are then NaN.

    Example:
        >>> found = camlucida.studies.fame.cells(model, images[0], "3", cells=[(0, 1)])
        >>> found.cells[0].nominal
        (0, 2, 2, 4)
    """

    row: int
    col: int
    nominal: PixelBox
    support: PixelBox | None
    activation: float
    inside: float
    inside_blurred: float
    offset: float
    offset_rows: float
    offset_cols: float
    rms_radius: float
    passes: int
    dead: bool


def nominal_cell(row: int, col: int, cells: tuple[int, int], size: tuple[int, int]) -> PixelBox:
    """The patch under a cell, ends exclusive: rows ``[round(r H / h), round((r + 1) H / h))``, columns alike."""
    (h, w), (height, width) = cells, size
    return (
        round(row * height / h),
        round(col * width / w),
        round((row + 1) * height / h),
        round((col + 1) * width / w),
    )


def cell_facts(
    cell: tuple[int, int],
    cells: tuple[int, int],
    moved: Tensor,
    blurred: Tensor,
    slope: Tensor,
    *,
    activation: float,
    passes: int,
) -> CellFacts:
    """The facts about one cell.

    Args:
        cell: its row and column.
        cells: (h, w) of the feature map.
        moved: FAME's movement ``(H, W)``, at least 0.
        blurred: the map made of it, ``(H, W)``.
        slope: gradient of the cell's value with respect to the image, ``(C, H, W)``.
        activation: the cell's value.
        passes: forward-backward passes taken.
    """
    size = (int(moved.shape[0]), int(moved.shape[1]))
    top, left, bottom, right = nominal = nominal_cell(*cell, cells, size)
    mass = moved.double()
    total = float(mass.sum())
    if not 0 < total < math.inf:
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


def _box(slope: Tensor) -> PixelBox | None:
    touched = slope.abs().sum(0).nonzero()
    if len(touched) == 0:
        return None
    (top, left), (bottom, right) = touched.amin(0).tolist(), (touched.amax(0) + 1).tolist()
    return (top, left, bottom, right)


ITERATIONS = 75
"""Steps per cell; the paper's figure does not say how many it took, and 75 are stable already."""


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

    Example:
        >>> found = camlucida.studies.fame.cells(model, images[0], "3", cells=[(7, 7)])
        >>> 0 <= found.mean("inside") <= 1
        True
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
        boxes = [cell.nominal for cell in self.cells]
        areas = [(bottom - top) * (right - left) for top, left, bottom, right in boxes]
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
        return beside({"": self}, cell)

    def draw(self, figure: FigureBase, name: str = "") -> None:
        """The same on a figure or a part of one, under the name of the network."""
        from matplotlib.patches import Rectangle

        all_rows = sorted({facts.row for facts in self.cells})
        all_columns = sorted({facts.col for facts in self.cells})
        axes = figure.subplots(len(all_rows), len(all_columns), squeeze=False)
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
            f"{name}{': ' if name else ''}{self.layer}: {inside:.0%} of a cell's attribution lies on the patch under "
            f"it (chance {chance:.0%})",
            fontsize=9,
        )


def beside(analyses: Mapping[str, CellAnalysis], cell: float = 1.1) -> Figure:
    """The cells of several networks side by side, each under its name (FAME, figure 2).

    Args:
        analyses: by the network's name; all are drawn as large as the first.
        cell: width of one of its tiles in inches.

    Example:
        >>> found = camlucida.studies.fame.cells(model, images[0], "3", cells=[(7, 7)])
        >>> camlucida.studies.fame.beside({"one": found, "two": found}).savefig("cells.png")
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    first = next(iter(analyses.values()))
    columns, rows = (
        len({getattr(facts, side) for facts in first.cells}) for side in ("col", "row")
    )
    tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    count = len(analyses)
    size = (cell * columns * count + 0.2 * (count - 1), cell * rows + 0.4)
    figure = Figure(figsize=size, layout=tight)
    parts = figure.subfigures(1, count, squeeze=False, wspace=0.02)[0]
    for part, (name, found) in zip(parts, analyses.items(), strict=True):
        found.draw(part, name)
    return figure


def cells(
    model: nn.Module | LoadedModel,
    image: Photo | Tensor,
    layer: Layer | None = None,
    *,
    method: FAME | str = f"fame:iterations={ITERATIONS}",
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
        layer: name or module; by default the last feature map.
        method: FAME with its options, also as text; ``"fame:iterations=75"`` by default.
        cells: (row, column) of some cells, negative ones counted from the end; all by default.
        batch_size: copies at a time.
        preprocess: how the photo becomes an input; by default the model's own.
        progress: is called with the number of cells done and their total.

    Returns:
        Maps and numbers. Dead cells have an empty map.

    Raises:
        CamlucidaError: for an unknown layer, a cell outside its map or none at all, an image that cannot be
            read, a batch size below 1.

    Example:
        >>> found = camlucida.studies.fame.cells(model, images[0], "3", cells=[(0, 0), (7, 7)])
        >>> found.size, len(found.cells)
        ((16, 16), 2)

    Source: Zhang and Günther, "FAME" (arXiv 2605.12017), figure 2.
    """
    if batch_size < 1:
        raise CamlucidaError(f"batch_size must be at least 1 copy, got {batch_size}")
    fame = build_as(FAME, method)
    module, inputs, view, used = prepare(model, image, preprocess)
    if len(inputs) != 1:
        raise LayerError(f"cells are analysed for one image at a time, got {len(inputs)}")
    name, _ = resolve(module, default_layer(module, inputs) if layer is None else layer)
    with borrowed(module, inputs):
        seen = tap(module, inputs, name, Cells(name), gradients=False).activations[name]
        h, w = (int(seen.shape[2]), int(seen.shape[3]))
        chosen = _chosen(cells, (h, w), name)
        size = (int(inputs.shape[2]), int(inputs.shape[3]))
        facts: list[CellFacts] = []
        maps: list[Tensor] = []
        for start in range(0, len(chosen), batch_size):
            some = chosen[start : start + batch_size]
            copies = inputs.expand(len(some), -1, -1, -1).contiguous()
            target = CellTarget(name, [r for r, _ in some], [c for _, c in some])
            part = _part(progress, start, len(some), len(chosen))
            raw = fame.run(Task.of(module, copies, target, preprocess=used, progress=part))
            slope = tap(module, copies, "input", target).gradients["input"]
            finite = raw.fused.isfinite().flatten(1).all(1)[:, None, None]
            blurred = fame.steps.finish(torch.where(finite, raw.fused, 0), size)
            facts += [
                cell_facts(
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
    return CellAnalysis(
        name, (h, w), tuple(facts), torch.stack(maps), field, View.whole(picture), fame
    )


def _chosen(
    cells: Sequence[tuple[int, int]] | None, size: tuple[int, int], layer: str
) -> list[tuple[int, int]]:
    """The cells of a map that are analysed, each counted from its start."""
    h, w = size
    if cells is None:
        return [(r, c) for r in range(h) for c in range(w)]
    if not cells:
        raise CamlucidaError(f"no cell of layer {layer!r} was given; leave cells out for all")
    for r, c in cells:
        if not (-h <= r < h and -w <= c < w):
            raise TargetError(f"cell ({r}, {c}) lies outside the {h}x{w} map of layer {layer!r}")
    return [(r % h, c % w) for r, c in cells]


def _part(progress: Progress | None, start: int, count: int, total: int) -> Progress | None:
    """A batch's share of the progress over all cells."""
    if progress is None:
        return None
    return lambda done, of: progress(start + count * done / of, total)


def cells_table(analyses: Sequence[CellAnalysis], networks: Sequence[str] = ()) -> Table:
    """Means over the cells of each layer: how much of a cell's attribution lies on its patch, and how wide it is.

    Args:
        analyses: of each layer.
        networks: the network of each, where there are several.

    Example:
        >>> found = camlucida.studies.fame.cells(model, images[0], "3", cells=[(0, 0)])
        >>> camlucida.studies.fame.cells_table([found]).columns[0].title
        'cells'
    """
    rows = (
        (
            f"{network}: {a.layer}" if networks else a.layer,
            "x".join(map(str, a.size)),
            str(a.field) if a.field else "?",
            100 * a.mean("inside"),
            100 * a.chance,
            a.mean("offset"),
            a.mean("rms_radius"),
            sum(cell.dead for cell in a.cells),
        )
        for a, network in zip(analyses, networks or [""] * len(analyses), strict=True)
    )
    columns = (
        "layer",
        "cells",
        "sees",
        Column("on its patch", unit="%", places=1),
        Column("by chance", unit="%", places=1),
        Column("offset", unit="px", places=1),
        Column("spread", unit="px", places=1),
        "dead",
    )
    caption = "Where cells look: means over the cells of a layer"
    return Table.of_rows("cells", caption, columns, rows)
