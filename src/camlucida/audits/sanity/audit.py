"""The sanity audit: maps must change when what they explain changes, and stay when nothing does.

Redrawn weights and shuffled labels after Adebayo et al. 2018 (Sanity Checks for Saliency Maps), shifted inputs
after Kindermans et al. 2019 (The (Un)reliability of Saliency Methods), shifted logits, sums that methods promise,
other classes, repetition, batches, and the model's state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch

from camlucida.audits.candidates import Candidate
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.sanity.checks import CHECKS
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
    reproducible,
)
from camlucida.audits.sanity.report import SanityNumbers, report_of
from camlucida.audits.sanity.shuffled_labels import (
    LAYER,
    PREPROCESS,
    TwinPlan,
    train_twins,
    unlearned,
)
from camlucida.audits.sanity.verdicts import results
from camlucida.audits.trial import UNFIT, Trial, grouped
from camlucida.audits.verdicts import ENOUGH
from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import nearest
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.engine.redraw import randomisation_stages
from camlucida.explanation.left_out import reason
from camlucida.explanation.subject import ModelLike

_TWIN_STEPS = 4  # parts of the progress that the two small networks take


def audit_sanity(
    model: ModelLike = "embedded",
    data: AuditData | None = None,
    *,
    independent: bool = False,
    **options: Any,
) -> AuditReport:
    """Check that maps change when the model changes, and stay the same when it does not.

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
    return report_of(
        measure_sanity(Request.of(audit_sanity, model, data, options), independent=independent)
    )


def measure_sanity(request: Request, *, independent: bool = False) -> SanityNumbers:
    """The numbers of :func:`audit_sanity`."""
    tested, quick = request.tested(), request.quick
    trial = request.open(8, 50).ranked()
    for name in request.checks or ():
        if name not in CHECKS:
            raise CamlucidaError(
                f"there is no sanity check {name!r}{nearest(name, list(CHECKS))}; there are: {', '.join(CHECKS)}"
            )
    wanted = {
        check.part or name for name, check in CHECKS.items() if name in (request.checks or CHECKS)
    }
    most = 5 if quick else 12
    # A check for all needs no curve over the layers.
    stages = randomisation_stages(trial.model, trial.inputs, most if request.checks is None else 1)
    record = {
        **request.record(trial),
        "explained_layer": trial.explained_layer,
        "stages": [list(stage) for stage in stages],
    }
    store = request.store(trial, "sanity", stages=record["stages"])
    groups = grouped(tested)
    ahead = _TWIN_STEPS if request.labels and "data" in wanted else 0
    redrawn = len(stages) * (1 + independent) if "parameters" in wanted else 0
    done, total = ahead, ahead + len(groups) * (redrawn + len(wanted - {"parameters", "data"}))

    def learning(what: str, part: float, parts: float) -> None:
        request.say(what, ahead * part / parts, total)

    twins, learned = _twins(groups, trial, request.out, learning) if ahead else ({}, {})
    parts: dict[str, Found] = {"data": learned}
    for group in groups:
        who = group[0].label if len(group) == 1 else f"{len(group)} quick methods"
        some = quick and len(groups[0]) > 1 and group is not groups[0]
        for key, title, compute in _parts(
            trial, group, stages if redrawn else (), wanted, quick, some, independent
        ):
            request.say(f"{who}: {title}", done, total)
            if compute is not None:
                kept = store.value(f"{key}-{[one.key for one in group]}", compute)
                parts.setdefault(key, {}).update(kept)
            done += 1
            request.say(f"{who}: {title}", done, total)
    cascade, alone = (
        {t.label: [parts.get(f"{kind}-{i}", {}).get(t.label) for i in range(len(stages))] for t in tested}
        for kind in ("cascade", "alone")
    )  # fmt: skip
    found = {
        t.label: results(
            t.name,
            {
                "parameters": cascade[t.label][-1] if redrawn else None,
                **{key: values.get(t.label) for key, values in parts.items()},
            },
        )
        for t in tested
    }
    return SanityNumbers(
        tested, stages, cascade, alone if independent else {}, found, twins, record, store.found
    )


# -------------------------------------------------------------------------------------------- pieces


def _parts(
    trial: Trial,
    group: Sequence[Candidate],
    stages: Sequence[Sequence[str]],
    wanted: Collection[str],
    quick: bool,
    some: bool,
    independent: bool,
) -> Iterator[tuple[str, str, Callable[[], Found] | None]]:
    """Everything that is measured about a group of methods: name, title and work, which ``some`` leaves out.

    ``some`` redraws the first and the last stages only and asks no more than classes and behaviour, ``independent``
    redraws each stage alone too.
    """
    few = trial.few(ENOUGH if quick else 8)
    base, exact = cache(lambda: trial.maps(group)), cache(few.exact)
    exactly = cache(lambda: exact().maps(group))

    def redrawn(which: Sequence[str]) -> Found:
        return parameters(trial, group, base(), which)

    names: list[str] = []
    for i, stage in enumerate(stages):
        names += stage
        left_out = some and 0 < i < len(stages) - 1
        for key, title, which in (
            (f"cascade-{i}", f"weights redrawn down to {stage[-1]}", tuple(names)),
            (f"alone-{i}", f"weights of {stage[-1]} redrawn", tuple(stage)),
        )[: 1 + independent]:
            yield key, title, None if left_out else partial(redrawn, which)
    measures: dict[str, tuple[str, Callable[[], Found]]] = {
        "class": ("other class", lambda: other_class(trial, group, base())),
        "behaviour": ("repetition and batches", lambda: behaviour(trial, group, base())),
        "reproducible": ("jittered pixels", lambda: reproducible(trial, group, base())),
        "input shift": ("shifted inputs", lambda: input_shift(exact(), group, exactly())),
        "logit shift": ("shifted logits", lambda: logit_shift(exact(), group, exactly())),
        "completeness": ("sums", lambda: _sums(exact(), group)),
    }
    for key, (title, compute) in measures.items():
        if key in wanted:
            spared = some and key not in {"class", "behaviour"}
            yield (
                key,
                title,
                partial(_guarded, group, partial(_spared, group) if spared else compute),
            )


def _spared(group: Sequence[Candidate]) -> Found:
    """Nothing, and why."""
    why = "a quick audit spares methods of many passes this check; --full makes it"
    return {one.label: {"error": why} for one in group}


def _sums(exact: Trial, group: Sequence[Candidate]) -> Found:
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
