"""Two runs side by side: what changed for the same photos, methods and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camlucida.benchmark.findings import LEVEL
from camlucida.benchmark.plan import SECONDS
from camlucida.benchmark.shards import RunFolder
from camlucida.benchmark.summary import intervals
from camlucida.benchmark.table import Results
from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import plain
from camlucida.common.optional import require
from camlucida.common.statistics import RESAMPLES, holm, settled, signed_rank
from camlucida.common.store import differences


@dataclass(frozen=True)
class RunComparison:
    """The second run against the first, photo by photo.

    Attributes:
        table: one row per method and number that both have: ``method, metric, n`` (photos that count in both),
            ``first, second`` (means over them), ``difference`` (second - first), ``low, high`` (ends of its
            95 % interval), ``p`` (signed-rank test), ``p_holm`` (corrected over the methods of the number),
            ``better`` (``"first"`` or ``"second"`` where the corrected test and the interval both say so, else
            empty). What explaining costs is compared by its means only, and neither run is better at it.
        images: photos that both runs have results for.
        differences: in what the plans differ, in words.
        only_first: methods and numbers that the second run lacks.
        only_second: those that the first lacks.
        left_out: what both have under one name and is not the same, with the reason.

    Example:
        >>> _ = camlucida.benchmark.evaluate(
        ...     model, ".", metrics=["sparseness"], out="run", preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> camlucida.benchmark.compare("run", "run").cell("gradcam", "sparseness")["better"]
        ''
    """

    table: Any
    images: int
    differences: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    left_out: tuple[str, ...]

    def cell(self, method: str, metric: str) -> Any:
        """The row of a method and number, as a series."""
        chosen = (self.table["method"] == method) & (self.table["metric"] == metric)
        return self.table[chosen].iloc[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found = plain({
            "images": self.images,
            "table": self.table.to_dict("records"),
            "differences": list(self.differences),
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "left_out": list(self.left_out),
        })  # fmt: skip
        assert isinstance(found, dict)  # noqa: S101
        return found


def compare(
    first: str | Path, second: str | Path, *, seed: int = 0, resamples: int = RESAMPLES
) -> RunComparison:
    """Compare two runs on the photos that both have, joined by their keys.

    Args:
        first: a run folder.
        second: another.
        seed: of the bootstrap behind the intervals.
        resamples: of the bootstrap.

    Raises:
        CamlucidaError: they have no method, number or photo in common.

    Example:
        >>> _ = camlucida.benchmark.evaluate(
        ...     model, ".", metrics=["sparseness"], out="run", preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> camlucida.benchmark.compare("run", "run").images
        1
    """
    pandas = require("pandas", "benchmark")
    one, other = Results.of(RunFolder(Path(first))), Results.of(RunFolder(Path(second)))
    left_out: list[str] = []
    methods = _common(
        "method", one.methods, other.methods, _methods(one), _methods(other), left_out
    )
    numbers = _common(
        "number", tuple(one.numbers), tuple(other.numbers), _metrics(one), _metrics(other), left_out
    )
    here, there = _places(one.good["key"], other.good["key"])
    if len(here) == 0:
        raise CamlucidaError(
            "the two runs have no photo in common: their keys differ, so they are of different data"
        )
    rows: list[dict[str, Any]] = []
    for number in numbers:  # block by block would need both runs' blocks to agree
        (_, a), (_, b) = next(one.blocks(methods, [number])), next(other.blocks(methods, [number]))
        rows += _describe(one, methods, number, a[0][here], b[0][there], seed, resamples)
    sides = ("in the first", "in the second")
    whole = tuple(f"]: only {side}" for side in sides)  # methods and numbers that `_only` names
    return RunComparison(
        pandas.DataFrame(rows),
        len(here),
        tuple(
            text for text in differences(one.plan, other.plan, sides) if not text.endswith(whole)
        ),
        _only(one, other),
        _only(other, one),
        tuple(left_out),
    )


def _describe(
    results: Results,
    methods: list[str],
    number: str,
    first: Any,
    second: Any,
    seed: int,
    resamples: int,
) -> list[dict[str, Any]]:
    timed = number == SECONDS  # measured on some photos only, not the same ones in both
    direction = results.numbers[number].direction
    change = second - first
    if not timed:
        change = settled(change, *(v[np.isfinite(v)] for v in (first, second)))
    low, high = (ends[0] for ends in intervals(change[None], seed, resamples))
    rows: list[dict[str, Any]] = []
    for j, method in enumerate(methods):
        both = np.isfinite(change[:, j])
        one, other = (
            v[np.isfinite(v[:, j]) if timed else both, j] for v in (first, second)
        )  # fmt: skip
        means = [v.mean() if len(v) else np.nan for v in (one, other)]
        difference = means[1] - means[0]
        if not timed:
            difference = change[both, j].mean() if both.any() else np.nan
        rows.append({
            "method": method,
            "metric": number,
            "n": min(len(one), len(other)),
            "first": means[0],
            "second": means[1],
            "difference": difference,
            "low": np.nan if timed else low[j],
            "high": np.nan if timed else high[j],
            "p": np.nan if timed else signed_rank(change[both, j]),
        })  # fmt: skip
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
        told = direction != "none" and corrected < LEVEL and row["low"] * row["high"] > 0
        rises = "second" if direction == "higher" else "first"
        falls = "first" if direction == "higher" else "second"
        row["better"] = "" if not told else rises if row["difference"] > 0 else falls
    return rows


def _common(
    kind: str,
    one: tuple[str, ...],
    other: tuple[str, ...],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    left_out: list[str],
) -> list[str]:
    """The names that mean the same in both runs, in the first one's order."""
    shared = [name for name in one if name in other]
    reasons = {
        name: f"{kind} {name!r} was computed with other options ({'; '.join(changed)})"
        for name in shared
        if (
            changed := differences(
                first.get(name, {}), second.get(name, {}), ("in the first", "in the second")
            )
        )
    }
    left_out += reasons.values()
    kept = [name for name in shared if name not in reasons]
    if not kept or kept == [SECONDS]:
        told = "; ".join(reasons.values()) or f"{', '.join(one)} against {', '.join(other)}"
        raise CamlucidaError(f"the two runs have no {kind} in common: {told}")
    return kept


def _methods(results: Results) -> dict[str, Any]:
    return {one["label"]: {"options": one.get("options")} for one in results.plan["methods"]}


def _metrics(results: Results) -> dict[str, Any]:
    return {
        number: {"metric": one.get("name"), "options": one.get("options")}
        for one in results.plan["metrics"]
        for number in one["numbers"]
    }


def _only(one: Results, other: Results) -> tuple[str, ...]:
    return (
        *(f"method {name}" for name in one.methods if name not in other.methods),
        *(f"number {name}" for name in one.numbers if name not in other.numbers),
    )


def _places(one: Any, other: Any) -> tuple[Any, Any]:
    """Positions of the common keys in both lists."""
    pandas = require("pandas", "benchmark")
    found = pandas.Index(other).get_indexer(pandas.Index(one))
    here = np.flatnonzero(found >= 0)
    return here, found[here]
