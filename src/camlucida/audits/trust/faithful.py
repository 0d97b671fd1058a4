"""Does a map put first what matters to the model? Held against what the model does when places are hidden.

What each place adds is measured on the model itself, in random halves of the image. How well a map puts
the places in that order is a number between what the best map scores that knows nothing of the model, and what the
exact answer scores: both are measured beside the methods, in every run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.candidates import Candidate, controls
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial, grouped
from camlucida.audits.trust.scale import ORDERS, ROWS, Scale, judge, scale_of
from camlucida.audits.verdicts import (
    ENOUGH,
    Verdict,
    by_outcome,
)
from camlucida.engine.maps import normalise, resize
from camlucida.explanation import Explanation
from camlucida.explanation.subject import ModelLike
from camlucida.metrics.order import CELLS, FILLS, Effects, effects, in_order, on_places, tells
from camlucida.report import Column, Table

_CHECK = 128
"""Passes of the exact answer that the truth is checked by, on other places and with another fill."""

ABOUT = (
    "Half of an image is hidden at a time, drawn anew each time, and what each place adds is measured on the model: to "
    "the score of the class, and to its lead over the other classes. A map that answers a question puts the places in "
    "that order. "
    "The number is 0 for the best of several maps that know nothing of the model (noise, the middle, edges, "
    "brightness, a network with weights drawn anew) and 100 % for the exact answer, found by hiding other places, "
    "another way. The most probable class and the second are both explained."
)


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
            _add(found.setdefault(label, {"orders": [[] for _ in ROWS]}), one)
        scales = tuple(
            scale_of(order, i, found, (*judges, *tested)) for i, order in enumerate(ROWS)
        )
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
    for row, values in zip(found["orders"], more.get("orders", [[] for _ in ROWS]), strict=True):
        row.extend(values)


def _say(request: Request, start: int, total: int, what: str, share: float) -> None:
    request.say(
        f"{what}, images {start + 1} to {min(start + ENOUGH, total)}", start + share * ENOUGH, total
    )


# ------------------------------------------------------------------------------------------- pieces


def _open(verdict: Verdict) -> bool:
    return any(v.outcome == "unclear" for v in (verdict, *verdict.parts))


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
