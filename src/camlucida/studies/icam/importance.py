"""Which layers matter for which class: I-CAM's layer scores over a labelled folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn

from camlucida.common.errors import ImageError, MethodError
from camlucida.common.statistics import Floats, holm, permuted_p
from camlucida.data.folders import class_photos
from camlucida.engine.layers import Layers
from camlucida.explanation.explain import explain
from camlucida.explanation.photos import Photo
from camlucida.methods import Progress
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel
from camlucida.report import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Items: TypeAlias = "str | os.PathLike[str] | Iterable[tuple[Photo, str]]"


@dataclass(frozen=True)
class DifferenceTest:
    """Whether layers matter differently for different classes.

    Attributes:
        layer: the layer, ``""`` for all layers together.
        statistic: Kruskal-Wallis H of the layer's share; for all layers together the pseudo-F of a
            permutational analysis of variance (between over within scatter of the shares).
        p: share of relabellings whose statistic is as large, the observed labelling counted.
        adjusted: the same after Holm's correction for the number of layers.
    """

    layer: str
    statistic: float
    p: float
    adjusted: float


@dataclass(frozen=True)
class LayerImportance:
    """Layer scores of a labelled set of images.

    Attributes:
        layers: names, in network order.
        classes: labels, sorted.
        labels: position in ``classes`` of each image.
        shares: each image's layer scores, divided by their sum, ``(N, L)``.
        kept: share of the runs in which each image kept each layer, ``(N, L)``.
        overall: the test over all layers together; ``None`` where classes cannot be compared.
        tests: one test per layer; empty where classes cannot be compared.

    Example:
        >>> found = camlucida.studies.icam.layer_importance(loaded, [(photo, "cat"), (photo, "dog")])
        >>> found.mean.shape
        (2, 2)
    """

    layers: tuple[str, ...]
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    shares: Floats = field(repr=False)
    kept: Floats = field(repr=False)
    overall: DifferenceTest | None = None
    tests: tuple[DifferenceTest, ...] = ()

    def _of(self, label: int) -> Floats:
        rows: Floats = self.shares[np.asarray(self.labels) == label]
        return rows

    @property
    def mean(self) -> Floats:
        """Mean share of each layer in each class, ``(classes, L)``."""
        return np.stack([self._of(c).mean(0) for c in range(len(self.classes))])

    @property
    def spread(self) -> Floats:
        """Standard deviation over the images of a class, ``(classes, L)``; 0 for a single image."""
        return np.stack(
            [
                rows.std(0, ddof=1) if len(rows := self._of(c)) > 1 else np.zeros(len(self.layers))
                for c in range(len(self.classes))
            ]
        )

    def table(self) -> list[dict[str, Any]]:
        """One dictionary per class and layer."""
        mean, spread = self.mean, self.spread
        counts = np.bincount(self.labels, minlength=len(self.classes))
        kept = [self.kept[np.asarray(self.labels) == c].mean(0) for c in range(len(self.classes))]
        return [
            {
                "class": name,
                "images": int(counts[c]),
                "layer": layer,
                "share": float(mean[c, i]),
                "spread": float(spread[c, i]),
                "kept": float(kept[c][i]),
            }
            for c, name in enumerate(self.classes)
            for i, layer in enumerate(self.layers)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "layers": list(self.layers),
            "classes": list(self.classes),
            "table": self.table(),
            "overall": vars(self.overall) if self.overall else None,
            "tests": [vars(test) for test in self.tests],
        }

    @property
    def summary(self) -> Table:
        """Layers down, classes across."""
        legend = "Shares of the layer score, mean ± standard deviation over images."
        if self.overall is not None:
            legend += f" All layers together: pseudo-F {self.overall.statistic:.2f}, p = {self.overall.p:.3g}."
        mean, spread = self.mean, self.spread
        rows: list[tuple[Any, ...]] = []
        for i, layer in enumerate(self.layers):
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean[:, i], spread[:, i], strict=True)]
            rows.append((layer, *cells, *([self.tests[i].adjusted] if self.tests else [])))
        columns: list[str | Column] = ["layer", *self.classes]
        columns += [Column("p (Holm)", digits=3)] if self.tests else []
        return Table.of_rows("layer-importance", "Layer importance", columns, rows, legend)

    def __rich__(self) -> Any:
        """The table for the terminal."""
        return self.summary.rich()

    def figure(self) -> Figure:
        """Mean share of each layer per class as lines with their spread, on a matplotlib figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(max(6.0, 0.42 * len(self.layers) + 2), 3.4), layout="constrained")
        axis = figure.subplots()
        mean, spread = self.mean, self.spread
        places = np.arange(len(self.layers))
        for c, name in enumerate(self.classes):
            (line,) = axis.plot(places, mean[c], marker="o", markersize=3, label=name)
            edges, colour = (mean[c] - spread[c], mean[c] + spread[c]), line.get_color()
            axis.fill_between(places, *edges, alpha=0.15, linewidth=0, color=colour)
        axis.axhline(1 / len(self.layers), color="black", linewidth=0.8, linestyle=":")
        axis.set_xticks(places, self.layers, rotation=60, ha="right", fontsize=7)
        axis.set_ylabel("share of the layer score", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
        return figure


def layer_importance(
    model: nn.Module | LoadedModel,
    items: Items,
    *,
    explain_label: bool = False,
    method: ICAM | None = None,
    layers: Layers | None = None,
    permutations: int = 999,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    **options: Any,
) -> LayerImportance:
    """Average I-CAM's layer scores per class, and test whether classes differ.

    Scores grow with an image's gradients, so each image's scores are first divided by their sum. Whether
    classes differ is tested by relabelling the images at random: per layer with the Kruskal-Wallis H, and for
    all layers together with the pseudo-F of the shares.

    Args:
        model: the model, as for :func:`camlucida.explain`.
        items: a folder with one subfolder of photos per class, or pairs of photo and label.
        explain_label: explain the class that the label names instead of the predicted one; the model must
            know that name.
        method: I-CAM with its options.
        layers: the layers; all blocks by default.
        permutations: number of relabellings.
        seed: the seed of the copies and the relabellings.
        batch_size: images read and explained at a time.
        progress: is called with the images done and their number.
        **options: further options of :func:`camlucida.explain`.

    Raises:
        ImageError: for a folder without subfolders of photos, or no items.
        MethodError: for fewer than 1 permutation.

    Example:
        >>> found = camlucida.studies.icam.layer_importance(loaded, [(photo, "cat"), (photo, "dog")])
        >>> found.layers, found.classes
        (('1', '4'), ('cat', 'dog'))
    """
    if permutations < 1:
        raise MethodError(f"permutations must be >= 1, got {permutations}")
    photos, names = _labelled(items)
    classes = tuple(sorted(set(names)))
    shares: list[Floats] = []
    kept: list[Floats] = []
    found: tuple[str, ...] = ()
    for start in range(0, len(photos), batch_size):
        part = slice(start, start + batch_size)
        one = explain(
            model,
            photos[part],
            method=method or ICAM(),
            target=names[part] if explain_label else None,
            layers=layers,
            seed=seed,
            **options,
        )
        found = one.layers
        shares.append(_share(one.details["layer_score"].double().cpu().numpy()))
        kept.append(one.details["layer_kept"].double().cpu().numpy())
        if progress is not None:
            progress(start + len(one), len(photos))
    labels = np.array([classes.index(name) for name in names])
    every = np.concatenate(shares)
    overall, tests = compare_classes(every, labels, found, permutations, seed)
    return LayerImportance(
        found, classes, tuple(labels.tolist()), every, np.concatenate(kept), overall, tests
    )


def _share(scores: Floats) -> Floats:
    total = scores.sum(1, keepdims=True)
    uniform = np.full_like(scores, 1 / scores.shape[1])
    return np.where(total > 0, scores / np.where(total > 0, total, 1), uniform)


def _labelled(items: Items) -> tuple[list[Photo], list[str]]:
    if isinstance(items, str | os.PathLike):
        paths, labels = class_photos(items)
        return list(paths), labels
    pairs = list(items)
    if not pairs:
        raise ImageError("no labelled image was given")
    return [photo for photo, _ in pairs], [str(label) for _, label in pairs]


# --------------------------------------------------------------------------------------------- testing


def kruskal_wallis(values: Floats, labels: npt.NDArray[np.intp]) -> Floats:
    """Kruskal-Wallis H of each column, corrected for ties; 0 for a constant column."""
    from scipy.stats import rankdata

    return _h(rankdata(values, axis=0), labels)


def _h(ranks: Floats, labels: npt.NDArray[np.intp]) -> Floats:
    # With the variance of the ranks themselves the correction for ties is built in.
    between, within = _scatter(ranks, labels)
    total = between + within
    return np.where(total > 0, (len(ranks) - 1) * between / np.where(total > 0, total, 1), 0.0)


def _scatter(values: Floats, labels: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Sums of squares between and within groups, per column."""
    centre = values.mean(0)
    between, within = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for group in np.unique(labels):
        rows = values[labels == group]
        mean = rows.mean(0)
        between += len(rows) * (mean - centre) ** 2
        within += ((rows - mean) ** 2).sum(0)
    return between, within


def pseudo_f(values: Floats, labels: npt.NDArray[np.intp]) -> float:
    """Scatter between groups over that within, in all columns together (Anderson 2001, PERMANOVA)."""
    between, within = (part.sum() for part in _scatter(values, labels))
    groups = len(np.unique(labels))
    if within == 0:
        return float("inf") if between > 0 else 0.0
    return float((between / (groups - 1)) / (within / (len(values) - groups)))


def compare_classes(
    shares: Floats,
    labels: npt.NDArray[np.intp],
    layers: Sequence[str],
    permutations: int = 999,
    seed: int = 0,
) -> tuple[DifferenceTest | None, tuple[DifferenceTest, ...]]:
    """Test by random relabelling whether the columns differ between groups.

    Returns:
        The test over all layers together, and one per layer; nothing where there is one group, or no
        group with two rows.
    """
    from scipy.stats import rankdata

    groups = len(np.unique(labels))
    if groups < 2 or len(shares) <= groups:
        return None, ()
    ranked = rankdata(shares, axis=0)

    def statistics(labels: npt.NDArray[np.intp]) -> Floats:
        return np.append(_h(ranked, labels), pseudo_f(shares, labels))

    observed = statistics(labels)
    p = permuted_p(observed, lambda g: statistics(g.permutation(labels)), permutations, seed)
    adjusted, p_all, observed_f = holm(p[:-1]), float(p[-1]), float(observed[-1])
    return DifferenceTest("", observed_f, p_all, p_all), tuple(
        DifferenceTest(name, float(observed[i]), float(p[i]), float(adjusted[i]))
        for i, name in enumerate(layers)
    )
