"""Where a method lies between a map that knows nothing and the exact answer, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from camlucida.audits.candidates import Candidate
from camlucida.audits.verdicts import (
    UNEXPLAINED,
    Sentence,
    Verdict,
    between,
    decided,
    sentences,
)
from camlucida.common.errors import CamlucidaError

SAFE, UNSAFE = 0.7, 0.3
"""Share of the way from a map that knows nothing to the exact answer: from the one on a method passes, up to the other
it fails."""

_FAR = 0.5
"""A single image counts no further beyond the two ends, so that one alone does not decide."""

_APART = 0.1
"""The exact answer must lie this much above what knows nothing, or the check says nothing."""


@dataclass(frozen=True)
class Order:
    """One thing that a map may put places in the order of.

    Attributes:
        finding: what rules call it.
        title: for tables.
        first: what comes first, in words.
        margin: whether it is the margin's, so that the exact answer is the one for a margin.
    """

    finding: str
    title: str
    first: str
    margin: bool = False


ORDERS = (
    Order("faithfulness", "evidence first", "what raises the score of the class"),
    Order(
        "contrast order", "contrast first", "what raises the class above the others", margin=True
    ),
    Order("dependence order", "what counts", "what the score depends on, for or against the class"),
    Order(
        "against order",
        "what counts against",
        "what counts against the class, before what does not count",
    ),
)

ROWS = (*ORDERS, *ORDERS)
"""What is kept of each image: how a map orders the places, and below how it tells those that count from the others."""


_SAY = sentences("""
pass: It puts first {first}: {share:.0 %} of the way from a map that knows nothing ({blind}) to the exact answer (at
    least {safe:.0 %} passes).
warn: It puts {first} first only in part: {share:.0 %} of the way from a map that knows nothing ({blind}) to the exact
    answer (at least {safe:.0 %} passes, up to {unsafe:.0 %} fails).
fail: It does not put first {first}: {share:.0 %} of the way from a map that knows nothing ({blind}) to the exact answer
    (up to {unsafe:.0 %} fails).
apart: On this model and these images the exact answer ({ceiling:.2f}) and a map that knows nothing ({blind},
    {floor:.2f}) cannot be told apart by what comes first, so this says nothing.
more: More images may tell them apart.
found: It lights up the places of {first}: {finds:.0 %} of the way from a map that knows nothing ({other}) to the exact
    answer. But which of these places count more cannot be read from it: {share:.0 %} (from {safe:.0 %} on it passes).
