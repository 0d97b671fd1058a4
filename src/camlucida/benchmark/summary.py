"""What a run says: means with intervals, ranks, tests between methods, cost."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camlucida.benchmark.findings import Finding
from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.table import Results
from camlucida.common.jsonable import plain
from camlucida.common.optional import require
from camlucida.common.statistics import (
    CONFIDENCE,
    MANY,
    RESAMPLES,
    Floats,
    holm,
    interval,
    mean_ranks,
    rank_sum,
    settled,
    signed_rank,
)


@dataclass(frozen=True)
class Summary:
    """The tables of a run.

    Attributes:
        table: one row per method and number: ``method, metric, mean, std`` (n - 1), ``n`` (images that count),
            ``low, high`` (ends of the 95 % interval), ``median, rank`` (mean over images, 1 is best; NaN for
            numbers without a direction), ``mark`` (``"best"`` where the method is better than every other beyond
            chance; ``"tied"`` for the best mean and those not told apart from it, where none is; else empty).
            ``seconds`` has no ``std, low, high, mark``: the images of a batch share one measurement.
        tests: one row per pair of methods and number: ``metric, a, b, n`` (images that count for both),
            ``difference`` (mean of a - b over them), ``rank_sum, signed_rank`` (p values), ``rank_sum_holm,
            signed_rank_holm`` (corrected over the pairs of the number).
        images: how many were done.
        total: how many the plan has.
        broken: key and reason of those that could not be used.
        notes: key and text of those where a method or metric failed.
        accuracy: share of the labelled images whose prediction is right; ``None`` without labels.
        plan: the plan.
        findings: what each number says of the methods, in the plan's order.

    Example:
        >>> _ = camlucida.benchmark.evaluate(
        ...     model, ".", metrics=["sparseness"], out="summed", preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> found = camlucida.benchmark.summarise("summed")
        >>> found.complete, int(found.cell("gradcam", "sparseness")["n"])
        (True, 1)
    """

    table: Any
    tests: Any
    images: int
    total: int
    broken: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    accuracy: float | None
    plan: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self.plan["model"]["name"])

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods' labels, in the plan's order."""
        return tuple(one["label"] for one in self.plan["methods"])

    @property
    def judged(self) -> list[Finding]:
        """Numbers that say which of several methods is better, without the cost."""
        return [f for f in self.findings if f.best is not None and f.number.question != "cost"]

    @property
    def complete(self) -> bool:
        """Whether all shards are done."""
        return self.images == self.total

    def cell(self, method: str, metric: str) -> Any:
        """The row of a method and number, as a series."""
        chosen = (self.table["method"] == method) & (self.table["metric"] == metric)
        return self.table[chosen].iloc[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found = plain({
            "images": self.images,
            "total": self.total,
            "complete": self.complete,
            "accuracy": self.accuracy,
            "broken": [{"key": key, "reason": reason} for key, reason in self.broken],
            "notes": [{"key": key, "note": note} for key, note in self.notes],
            "table": self.table.to_dict("records"),
            "tests": self.tests.to_dict("records"),
            "plan": dict(self.plan),
        })  # fmt: skip
        assert isinstance(found, dict)  # noqa: S101
        return found


def summarise(
    run: str | Path, *, seed: int = 0, resamples: int = RESAMPLES, tests: bool = True
) -> Summary:
    """Sum up a run, or what is done of it.

    Means are over the images that count for the number. The interval is the BCa bootstrap's, and from 100,000
    images on the normal one. Ranks compare the methods image by image, where all of them have a value.

    Args:
        run: the run folder.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        tests: whether to compare the methods pair by pair.

    Raises:
        CamlucidaError: the folder is no run, or nothing of it is done.

    Example:
        >>> _ = camlucida.benchmark.evaluate(
        ...     model, ".", metrics=["sparseness"], out="run", preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> sorted(set(camlucida.benchmark.summarise("run").table["metric"]))
        ['seconds', 'sparseness']
    """
    pandas = require("pandas", "benchmark")
    results = Results.of(RunFolder(Path(run)))
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for names, block in results.blocks():
        low, high = intervals(block, seed, resamples)
        for i, number in enumerate(names):
            ends = np.stack([low[i], high[i]])
            own = _describe(
                results.methods, number, block[i], results.numbers[number].direction, ends
            )
            if number == SECONDS:
                own = [{**row, "std": np.nan, "low": np.nan, "high": np.nan} for row in own]
            tested = tests and number != SECONDS and len(results.methods) > 1
            against = _pairs(results.methods, number, block[i]) if tested else []
            finding = Finding.of(results.numbers[number], own, against)
            rows += [{**row, "mark": finding.mark(row["method"])} for row in own]
            pairs += against
            findings.append(finding)
    images = results.all_images
    known = images["correct"].dropna()
    return Summary(
        table=pandas.DataFrame(rows, columns=_TABLE),
        tests=pandas.DataFrame(pairs, columns=_TESTS),
        images=len(images),
        total=int(results.plan["data"]["images"]),
        broken=_said(images, "error"),
        notes=_said(images, "notes"),
        accuracy=float(known.astype(float).mean()) if len(known) else None,
        plan=results.plan,
        findings=tuple(findings),
    )


_TABLE = ["method", "metric", "mean", "std", "n", "low", "high", "median", "rank", "mark"]
_TESTS = [
    "metric", "a", "b", "n", "difference", "rank_sum", "signed_rank", "rank_sum_holm", "signed_rank_holm",
]  # fmt: skip


def _said(images: Any, column: str) -> tuple[tuple[str, str], ...]:
    chosen = images[images[column].notna()]
    return tuple(zip(chosen["key"], chosen[column], strict=True))


def intervals(block: Floats, seed: int, resamples: int) -> tuple[Floats, Floats]:
    """Lower and upper ends of the intervals of ``(numbers, images, methods)``: ``(numbers, methods)`` each.

    Columns whose values are there for the same images share their resamples.
    """
    low, high = np.full((2, len(block), block.shape[2]), np.nan)
    groups: dict[bytes, list[tuple[int, int]]] = {}
    counts = np.isfinite(block)
    for i, j in np.ndindex(low.shape):
        groups.setdefault(np.packbits(counts[i, :, j]).tobytes(), []).append((i, j))
    for cells in groups.values():
        there = counts[cells[0][0], :, cells[0][1]]
        columns = np.stack([block[i, there, j] for i, j in cells], axis=1)
        ends = interval(columns, seed=seed, resamples=resamples)
        for cell, one, other in zip(cells, *ends, strict=True):
            low[cell], high[cell] = one, other
    return low, high


def _describe(
    methods: tuple[str, ...], number: str, values: Floats, direction: str, ends: Floats
) -> list[dict[str, Any]]:
    counts = np.isfinite(values)
    ranks = mean_ranks(values, direction)
    rows = []
    for j, method in enumerate(methods):
        own = values[counts[:, j], j]
        rows.append({
            "method": method,
            "metric": number,
            "mean": own.mean() if len(own) else np.nan,
            "std": own.std(ddof=1) if len(own) > 1 else np.nan,
            "n": len(own),
            "low": ends[0, j],
            "high": ends[1, j],
            "median": np.median(own) if len(own) else np.nan,
            "rank": ranks[j],
        })  # fmt: skip
    return rows


def _pairs(methods: tuple[str, ...], number: str, values: Floats) -> list[dict[str, Any]]:
    counts = np.isfinite(values)
    known = [values[counts[:, j], j] for j in range(len(methods))]
    rows = []
    for i, j in itertools.combinations(range(len(methods)), 2):
        both = counts[:, i] & counts[:, j]
        differences = values[both, i] - values[both, j]
        rows.append({
            "metric": number,
            "a": methods[i],
            "b": methods[j],
            "n": len(differences),
            "difference": differences.mean() if len(differences) else np.nan,
            "rank_sum": rank_sum(known[i], known[j]),
            "signed_rank": signed_rank(
                settled(differences, values[both, i], values[both, j])
            ),
        })  # fmt: skip
    for name in ("rank_sum", "signed_rank"):
        for row, corrected in zip(rows, holm([row[name] for row in rows]), strict=True):
            row[f"{name}_holm"] = corrected
    return rows


__all__ = ["CONFIDENCE", "MANY", "Summary", "summarise"]
