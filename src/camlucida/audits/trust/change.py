"""Two trust reports side by side: what changed between two versions of a model, and whether it could be chance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camlucida.audits.rules import MEASURED, QUESTIONS, TrustQuestion
from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import holm, rank_sum, settled, signed_rank

_LEVEL = 0.05


@dataclass(frozen=True)
class TrustChange:
    """One method and question in two reports.

    Attributes:
        method: as tables name it.
        question: what it was asked.
        before: its grade in the first report.
        after: in the second.
        first: its share of the way to the exact answer in the first, ``None`` where it was not measured.
        second: in the second.
        p: of the difference, after Holm over all of them; ``None`` where it was not measured twice.
        paired: whether both reports were measured on the same images.
    """

    method: str
    question: TrustQuestion
    before: str
    after: str
    first: float | None
    second: float | None
    p: float | None
    paired: bool

    @property
    def said(self) -> str:
        """What it comes to, in words."""
        changed = self.before != self.after
        if self.p is None:
            return "another grade; the difference was not measured" if changed else "the same"
        if self.p > _LEVEL:
            return "another grade, which may be chance" if changed else "the same"
        return "another grade, hardly by chance" if changed else "another number, hardly by chance"


@dataclass(frozen=True)
class TrustComparison:
    """What changed between two audits.

    Attributes:
        models: the names of the two.
        changes: of every method that both have.
        only_first: methods that the second lacks.
        only_second: those that the first lacks.
        paired: whether both were measured on the same images.

    Example:
        >>> camlucida.audits.TrustComparison(("before", "after"), (), (), ("gradcam",), True).only_second
        ('gradcam',)
    """

    models: tuple[str, str]
    changes: tuple[TrustChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    paired: bool

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "changes": [{**asdict(c), "said": c.said} for c in self.changes]}


def is_audit(folder: str | Path) -> bool:
    """Whether ``camlucida audit all`` wrote a report there."""
    return (Path(folder) / "trust.json").is_file()


def compare_audits(first: str | Path, second: str | Path) -> TrustComparison:
    """Compare the reports in two folders that ``camlucida audit all`` wrote.

    Raises:
        CamlucidaError: there is no report, or it cannot be read.

    Example:
        >>> options = {"methods": ["gradcam"], "audits": ["faithfulness"]}
        >>> _ = camlucida.audits.audit_all(model, images, **options).save("audit")
        >>> camlucida.audits.compare_audits("audit", "audit").changes[0].said
        'the same'
    """
    reports = [_read(folder, "trust") for folder in (first, second)]
    details = [_read(folder, "faithfulness", needed=False) for folder in (first, second)]
    known = [{m["label"]: m for m in report["methods"]} for report in reports]
    pictures = [report["record"].get("images", {}).get("sha256") for report in reports]
    paired = pictures[0] is not None and pictures[0] == pictures[1]
    both = [label for label in known[0] if label in known[1]]
    rows: list[dict[str, Any]] = []
    for label in both:
        for place, question in enumerate(QUESTIONS):
            values = [_orders(detail, label, min(place, 2)) for detail in details]
            shares = [_share(one[label], question) for one in known]
            rows.append({
                "method": label, "question": question, "paired": paired,
                "before": known[0][label]["answers"][question]["grade"],
                "after": known[1][label]["answers"][question]["grade"],
                "first": shares[0], "second": shares[1], "p": _chance(values, paired=paired),
            })  # fmt: skip
    measured = [row for row in rows if row["p"] is not None]
    for row, p in zip(measured, holm([row["p"] for row in measured]), strict=True):
        row["p"] = float(p)
    return TrustComparison(
        (reports[0]["model"], reports[1]["model"]),
        tuple(TrustChange(**row) for row in rows),
        tuple(label for label in known[0] if label not in known[1]),
        tuple(label for label in known[1] if label not in known[0]),
        paired,
    )


def _read(folder: str | Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    path = Path(folder) / f"{name}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        if not needed:
            return {}
        raise CamlucidaError(
            f"{str(folder)!r} holds no report of camlucida audit all ({path.name}: {error})"
        ) from error
    return found


def _orders(detail: dict[str, Any], label: str, place: int) -> list[float | None]:
    measured = detail.get("record", {}).get("measured", {}).get(label, {})
    found: list[float | None] = (measured.get("orders") or [[]] * 4)[place]
    return found


def _share(method: dict[str, Any], question: TrustQuestion) -> float | None:
    values = (e["value"] for e in method["evidence"] if e["name"] == MEASURED[question])
    found: float | None = next(values, None)
    return found


def _chance(values: list[list[float | None]], *, paired: bool) -> float | None:
    """The probability of such a difference by chance: of the same images pair by pair."""
    a, b = values
    if paired:
        pairs = [(x, y) for x, y in zip(a, b, strict=False) if x is not None and y is not None]
        if len(pairs) < 2:
            return None
        x, y = (np.asarray(side, np.float64) for side in zip(*pairs, strict=True))
        return signed_rank(settled(y - x, x, y))
    x, y = (np.asarray([v for v in one if v is not None], np.float64) for one in (a, b))
    return rank_sum(x, y) if min(len(x), len(y)) > 1 else None