nan: Its maps, or the model's outputs, hold NaN, or no place matters, so that nothing can be compared.
fine: It is coarse: one value of its map stands for {pixels:.0f} pixels, and depends on more.
""")


@dataclass(frozen=True)
class Scale:
    """What a map that knows nothing, and the exact answer, score on the images.

    Attributes:
        blind: the best map that knows nothing.
        floor: its mean.
        exact: the exact answer.
        ceiling: its mean.
        apart: whether the two can be told apart.
        unsure: whether more images may tell them apart, or not.
        low: what the map that knows nothing scores on each image; its mean on all where this is empty.
        high: the same of the exact answer.
    """

    blind: str
    floor: float
    exact: str
    ceiling: float
    apart: bool
    unsure: bool = False
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()

    def share(self, values: Sequence[float | None]) -> list[float]:
        r"""Of the way from the one to the other, of each image that was measured.

        Their mean is the ratio of the means, $s = (\bar v - \bar b) / (\bar c - \bar b)$, and they scatter as it does:
        $s + ((v_i - b_i) - s (c_i - b_i)) / (\bar c - \bar b)$, so that an image on which all maps score well is no
        point for any. Single images are cut off a half beyond the two ends.
        """
        low = self.low or [self.floor] * len(values)
        high = self.high or [self.ceiling] * len(values)
        known = [
            (v - b, c - b)
            for v, b, c in zip(values, low, high, strict=False)
            if v is not None and b is not None and c is not None
        ]
        if not known:
            return []
        whole = sum(way for _, way in known) / len(known)
        mean = sum(part for part, _ in known) / len(known) / whole
        each = (mean + (part - mean * way) / whole for part, way in known)
        return [min(max(one, -_FAR), 1 + _FAR) for one in each]


def scale_of(
    order: Order, place: int, found: Mapping[str, Any], known: Sequence[Candidate]
) -> Scale | str:
    """The scale of an order; why there is none, where no control could be measured."""

    def best(some: Sequence[Candidate]) -> tuple[str, list[float | None]]:
        rows = {one.label: found[one.label]["orders"][place] for one in some}
        means = {
            label: mean_of(row) for label, row in rows.items() if any(v is not None for v in row)
        }
        if not means:
            raise CamlucidaError("no control could be measured on this model")
        label = max(means, key=lambda name: means[name])
        return label, rows[label]

    try:
        blind, low = best([one for one in known if one.row.control in {"blind", "unlearned"}])
        exact, high = best([
            one for one in known
            if one.row.control == "exact" and (one.aggregator is not None) == order.margin
        ])  # fmt: skip
    except CamlucidaError as error:
        return str(error)
    pairs = [b - a for a, b in zip(low, high, strict=False) if a is not None and b is not None]
    gap = decided(pairs, least=_APART)
    apart = gap.outcome != "fail" and mean_of(high) - max(mean_of(low), 0.5) >= _APART
    unsure = not apart and gap.outcome == "unclear"
    floor = mean_of(low)
    if floor < 0.5:  # worse than chance
        floor, low = 0.5, [None if v is None else 0.5 for v in low]
    return Scale(blind, floor, exact, mean_of(high), apart, unsure, tuple(low), tuple(high))


def judge(label: str, found: Mapping[str, Any], scales: Sequence[Scale | str]) -> Verdict:
    """The verdict on a method: on its first order, with the other orders and its grain as parts."""
    if "error" in found:
        said = UNEXPLAINED(error=found["error"])
        whole, *others = (Verdict(label, "not tested", said, finding=o.finding) for o in ORDERS)
        return replace(whole, parts=tuple(others))
    rows = list(zip(ROWS, found["orders"], scales, strict=True))
    whole, *others = (
        _judged(label, *row, *finds[1:])
        for row, finds in zip(rows[: len(ORDERS)], rows[len(ORDERS) :], strict=True)
    )
    pixels = float(found["pixels"])
    if pixels > 1:
        said = _SAY["fine"](pixels=pixels)
        others.append(Verdict(label, "fail", said, pixels, 1.0, "pixels per value", finding="fine"))
    return replace(whole, parts=tuple(others))


def _judged(
    label: str,
    order: Order,
    values: Sequence[float | None],
    scale: Scale | str,
    lit: Sequence[float | None],
    lit_scale: Scale | str,
) -> Verdict:
    """The verdict on an order; a map that passes on ``lit``, over all places, is no worse than a caution."""

    def untested(said: str | Sentence) -> Verdict:
        return Verdict(label, "not tested", said, finding=order.finding)

    if isinstance(scale, str):
        return untested(scale)
    if isinstance(lit_scale, str):
        return untested(lit_scale)
    if not scale.apart:
        numbers = {"blind": scale.blind, "floor": scale.floor, "ceiling": scale.ceiling}
        said = _SAY["apart"](**numbers)
        if scale.unsure:
            return Verdict(label, "unclear", (said, _SAY["more"]), finding=order.finding)
        return untested(said)
    shares = scale.share(values)
    if not shares:
        return untested(_SAY["nan"])
    evidence = between(shares, UNSAFE, SAFE)
    kind = "pass" if evidence.value >= SAFE else "fail" if evidence.value <= UNSAFE else "warn"
    finds = between(lit_scale.share(lit), UNSAFE, SAFE) if lit_scale.apart else None
    if finds is not None and finds.outcome == "pass" and evidence.outcome != "pass":
        above = decided(shares, least=SAFE)
        if above.outcome == "fail":
            evidence, kind = replace(above, outcome="warn"), "found"
    said = _SAY[kind].of({
        "first": order.first, "share": evidence.value, "blind": scale.blind, "safe": SAFE, "unsafe": UNSAFE,
        "finds": finds.value if finds else 0.0, "other": lit_scale.blind,
    })  # fmt: skip
    details = {"order": mean_of(values), "floor": scale.floor, "ceiling": scale.ceiling}
    if finds is not None:
        details["lights"] = finds.value
    return Verdict(
        label, evidence.outcome, said, evidence.value, SAFE, _MEASURE, details, order.finding, evidence=evidence
    )  # fmt: skip


_MEASURE = "share of the way from a map that knows nothing to the exact answer"


def mean_of(values: Sequence[float | None]) -> float:
    """The mean of those that are known; NaN where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan
