"""Does a map put first what matters to the model? Held against what the model does when places are hidden.

What each place adds is measured on the model itself, in random halves of the image. How well a map puts
the places in that order is a number between what the best map scores that knows nothing of the model, and what the
exact answer scores: both are measured beside the methods, in every run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.candidates import Candidate, controls
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial, grouped
from camlucida.audits.verdicts import (
    ENOUGH,
    UNEXPLAINED,
    Sentence,
    Verdict,
    between,
    by_outcome,
    decided,
    sentences,
)
from camlucida.common.errors import CamlucidaError
from camlucida.engine.maps import normalise, resize
from camlucida.explanation import Explanation
from camlucida.explanation.subject import ModelLike
from camlucida.metrics.order import CELLS, FILLS, Effects, effects, in_order, on_places, tells
from camlucida.report import Column, Table

SAFE, UNSAFE = 0.7, 0.3
"""Share of the way from a map that knows nothing to the exact answer: from the one on a method passes, up to the other
it fails."""

_FAR = 0.5
"""A single image counts no further beyond the two ends, so that one alone does not decide."""

_CHECK = 128
"""Passes of the exact answer that the truth is checked by, on other places and with another fill."""

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

ABOUT = (
    "Half of an image is hidden at a time, drawn anew each time, and what each place adds is measured on the model: to "
    "the score of the class, and to its lead over the other classes. A map that answers a question puts the places in "
    "that order. "
    "The number is 0 for the best of several maps that know nothing of the model (noise, the middle, edges, "
    "brightness, a network with weights drawn anew) and 100 % for the exact answer, found by hiding other places, "
    "another way. The most probable class and the second are both explained."
)

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


def audit_faithfulness(
    model: ModelLike = "embedded", data: AuditData | None = None, **options: Any
) -> AuditReport:
    """Does a map put first what matters to the model?

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: the model is no classifier, a method or layer is unknown, or no image can be read.

    Example:
        >>> report = camlucida.audits.audit_faithfulness(model, images, methods=["saliency"])
        >>> report["saliency"].measure
        'share of the way from a map that knows nothing to the exact answer'
    """
    return faithfulness_audit(Request.of(audit_faithfulness, model, data, options))


def faithfulness_audit(request: Request) -> AuditReport:
    """The audit as it is asked; see :func:`audit_faithfulness`.

    Images are added, so many at a time, until the verdict on every method is decided or there are no more.
    """
    tested = request.tested()
    judges = tuple(c for c in controls(quick=request.quick, margins=True) if c not in tested)
    trial = request.open(2 * ENOUGH, 100).ranked()
    store = request.store(trial, "faithfulness", cells=CELLS, fills=list(FILLS))
    found: dict[str, dict[str, Any]] = {}
    left, total = [*tested], len(trial.inputs)
    scales: tuple[Scale | str, ...] = ()
    places: dict[str, list[float]] = {}
    for start in range(0, total, ENOUGH):
        part = trial.part(start, start + ENOUGH)
        measured, adds = _block(
            part, [*left, *judges], store, start, partial(_say, request, start, total)
        )
        places = places or {k: v[0].tolist() for k, v in vars(adds[0]).items()}
        for label, one in measured.items():
            _add(found.setdefault(label, {"orders": [[] for _ in _ROWS]}), one)
        scales = tuple(_scale(order, i, found, (*judges, *tested)) for i, order in enumerate(_ROWS))
        left = [one for one in left if _open(judge(one.label, found[one.label], scales))]
        if not left:
            break
    request.say("hiding and showing places", 1, 1)
    verdicts = tuple(judge(one.label, found[one.label], scales) for one in (*tested, *judges))
    ours = by_outcome(v for v in verdicts if v.subject in {one.label for one in tested})
    unclear = ours["unclear"]
    return AuditReport(
        "faithfulness",
        f"Faithfulness on {trial.name}",
        ABOUT,
        f"{len(ours['pass'])} of {len(tested)} methods put first what raises the score of the class, on "
        f"{_most(found)} images at most{f'; for {len(unclear)} this is not enough to tell' if unclear else ''}.",
        verdicts,
        (_table(verdicts, {one.label for one in judges}),),
        record={
            "cells": CELLS,
            "images": _most(found),
            "measured": found,
            "places": places,
            "scales": [one if isinstance(one, str) else vars(one) for one in scales],
            "seed": request.seed,
            "resumed_parts": store.found,
        },
    )


# ------------------------------------------------------------------------------------------- measuring


_ROWS = (*ORDERS, *ORDERS)
"""What is kept of each image: how a map orders the places, and below how it tells those that count from the others."""


def orders(explanation: Explanation, effect: Effects, cells: int = CELLS) -> Tensor:
    """How well maps put places in each of the orders, ``(8, N)``; 0.5 is chance, 1 the very order.

    First the worse of the order over all places and of that among those that are lit or count; then that over all
    places alone, which a map reaches nearly that lights up what counts, whatever counts more.

    What drops negative evidence is read as it is shown; of other maps, the score depends on what is far from 0.
    """
    size = (int(explanation.maps.shape[1]), int(explanation.maps.shape[2]))
    signed = resize(explanation.signed.abs(), size)
    seen = on_places(explanation.maps, cells)
    either = seen if explanation.method.steps.rectify else on_places(signed, cells)
    return _in_orders(seen, either, effect)


def _in_orders(seen: Tensor, either: Tensor, effect: Effects) -> Tensor:
    own, margin, size = effect.own.clamp_min(0), effect.margin.clamp_min(0), effect.own.abs()
    against = in_order(either, -effect.own.clamp_max(0), effect.own <= 0)
    return torch.stack([
        tells(seen, own), tells(seen, margin, effect.own), tells(either, size), against,
        in_order(seen, own), in_order(seen, margin), in_order(either, size), against,
    ])  # fmt: skip


def _block(
    part: Trial, tested: Sequence[Candidate], store: Any, start: int, say: Any
) -> tuple[dict[str, Any], list[Effects]]:
    """Of some images: of each method its orders, or why there are none; and the effects of their places."""
    assert part.classes is not None and part.rivals is not None  # noqa: S101, PT018
    asked = torch.stack([part.classes, part.rivals], 1)
    say("hiding and showing places", 0.0)

    def measure() -> dict[str, Tensor]:
        adds = effects(part.model, part.inputs, asked, batch_size=part.batch_size)
        return {f"{k}-{i}": v for i, one in enumerate(adds) for k, v in vars(one).items()}

    kept = store.tensors(f"effects-{start}", measure)
    adds = [Effects(kept[f"own-{i}"], kept[f"margin-{i}"]) for i in range(2)]
    hiding = [c for c in tested if c.row.control == "exact" and c.row.explains == "input"]
    kept_key = f"hiding-{start}-{[one.key for one in hiding]}"
    found: dict[str, Any] = store.value(kept_key, partial(_by_hiding, part, asked, hiding, adds))
    rest = [one for one in tested if one not in hiding]
    plain = grouped([one for one in rest if one.aggregator is None])
    groups = [*plain, *((one,) for one in rest if one.aggregator is not None)]
    for number, group in enumerate(groups):
        name = group[0].label if len(group) == 1 else f"{len(group)} methods"
        say(f"maps by {name}", (1 + number) / (1 + len(groups)))
        key = f"orders-{start}-{[one.key for one in group]}"
        found |= store.value(key, partial(_orders, part, group, adds))
    return found, adds


def _by_hiding(
    part: Trial, asked: Tensor, hiding: Sequence[Candidate], adds: Sequence[Effects]
) -> dict[str, Any]:
    """The orders of the maps that other places and another fill give, for both classes, score and margin at once."""
    found: dict[str, Any] = {}
    made: dict[int, list[Effects]] = {}
    for one in hiding:
        cells = int({**one.row.options, **one.options}["cells"])
        if cells not in made:
            made[cells] = effects(
                part.model,
                part.inputs,
                asked,
                cells=cells,
                fills=("zero",),
                passes=_CHECK,
                batch_size=part.batch_size,
            )
        values = []
        for own, add in zip(made[cells], adds, strict=True):
            flat = own.own if one.aggregator is None else own.margin
            maps = flat.view(-1, cells, cells)
            seen, either = (resize(m, part.size) for m in (normalise(maps), maps.abs()))
            values.append(_in_orders(on_places(seen), on_places(either), add))
        pixels = part.size[0] * part.size[1] / cells**2
        found[one.label] = _row(torch.stack(values), pixels)
    return found


def _row(values: Tensor, pixels: float) -> dict[str, Any]:
    """The mean over both classes, ready for JSON."""
    rows = values.nanmean(0).tolist()
    return {"orders": [[None if math.isnan(v) else v for v in r] for r in rows], "pixels": pixels}


def _orders(part: Trial, group: Sequence[Candidate], adds: Sequence[Effects]) -> dict[str, Any]:
    each = [part.maps(group, classes) for classes in (part.classes, part.rivals)]
    found: dict[str, Any] = {}
    for one in group:
        made = [maps[one.label] for maps in each]
        errors = [e for e in made if isinstance(e, str)]
        if errors:
            found[one.label] = {"error": errors[0]}
            continue
        known = [e for e in made if not isinstance(e, str)]
        values = torch.stack([orders(e, add) for e, add in zip(known, adds, strict=True)])
        pixels = known[0].maps[0].numel() / known[0].signed[0].numel()
        found[one.label] = _row(values, pixels)
    return found


def _add(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    found.update({k: v for k, v in more.items() if k != "orders"})
    for row, values in zip(found["orders"], more.get("orders", [[] for _ in _ROWS]), strict=True):
        row.extend(values)


def _say(request: Request, start: int, total: int, what: str, share: float) -> None:
    request.say(
        f"{what}, images {start + 1} to {min(start + ENOUGH, total)}", start + share * ENOUGH, total
    )


# ------------------------------------------------------------------------------------------- verdicts


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


def _scale(
    order: Order, place: int, found: Mapping[str, Any], known: Sequence[Candidate]
) -> Scale | str:
    """The scale of an order; why there is none, where no control could be measured."""

    def best(some: Sequence[Candidate]) -> tuple[str, list[float | None]]:
        rows = {one.label: found[one.label]["orders"][place] for one in some}
        means = {
            label: _mean(row) for label, row in rows.items() if any(v is not None for v in row)
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
    apart = gap.outcome != "fail" and _mean(high) - max(_mean(low), 0.5) >= _APART
    unsure = not apart and gap.outcome == "unclear"
    floor = _mean(low)
    if floor < 0.5:  # worse than chance
        floor, low = 0.5, [None if v is None else 0.5 for v in low]
    return Scale(blind, floor, exact, _mean(high), apart, unsure, tuple(low), tuple(high))


def judge(label: str, found: Mapping[str, Any], scales: Sequence[Scale | str]) -> Verdict:
    """The verdict on a method: on its first order, with the other orders and its grain as parts."""
    if "error" in found:
        said = UNEXPLAINED(error=found["error"])
        whole, *others = (Verdict(label, "not tested", said, finding=o.finding) for o in ORDERS)
        return replace(whole, parts=tuple(others))
    rows = list(zip(_ROWS, found["orders"], scales, strict=True))
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
    details = {"order": _mean(values), "floor": scale.floor, "ceiling": scale.ceiling}
    if finds is not None:
        details["lights"] = finds.value
    return Verdict(
        label, evidence.outcome, said, evidence.value, SAFE, _MEASURE, details, order.finding, evidence=evidence
    )  # fmt: skip


_MEASURE = "share of the way from a map that knows nothing to the exact answer"


def _open(verdict: Verdict) -> bool:
    return any(v.outcome == "unclear" for v in (verdict, *verdict.parts))


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan


def _most(found: Mapping[str, Any]) -> int:
    return max((len(one["orders"][0]) for one in found.values()), default=0)


def _table(verdicts: Sequence[Verdict], judges: set[str]) -> Table:
    def cells(verdict: Verdict) -> tuple[Any, ...]:
        every = {v.finding: v for v in (verdict, *verdict.parts)}
        shares = (every[o.finding].value for o in ORDERS)
        kind = "control" if verdict.subject in judges else "method"
        images = max(
            (v.evidence.images for v in every.values() if v.evidence is not None), default=0
        )
        return (verdict.subject, kind, *shares, images)

    columns: tuple[str | Column, ...] = (
        "map", "kind", *(Column(o.title, "higher", places=2) for o in ORDERS), "images",
    )  # fmt: skip
    note = "0: the best map that knows nothing; 1: the exact answer."
    return Table.of_rows("faithfulness", "What comes first", columns, map(cells, verdicts), note)
