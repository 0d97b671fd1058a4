"""What a verification benchmark found: threshold, error rates, accuracy curves and areas."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camlucida.faces.protocol import (
    AccuracyCurve,
    ErrorCurves,
    Floats,
    Threshold,
    accuracy,
    accuracy_curve,
    area,
    bootstrap,
    error_curves,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Key = tuple[str, str]
"""A rule and a mode, such as ``("percentile", "delete")``."""


@dataclass(frozen=True, eq=False)
class VerificationReport:
    """Results of :func:`camlucida.faces.verification.run_verification`.

    Attributes:
        plan: everything that decided the numbers.
        keys: the pairs that could be used, ``N`` of them.
        same: ``(N,)``, whether each is genuine.
        people: of each pair, who is resampled together.
        scores: similarities of the unaltered pairs, ``(N,)``.
        threshold: found on them.
        altered: scores ``(N, P)`` of altered pairs, by method and by rule and mode; random maps too.
        empty: of each method, the number of probes whose map was empty.
        seconds: of each method, per probe.
        errors: pairs that could not be used, with the reason.
    """

    plan: dict[str, Any] = field(repr=False)
    keys: tuple[str, ...] = field(repr=False)
    same: npt.NDArray[np.bool_] = field(repr=False)
    people: tuple[str, ...] = field(repr=False)
    scores: Floats = field(repr=False)
    threshold: Threshold
    altered: dict[str, dict[Key, Floats]] = field(repr=False)
    empty: dict[str, int]
    seconds: dict[str, float]
    errors: tuple[str, ...] = ()

    @property
    def clean_accuracy(self) -> float:
        """Share of the unaltered pairs decided right."""
        return accuracy(self.scores, self.same, self.threshold.value)

    @cached_property
    def error_curves(self) -> ErrorCurves:
        """FMR and FNMR of the unaltered pairs at all thresholds."""
        return error_curves(self.scores, self.same)

    @cached_property
    def curves(self) -> dict[str, dict[Key, AccuracyCurve]]:
        """Accuracy over P by method and by rule and mode; intervals resample people."""
        return {
            label: {
                key: accuracy_curve(
                    scores,
                    self.same,
                    self.threshold.value,
                    self.plan["percentages"],
                    groups=self.people,
                    seed=self.plan["seed"],
                )
                for key, scores in by_key.items()
            }
            for label, by_key in self.altered.items()
        }

    def difference(self, one: str, other: str, rule: str, mode: str) -> tuple[float, float, float]:
        """How much larger the area of one method is than that of another, on the same pairs.

        Returns:
            The difference and the ends of its 95 % interval, whole people resampled.
        """
        areas = [
            area(
                (self.altered[label][rule, mode] >= self.threshold.value) == self.same[:, None],
                self.percentages,
            )
            for label in (one, other)
        ]
        apart = areas[0] - areas[1]
        return float(apart.mean()), *bootstrap(apart, self.people, seed=self.plan["seed"])

    @property
    def percentages(self) -> tuple[float, ...]:
        """P."""
        return tuple(self.plan["percentages"])

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "plan": self.plan,
            "pairs": len(self.keys),
            "genuine": int(self.same.sum()),
            "impostor": int((~self.same).sum()),
            "people": len(set(self.people)),
            "errors": list(self.errors),
            "threshold": self.threshold.value,
            "fmr": self.threshold.fmr,
            "fnmr": self.threshold.fnmr,
            "clean_accuracy": self.clean_accuracy,
            "roc_auc": self.error_curves.auc,
            "methods": {
                label: {
                    "empty_maps": self.empty.get(label),
                    "seconds_per_probe": self.seconds.get(label),
                    **{f"{rule}_{mode}": curve.to_dict() for (rule, mode), curve in curves.items()},
                }
                for label, curves in self.curves.items()
            },
            "scores": [
                {"pair": key, "same": bool(same), "score": float(score)}
                for key, same, score in zip(self.keys, self.same, self.scores, strict=True)
            ],
        }

    def figure(self) -> Figure:
        """Accuracy over P: a column for Delete and one for Insert, a row for each rule."""
        from matplotlib.figure import Figure

        rules = list(dict.fromkeys(self.plan["rules"]))
        figure = Figure(figsize=(10, 3.6 * len(rules) + 0.4), layout="constrained")
        axes = figure.subplots(len(rules), 2, squeeze=False, sharex=True, sharey=True)
        for row, rule in enumerate(rules):
            for column, mode in enumerate(("delete", "insert")):
                axis = axes[row, column]
                for number, (label, curves) in enumerate(self.curves.items()):
                    curve = curves[rule, mode]
                    axis.plot(
                        curve.percentages,
                        100 * curve.accuracy,
                        label=f"{label}: {curve.auc:.1f}",
                        color=_COLOURS[number % len(_COLOURS)],
                        linestyle=":" if label.startswith("random") else "-",
                        marker=_MARKERS[number % len(_MARKERS)],
                        markersize=3,
                        linewidth=1.2,
                    )
                better = "lower" if mode == "delete" else "higher"
                axis.set_title(f"{mode}, by {rule} ({better} is better)", fontsize=9)
                axis.legend(fontsize=6, title="area", title_fontsize=6)
                axis.grid(alpha=0.3)
                axis.tick_params(labelsize=7)
        for axis in axes[-1]:
            axis.set_xlabel("% of the probe's pixels", fontsize=8)
        for axis in axes[:, 0]:
            axis.set_ylabel("pairs decided right, %", fontsize=8)
        return figure

    def score_figure(self) -> Figure:
        """The unaltered pairs: histogram of scores, error rates over thresholds, ROC."""
        from matplotlib.figure import Figure

        curves = self.error_curves
        figure = Figure(figsize=(12, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        bins = np.histogram_bin_edges(self.scores, bins=24).tolist()
        for same, name, colour in (
            (True, "genuine", _COLOURS[0]),
            (False, "impostor", _COLOURS[1]),
        ):
            left.hist(
                self.scores[self.same == same], bins=bins, alpha=0.6, label=name, color=colour
            )
        left.axvline(self.threshold.value, color="black", linewidth=1, label="threshold")
        left.set_xlabel("similarity", fontsize=8)
        left.set_ylabel("pairs", fontsize=8)
        middle.step(
            curves.thresholds, 100 * curves.fmr, where="post", label="FMR", color=_COLOURS[1]
        )
        middle.step(
            curves.thresholds, 100 * curves.fnmr, where="post", label="FNMR", color=_COLOURS[0]
        )
        middle.axvline(self.threshold.value, color="black", linewidth=1)
        middle.set_xlabel("threshold", fontsize=8)
        middle.set_ylabel("error, %", fontsize=8)
        right.plot(
            100 * np.concatenate([[0], curves.fmr, [1]]),
            100 * np.concatenate([[0], 1 - curves.fnmr, [1]]),
            color=_COLOURS[0], label=f"area {curves.auc:.3f}",
        )  # fmt: skip
        right.set_xlabel("false match rate, %", fontsize=8)
        right.set_ylabel("true match rate, %", fontsize=8)
        for axis in (left, middle, right):
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=7)
        return figure


# Told apart by the colour-blind (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
