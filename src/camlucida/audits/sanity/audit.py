"""The sanity audit: maps must change when what they explain changes, and stay when nothing does.

Redrawn weights and shuffled labels after Adebayo et al. 2018 (Sanity Checks for Saliency Maps), shifted inputs
after Kindermans et al. 2019 (The (Un)reliability of Saliency Methods), shifted logits, sums that methods promise,
other classes, repetition, batches, and the model's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.report import AuditReport
from camlucida.audits.request import Data, Request
from camlucida.audits.sanity.completeness import completeness
from camlucida.audits.sanity.measures import (
    Found,
    alike,
    behaviour,
    compared,
    input_shift,
    logit_shift,
    other_class,
    parameters,
)
from camlucida.audits.sanity.models import randomisation_stages
from camlucida.audits.sanity.report import Measured, report_of
from camlucida.audits.sanity.shuffled_labels import (
    LAYER,
    PREPROCESS,
    TwinPlan,
    train_twins,
    unlearned,
)
from camlucida.audits.sanity.verdicts import results
from camlucida.audits.trial import UNFIT, Trial, grouped, reason
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.explanation import Explanation
from camlucida.models import LoadedModel

_TWIN_STEPS = 4  # parts of the progress that the two small networks take


def audit_sanity(
    model: nn.Module | LoadedModel, data: Data, *, independent: bool = False, **options: Any
) -> AuditReport:
    """Does a map change when the model changes, and only then?

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`.
        independent: redraw each group of weights alone too.
        **options: the other fields of :class:`camlucida.audits.Request`, such as ``methods``.

    Raises:
        CamlucidaError: the model is no classifier, a method or layer is unknown, or no image can be read.

    Example:
        >>> report = camlucida.audits.audit_sanity(model, images, methods=["gradcam"], labels=False)
        >>> sorted(report["gradcam"].details)[:3]
        ['class', 'completeness', 'data']
    """
    return report_of(measure_sanity(Request(model, data, **options), independent=independent))


def measure_sanity(request: Request, *, independent: bool = False) -> Measured:
    """The numbers of :func:`audit_sanity`."""
    tested, quick = request.tested(), request.quick
    trial = request.open(8, 50).ranked()
    stages = randomisation_stages(trial.model, trial.inputs, 5 if quick else 12)
    record = {
        **request.record(trial),
        "explained_layer": trial.explained_layer,
        "stages": [list(stage) for stage in stages],
    }
    store = request.store(trial, "sanity", stages=record["stages"])
    groups = grouped(tested)
    total = len(groups) * (len(stages) + 5) + (_TWIN_STEPS if request.labels else 0)
    twins: dict[str, float] = {}
    learned: Found = {}
    if request.labels:
        twins, learned = _twins(
            groups, trial, request.folder,
            lambda what, done, parts: request.say(what, _TWIN_STEPS * done / parts, total),
        )  # fmt: skip
    work = _Work(trial, stages, store, request, total, _TWIN_STEPS if request.labels else 0)
    parts: dict[str, _Parts] = {}
    for group in groups:
        heavy = len(groups[0]) > 1 and group is not groups[0]
        made = work.parts(group, some=quick and heavy, independent=independent)
        parts |= {one.label: made for one in group}
    cascade = {t.label: [s and s[t.label] for s in parts[t.label].cascade] for t in tested}
    alone = {t.label: [s[t.label] for s in parts[t.label].alone] for t in tested}
    found = {
        t.label: results(
            t.name,
            {
                "parameters": cascade[t.label][-1],
                "data": learned.get(t.label),
                **{key: values.get(t.label) for key, values in parts[t.label].others.items()},
            },
        )
        for t in tested
    }
    if not independent:
        alone = {}
    return Measured(tested, stages, cascade, alone, found, twins, record, store.found)


# -------------------------------------------------------------------------------------------- pieces


@dataclass
class _Parts:
    cascade: list[Found | None]
    alone: list[Found]
    others: dict[str, Found]


@dataclass
class _Work:
    """Measures, part by part, what has not been measured before; ``done`` of ``total`` parts are behind it."""

    trial: Trial
    stages: Sequence[Sequence[str]]
    store: Store
    request: Request
    total: int
    done: int = 0

    def parts(self, group: Sequence[Candidate], *, some: bool, independent: bool) -> _Parts:
        """Everything about a group of methods; ``some`` redraws the first and the last stages only."""
        trial, few = self.trial, self.trial.few(2 if self.request.quick else 8)
        kept: dict[str, Explanation | str] = {}

        def base() -> dict[str, Explanation | str]:
            if not kept:
                kept.update(trial.maps(group))
            return kept

        def redrawn(which: Sequence[str]) -> Found:
            return parameters(trial, group, base(), which)

        names: list[str] = []
        cascade: list[Found | None] = []
        alone: list[Found] = []
        last = len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            names += stage
            if some and 0 < i < last:
                cascade.append(None)
                self.done += 1
                continue
            title = f"weights redrawn down to {stage[-1]}"
            cascade.append(self._part(group, title, f"cascade-{i}", partial(redrawn, tuple(names))))
            if independent:
                self.done -= 1
                title = f"weights of {stage[-1]} redrawn"
                alone.append(self._part(group, title, f"alone-{i}", partial(redrawn, stage)))
        measures: dict[str, tuple[str, Callable[[], Found]]] = {
            "class": ("other class", lambda: other_class(trial, group, base())),
            "behaviour": ("repetition and batches", lambda: behaviour(trial, group, base())),
            "input shift": ("shifted inputs", lambda: input_shift(few, group)),
            "logit shift": ("shifted logits", lambda: logit_shift(few, group)),
            "completeness": ("sums", lambda: _sums(few, group)),
        }
        others = {
            key: self._part(group, title, key, partial(_guarded, group, compute))
            for key, (title, compute) in measures.items()
        }
        return _Parts(cascade, alone, others)

    def _part(
        self, group: Sequence[Candidate], title: str, key: str, compute: Callable[[], Any]
    ) -> Any:
        who = group[0].label if len(group) == 1 else f"{len(group)} quick methods"
        self.request.say(f"{who}: {title}", self.done, self.total)
        found = self.store.value(f"{key}-{[one.key for one in group]}", compute)
        self.done += 1
        self.request.say(f"{who}: {title}", self.done, self.total)
        return found


def _sums(few: Trial, group: Sequence[Candidate]) -> Found:
    exact = few.exact()
    found: Found = {}
    for one in group:
        found |= _guarded([one], partial(_sum, exact, one))
    return found


def _sum(exact: Trial, one: Candidate) -> Found:
    return {one.label: completeness(exact, one)}


def _guarded(group: Sequence[Candidate], compute: Callable[[], Found]) -> Found:
    """A check that does not fit the model, such as double precision that it refuses, is not tested."""
    try:
        return compute()
    except torch.OutOfMemoryError:
        raise
    except UNFIT as error:
        return {one.label: {"error": reason(error)} for one in group}


def _twins(
    groups: Sequence[Sequence[Candidate]], trial: Trial, folder: Any, say: Say
) -> tuple[dict[str, float], Found]:
    """How alike maps are of two networks, of which one learned shuffled labels; and how well both learned."""
    plan = TwinPlan(seed=trial.seed)
    shares: dict[str, float] = {}
    try:
        twins = train_twins(
            max(len(trial.inputs), 8), plan, Store(folder, {"twins": 1}),
            lambda what, done, total: say(what, done / total, 2),
        )  # fmt: skip
        shares = twins.accuracy
        why = unlearned(shares, plan)
    except CamlucidaError as error:
        why = str(error)
    if why:
        return shares, {one.label: {"error": why} for group in groups for one in group}
    found: Found = {}
    for number, group in enumerate(groups):
        say("networks with true and shuffled labels", 1 + number / len(groups), 2)
        true, shuffled = (
            Trial(net, twins.inputs, twins.labels, LAYER, PREPROCESS, plan.seed, trial.batch_size).maps(group)
            for net in (twins.true, twins.shuffled)
        )  # fmt: skip
        found |= compared(true, shuffled, alike)
    return shares, found
