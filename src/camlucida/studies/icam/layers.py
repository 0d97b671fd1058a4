"""What each layer contributed to one I-CAM explanation: scores, weights and maps, drawn together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.engine.maps import normalise, resize
from camlucida.explanation import Explanation, overlays
from camlucida.explanation.explain import explain
from camlucida.explanation.photos import Photo
from camlucida.methods.build import build_as
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel
from camlucida.report import Column, Table
from camlucida.targets import TargetLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KEPT, _FILTERED = "#b3402a", "#9a9a9a"


@dataclass(frozen=True)
class LayerContribution:
    """What one layer contributed.

    Attributes:
        layer: its name.
        score: how much it counts before the filter (I-CAM eq. 3).
        weight: its weight in the fused map; 0 where it was filtered out.
        kept: share of the runs in which the filter kept it; 0 or 1 in a single run.
        map: its map, ``(h, w)``, scaled to [0, 1].
        score_spread: standard deviation of the score over runs; 0 for a single run.
        weight_spread: that of the weight.
    """

    layer: str
    score: float
    weight: float
    kept: float
    map: Tensor = field(repr=False)
    score_spread: float = 0.0
    weight_spread: float = 0.0


@dataclass(frozen=True)
class LayerReport:
    """The layers of an I-CAM explanation of one image, in network order.

    Attributes:
        rows: one per layer.
        explanation: the explanation of the image.
        title: what was explained.

    Example:
        >>> found = camlucida.explain(model, images, method="icam")
        >>> report = camlucida.studies.icam.LayerReport.of(found, index=1)
        >>> report.figure().savefig("layers.png")
    """

    rows: tuple[LayerContribution, ...]
    explanation: Explanation = field(repr=False)
    title: str = ""

    @classmethod
    def of(cls, explanation: Explanation, index: int = 0) -> LayerReport:
        """The report of one image.

        Args:
            explanation: made by ``method="icam"``, or any whose details hold ``layer_score``, ``layer_weight``
                and ``layer_kept``.
            index: which image.

        Raises:
            CamlucidaError: when the explanation says nothing about its layers.
        """
        one = explanation[index]
        details = one.details
        missing = {"layer_score", "layer_weight", "layer_kept"} - set(details)
        if missing:
            raise CamlucidaError(
                f"an explanation by {explanation.label} does not weigh layers; explain with method='icam'"
            )
        spread = {
            name: details.get(f"{name}_std", details[name] * 0)[0].tolist()
            for name in ("layer_score", "layer_weight")
        }
        rows = tuple(
            LayerContribution(
                layer=name,
                score=float(details["layer_score"][0, i]),
                weight=float(details["layer_weight"][0, i]),
                kept=float(details["layer_kept"][0, i]),
                map=normalise(one.layer_maps[name])[0].detach().cpu(),
                score_spread=spread["layer_score"][i],
                weight_spread=spread["layer_weight"][i],
            )
            for i, name in enumerate(one.layers)
        )
        return cls(rows, one, one.explained[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerContribution]:
        return iter(self.rows)

    @property
    def ranked(self) -> tuple[LayerContribution, ...]:
        """The rows by weight, then score, the largest first."""
        return tuple(sorted(self.rows, key=lambda row: (-row.weight, -row.score)))

    def table(self) -> list[dict[str, Any]]:
        """One dictionary per layer, without its map."""
        rank = {row.layer: place for place, row in enumerate(self.ranked, start=1)}
        return [
            {name: v for name, v in vars(row).items() if name != "map"} | {"rank": rank[row.layer]}
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON."""
        return {
            "explained": self.title,
            "uniform_weight": 1 / len(self.rows),
            "layers": self.table(),
            "messages": list(self.explanation.diagnostics[0].messages),
        }

    def __rich__(self) -> Any:
        """A table for the terminal."""
        kept = {1.0: "yes", 0.0: "no"}
        return Table.of(
            "layers",
            f"Layers that the score comes from: {self.title}",
            [{**r, "kept": kept.get(r["kept"], f"{r['kept']:.0%}")} for r in self.table()],
            {
                "layer": Column("layer"),
                "score": Column("score", digits=4),
                "weight": Column("weight", places=4),
                "kept": Column("kept"),
                "rank": Column("rank"),
            },
        ).rich()

    # ---- drawing ---------------------------------------------------------------------------------

    def figure(self, *, columns: int = 6) -> Figure:
        """The maps of all layers over the photo, with their weights (the paper's Figure 10).

        Kept layers have a red frame and their weight above; filtered ones a grey, broken frame. The
        photo and the fused map come first.

        Args:
            columns: pictures in a row.

        Returns:
            A matplotlib figure, not attached to any window.
        """
        from matplotlib.figure import Figure

        view = self.explanation.views[0].scaled(420)
        part = overlays.View.whole(crop := view.cropped())
        size = (crop.height, crop.width)
        cells: list[tuple[str, Any, str | None]] = [
            ("photo", crop, None),
            (f"all layers\n{self.title}", overlays.overlay(part, self.explanation.maps[0]), None),
        ]
        for row in self.rows:
            picture = overlays.overlay(part, resize(row.map[None], size)[0])
            cells.append((f"{row.layer}\n{_words(row)}", picture, _frame(row)))
        columns = max(1, min(columns, len(cells)))
        lines = -(-len(cells) // columns)
        shape = crop.height / crop.width
        figure = Figure(figsize=(2.0 * columns, lines * (2.0 * shape + 0.55)), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis in axes[len(cells) :]:
            axis.set_visible(False)
        for axis, (words, picture, colour) in zip(axes, cells, strict=False):
            axis.imshow(np.asarray(picture))
            axis.set_title(words, fontsize=7, color=colour or "black", linespacing=1.1)
            axis.set_xticks([])
            axis.set_yticks([])
            for edge in axis.spines.values():
                edge.set_visible(colour is not None)
                edge.set_color(colour or "none")
                edge.set_linewidth(2.0 if colour == _KEPT else 1.2)
                edge.set_linestyle("-" if colour == _KEPT else (0, (3, 3)))
        return figure

    def bars(self) -> Figure:
        """Score and weight of each layer as bars, in network order; filtered layers are grey and hatched.

        Returns:
            A matplotlib figure, not attached to any window.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.5, 0.24 * len(self.rows) + 1.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        self._bars(left, "score", [r.score for r in self.rows], [r.score_spread for r in self.rows])
        self._bars(
            right, "weight", [r.weight for r in self.rows], [r.weight_spread for r in self.rows]
        )
        right.axvline(1 / len(self.rows), color="black", linewidth=0.8, linestyle=":")
        right.set_xlabel("weight (dotted: all layers alike)", fontsize=8)
        left.set_yticks(range(len(self.rows)), [row.layer for row in self.rows], fontsize=7)
        left.invert_yaxis()
        figure.suptitle(self.title, fontsize=9)
        return figure

    def _bars(
        self, axis: Axes, words: str, values: Sequence[float], spreads: Sequence[float]
    ) -> None:
        drawn = axis.barh(
            range(len(values)),
            values,
            xerr=spreads if any(spreads) else None,
            color=[_frame(row) for row in self.rows],
            error_kw={"elinewidth": 0.8},
        )
        for bar, row in zip(drawn, self.rows, strict=True):
            if not row.kept:
                bar.set_hatch("///")
        axis.set_xlabel(words, fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)

    def _repr_png_(self) -> bytes:
        return overlays.png(self.figure(), dpi=90)


def _frame(row: LayerContribution) -> str:
    return _KEPT if row.kept else _FILTERED


def _words(row: LayerContribution) -> str:
    if not row.kept:
        return f"filtered (score {row.score:.3g})"
    spread = f" ± {row.weight_spread:.4f}" if row.weight_spread else ""
    return f"{row.weight:.4f}{spread}"


def layer_report(
    model: nn.Module | LoadedModel,
    photo: Photo | Tensor,
    target: TargetLike = None,
    *,
    method: ICAM | str = "icam",
    **options: Any,
) -> LayerReport:
    """Which layers a prediction comes from, by Integrative CAM.

    Args:
        model: the model, as for :func:`camlucida.explain`.
        photo: one photo, or a tensor ``(C, H, W)``.
        target: what is explained; the predicted class by default.
        method: I-CAM with its options, also as ``"icam:n_perturb=16"``; more than one run gives spreads.
        **options: further options of :func:`camlucida.explain`, such as ``layers`` and ``seed``.

    Example:
        >>> report = camlucida.studies.icam.layer_report(model, images[0])
        >>> [row.layer for row in report]
        ['1', '4']
    """
    return LayerReport.of(
        explain(model, photo, method=build_as(ICAM, method), target=target, **options)
    )
