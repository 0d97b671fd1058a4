"""A run folder as a report needs it: the plan, the images, the sums of the curves, and what its numbers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camlucida.benchmark.findings import Finding
from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.summary import Summary, summarise
from camlucida.benchmark.table import Results
from camlucida.common.optional import require
from camlucida.common.statistics import RESAMPLES, Floats
from camlucida.metrics.base import Question

QUESTIONS: dict[Question, str] = {
    "localisation": "Does the map lie on the object?",
    "faithfulness": "Do the marked pixels matter to the model?",
    "stability": "Is the map the same when little changes?",
    "randomisation": "Does the map change when the model's weights are redrawn?",
    "agreement": "How much do maps resemble a reference?",
    "concentration": "How concentrated is the map?",
    "dead zones": "Does the map mark what the model cannot see?",
    "other": "Other numbers",
}
"""What numbers ask, in the order of the report."""


@dataclass(frozen=True)
class Curve:
    """Mean curves of a number, one per method.

    Attributes:
        x: positions ``(P,)``.
        mean: of each method, ``(P,)``.
        low: lower end of its 95 % interval, of Student's t over the images.
        high: upper end.
        images: of each method, how many.
    """

    x: Floats
    mean: dict[str, Floats]
    low: dict[str, Floats]
    high: dict[str, Floats]
    images: dict[str, int]


@dataclass(frozen=True)
class RunResults(Results):
    """A run folder, read for a report.

    Attributes:
        summary: means, intervals, ranks and tests.
    """

    summary: Summary

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.summary.model

    @property
    def data(self) -> str:
        """The name of the data set."""
        return str(self.plan["data"]["name"])

    @cached_property
    def images(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of the table of images that were explained, ``{"index": (N,), "key": ...}``.

        ``None`` where something is not known, NaN for probabilities.
        """
        good = self.good
        found = {n: good[n].astype(object).where(good[n].notna(), None).to_numpy() for n in good}
        found["index"] = good["index"].to_numpy(np.int64)
        found["probability"] = good["probability"].to_numpy(np.float64)
        return found

    def values(self, numbers: Sequence[str]) -> dict[str, Floats]:
        """The values of some numbers, ``(methods, N)`` each, for the images of :attr:`images`."""
        if not numbers:
            return {}
        return {
            name: values.T
            for names, block in self.blocks(numbers=list(numbers))
            for name, values in zip(names, block, strict=True)
        }

    def class_name(self, index: int) -> str:
        """The first of a class's names."""
        names = self.plan["about"].get("class_names")
        if names and 0 <= index < len(names):
            return str(names[index]).split(",")[0]
        return f"class {index}"

    def style(self, method: str) -> int:
        """The style of a method in every chart."""
        return self.methods.index(method)

    # ---- what the numbers say -------------------------------------------------------------------

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every number, judged, in the plan's order; the cost is among them where it was measured."""
        return self.summary.findings

    @property
    def judged(self) -> list[Finding]:
        """Numbers that say which of several methods is better, without the cost."""
        return self.summary.judged

    @cached_property
    def leading(self) -> list[Finding]:
        """The first judging number of each question; the first at all where there is one method only."""
        first: dict[str, Finding] = {}
        for finding in self.findings:
            if finding.judges:
                first.setdefault(finding.number.question, finding)
        return [first[question] for question in QUESTIONS if question in first]

    @cached_property
    def leading_values(self) -> dict[str, Floats]:
        """The values of the leading numbers, image by image."""
        return self.values([f.number.name for f in self.leading])

    @property
    def cost(self) -> Finding | None:
        """What explaining costs, where it was measured."""
        return next((f for f in self.findings if f.number.name == SECONDS and f.ranked), None)

    # ---- curves ---------------------------------------------------------------------------------

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Of the numbers that sum up a curve: means over the images, those with a NaN left out."""
        parquet = require("pyarrow.parquet", "benchmark")
        sums: dict[tuple[str, str], _CurveSums] = {}
        for shard in sorted(self.folder.done()):
            file = self.folder.file("rows", shard)
            rows = parquet.read_table(file, columns=["method", "metric", "curve"]).to_pandas()
            rows = rows.dropna(subset="curve").groupby(["metric", "method"], observed=True)["curve"]
            for key, own in rows:
                points = np.stack(own.to_list()).astype(np.float64)
                points = points[np.isfinite(points).all(1)]
                if len(points):
                    sums.setdefault(key, _CurveSums(points.shape[1])).add(points)
        found: dict[str, Curve] = {}
        positions = self.plan["about"].get("curves") or {}
        for name, number in self.numbers.items():
            mine = {m: sums[name, m] for m in self.methods if (name, m) in sums}
            if mine:
                ends = {m: (s.mean - s.half(), s.mean + s.half()) for m, s in mine.items()}
                found[name] = Curve(
                    np.asarray(positions[name], np.float64),
                    {m: s.mean for m, s in mine.items()},
                    {m: s.within(ends[m][0], number.range) for m, s in mine.items()},
                    {m: s.within(ends[m][1], number.range) for m, s in mine.items()},
                    {m: s.count for m, s in mine.items()},
                )
        return found


class _CurveSums:
    """Mean and squared deviations of curves that come in parts."""

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(width), np.zeros(width)

    def add(self, points: Floats) -> None:
        """Take in more curves, ``(n, P)``, without losing digits (Chan, Golub and LeVeque 1979)."""
        new, total = len(points), self.count + len(points)
        middle = points.mean(0)
        shift = middle - self.mean
        self.mean = self.mean + shift * new / total
        self.squares = (
            self.squares + ((points - middle) ** 2).sum(0) + shift**2 * self.count * new / total
        )
        self.count = total

    def half(self) -> Floats:
        """Half the width of the mean's 95 % interval, by Student's t; NaN for one curve."""
        from scipy.special import stdtrit

        if self.count < 2:
            return np.full(len(self.mean), np.nan)
        error = np.sqrt(self.squares / (self.count - 1) / self.count)
        return float(stdtrit(self.count - 1, 0.975)) * error

    def within(self, ends: Floats, limits: tuple[float, float]) -> Floats:
        """Ends of an interval, cut at what the number can be; the mean itself stays inside."""
        cut = np.clip(ends, *limits)
        return np.where(ends < self.mean, np.minimum(cut, self.mean), np.maximum(cut, self.mean))


def read(run: str | Path, *, seed: int = 0, resamples: int = RESAMPLES) -> RunResults:
    """Read a run folder, finished or not.

    Args:
        run: the folder.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        CamlucidaError: it is no run, or nothing of it is done yet.
    """
    table = Results.of(RunFolder(Path(run)))
    summary = summarise(run, seed=seed, resamples=resamples)
    return RunResults(table.folder, table.plan, summary)
