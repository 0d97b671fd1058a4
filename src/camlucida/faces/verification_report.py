"""What a verification benchmark found: threshold, error rates, accuracy curves and areas."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camlucida.common.statistics import Floats
from camlucida.faces.protocol import (
    AccuracyCurve,
    ErrorCurves,
    HeldOut,
    Threshold,
    accuracy,
    accuracy_curve,
    area,
    as_said,
    bootstrap,
    error_curves,
    held_out,
)
from camlucida.metrics.ranking import MaskRule

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

    Example:
        >>> bench = camlucida.faces.VerificationBenchmark(embedder, pairs, ["fame:iterations=1"])
        >>> report = camlucida.faces.run_verification(bench)
        >>> 0 <= report.clean_accuracy <= 1
        True
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

    @property
    def fitted(self) -> bool:
        """Whether the threshold was found on these very pairs."""
        return bool(self.plan["threshold"] == "eer")

    @cached_property
    def held_out(self) -> HeldOut | None:
        """How a threshold fitted on other people does; ``None`` where one was given, or there are too few."""
        if not self.fitted:
            return None
        return held_out(self.scores, self.same, self.people, seed=self.plan["seed"])

    @property
    def decided(self) -> str:
        """Threshold, where it is from, and errors, in a sentence."""
        value = as_said(self.threshold.value, self.plan["compare"])
        rates = f"FMR {self.threshold.fmr:.1%}, FNMR {self.threshold.fnmr:.1%}, right {self.clean_accuracy:.1%}"
        if not self.fitted:
            return f"threshold {value:.3f}, as given: {rates}"
        found = self.held_out
        other = (
            "too few people to hold some out, so how it does on others is not known"
            if found is None
            else f"on people held out, {found.folds} folds: right {found.accuracy:.1%} (95 % interval {found.low:.1%} "
            f"to {found.high:.1%})"
        )
        return f"threshold {value:.3f}, fitted on these pairs: {rates} on the same pairs; {other}"

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
    def rules(self) -> tuple[MaskRule, ...]:
        """How pixels were ranked, each way once."""
        return tuple(dict.fromkeys(self.plan["rules"]))

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
            "threshold_from": "fitted on these pairs" if self.fitted else "given",
            "held_out": None if self.held_out is None else asdict(self.held_out),
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
