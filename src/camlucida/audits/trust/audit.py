"""One trust report: which methods are safe on this model for which question, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from camlucida.audits.candidates import Candidate, controls
from camlucida.audits.ours import list_audits
from camlucida.audits.registry import AUDITS, AuditRow
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.rules import GRADES, NATURE, QUESTIONS, Grade, TrustQuestion, TrustRule
from camlucida.audits.sanity.checks import CHECKS
from camlucida.audits.trust.choice import decide, illustrate
from camlucida.audits.trust.report import Answer, Finding, MethodTrust, TrustReport
from camlucida.audits.verdicts import ENOUGH, Verdict
from camlucida.common.errors import CamlucidaError
from camlucida.explanation.left_out import reason
from camlucida.explanation.subject import ModelLike

NATURAL = "registry"
"""Where evidence comes from that follows from what a method is."""


def judged(
    tested: Candidate, evidence: Sequence[Finding], rules: Sequence[TrustRule] | None = None
) -> MethodTrust:
    """Grades for every question; the rules are by default those of all audits and of what methods are."""
    known = {e.name: e for e in evidence}
    if not any(e.audit != NATURAL and e.outcome != "not tested" for e in evidence):
        said = dict.fromkeys(e.text for e in evidence if e.audit != NATURAL and e.text)
        none = Answer("not tested", tuple(said) or ("No audit could measure anything about it.",))
        return MethodTrust(tested.label, dict.fromkeys(QUESTIONS, none), tuple(evidence))
    outcomes = {e.name: e.outcome for e in evidence}
    proved: dict[TrustQuestion, list[tuple[Grade, str]]] = {question: [] for question in QUESTIONS}
    possible: dict[TrustQuestion, list[tuple[Grade, str]]] = {
        question: [] for question in QUESTIONS
    }
    for rule in all_rules() if rules is None else rules:
        for name in rule.applies(outcomes):
            own = known[name].text if name in known else ""
            # Why it was not tested is said where the audit that tried it knows.
            text = (
                f"{rule.because} {own}".strip()
                if rule.when == "not tested"
                else rule.because or own
            )
            kept = possible if outcomes.get(name) == "unclear" else proved
            for question in rule.questions:
                kept[question].append((rule.grade, text))
    answers = {q: _answer(proved[q], possible[q]) for q in QUESTIONS}
    return MethodTrust(tested.label, answers, tuple(evidence))


def _answer(proved: Sequence[tuple[Grade, str]], possible: Sequence[tuple[Grade, str]]) -> Answer:
    """The worst grade that is proved; not enough to tell where what is unclear could make it worse."""
    ranked = sorted(proved, key=lambda pair: -GRADES.index(pair[0]))
    grade = ranked[0][0] if ranked else GRADES[0]
    worse = [pair for pair in possible if GRADES.index(pair[0]) > GRADES.index(grade)]
    worse.sort(key=lambda pair: -GRADES.index(pair[0]))
    texts = [text for _, text in (*worse, *ranked) if text]
    return Answer("not enough to tell" if worse else grade, tuple(dict.fromkeys(texts)))


def all_rules() -> tuple[TrustRule, ...]:
    """What every finding means: of what methods are, and of all registered audits."""
    return (*NATURE, *(rule for row in list_audits() for rule in row.rules))


def gather(
    tested: Candidate,
    found: Sequence[tuple[AuditRow, AuditReport]],
) -> tuple[Finding, ...]:
    """All that the audits, and the registry, say of a method."""
    evidence = [*_nature(tested)]
    for row, report in found:
        subject = row.subject(tested) if tested.aggregator is None else tested.label
        for verdict in (v for v in report.verdicts if v.subject == subject):
            evidence += _evidence(row, tested, verdict)
    return tuple(evidence)


def _evidence(row: AuditRow, tested: Candidate, verdict: Verdict) -> Iterator[Finding]:
    """A verdict and all that it is made of."""
    text = verdict.text if verdict.value is None else f"{row.preface}{verdict.text}"
    if row.is_usual(tested):
        text += f" Measured with the usual options of {tested.name}."
    known = verdict.evidence
    yield Finding(
        verdict.finding or row.name, row.name, verdict.outcome, text, verdict.value, verdict.threshold,
        verdict.measure, None if known is None else (known.low, known.high), None if known is None else known.images,
    )  # fmt: skip
    for part in verdict.parts:
        yield from _evidence(row, tested, part)


_NO_CLASS = "Its map is the same whichever class is asked about: it shows what stands out, not evidence for a class."
_ONE_SIGN = "It drops evidence against the class, so a dark place may have been looked at and have counted against it."


def _nature(tested: Candidate) -> Iterator[Finding]:
    """What follows from what the method is."""
    row = tested.row
    method = row.make(**{k: v for k, v in tested.options.items() if k in row.options})
    for name, text, holds in (
        ("claims a class", _NO_CLASS, not row.discriminative),
        ("shows both signs", _ONE_SIGN, method.steps.rectify),
    ):
        if holds:
            yield Finding(name, NATURAL, "fail", text)


def audit_all(
    model: ModelLike = "embedded",
    data: AuditData | None = None,
    *,
    audits: Sequence[str] | str | None = None,
    **options: Any,
) -> TrustReport:
    """Which methods are safe on this model, for which question, and why?

    Every audit that fits any classifier is asked about every method. One that cannot be run, or breaks, is left out
    and named in the report; a stopped run goes on where it was. Nothing but finished parts is written;
    :meth:`TrustReport.save` writes the report, so that a stopped run never leaves new pages beside an old report.

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`.
        audits: names of these audits only, see :func:`camlucida.audits.list_audits`.
        **options: the other fields of :class:`camlucida.audits.Request`, such as ``methods``.

    Raises:
        CamlucidaError: the model is no classifier, a method, layer or audit is unknown, no image can be read, or
            no audit can be run.

    Example:
        >>> report = camlucida.audits.audit_all(model, images, audits=["faithfulness"], methods=["gradcam"])
        >>> [method.label for method in report.methods]
        ['gradcam']
    """
    request = Request.of(audit_all, model, data, options)
    chosen = [audits] if isinstance(audits, str) else audits
    wanted = [AUDITS[name].name for name in chosen or AUDITS.names]
    rows = [row for row in list_audits() if row.name in wanted]
    tested = request.tested()
    trial = request.open(2 * ENOUGH, 100)
    trial.few(1).ranked()  # a model without classes is refused before anything is done
    judges = tuple(one for one in controls(quick=request.quick, margins=True) if one not in tested)
    found: list[tuple[AuditRow, AuditReport]] = []
    held: list[tuple[AuditRow, AuditReport]] = []
    missing: dict[str, str] = {}
    reached = 0.0
    checks = request.checks
    if checks is None and request.quick:
        checks = tuple(name for name, check in CHECKS.items() if check.brief)
    for number, row in enumerate(rows):

        def told(
            what: str, done: float, total: float, row: AuditRow = row, number: int = number
        ) -> None:
            nonlocal reached
            share = number + min(done / total if total else 0.0, 1.0)
            reached = max(reached, share)  # an audit may count its parts one after the other
            request.say(f"{row.title}: {what}", 100 * reached, 100 * len(rows))

        told("starting", 0, 1)
        most = row.images[0 if request.quick else 1] if row.images else len(trial.inputs)
        count = min(len(trial.inputs), most)
        try:
            asked = request.but(trial, methods=tested, count=count, say=told, checks=checks)
            report = row.make(asked)
            known = {v.subject for v in report.verdicts}
            if row.catches and any(row.subject(one) not in known for one in judges):
                held.append((row, _on_controls(row, request.but(trial, count=count), judges)))
            else:
                held.append((row, report))
        except (CamlucidaError, ImportError) as error:
            missing[row.title] = str(error)
        except torch.OutOfMemoryError:
            raise  # a smaller batch helps, and the command says so
        except Exception as error:
            # One audit that does not fit the model must not take the others with it.
            missing[row.title] = f"it broke on this model ({reason(error)})"
        else:
            found.append((row, report))
    if not found:
        reasons = "; ".join(f"{title}: {why}" for title, why in missing.items())
        raise CamlucidaError(f"no audit could be run. {reasons}")
    record = {
        **request.record(trial),
        "methods": {t.label: dict(t.options) for t in tested},
        "batch_size": request.batch_size,
        "skipped_images": trial.images["skipped"],
        "resumed_parts": sum(int(r.record.get("resumed_parts", 0)) for _, r in found),
    }
    told_nothing = left_out(judges, held)
    rules = tuple(rule for rule in all_rules() if not {rule.finding} & told_nothing.keys())
    methods = tuple(judged(one, gather(one, found), rules) for one in tested)
    places: dict[str, Any] = next(
        (r.record["places"] for _, r in found if "places" in r.record), {}
    )
    return TrustReport(
        trial.name,
        trial.images.get("name", "your images"),
        len(trial.inputs),
        methods,
        tuple(report for _, report in found),
        missing,
        record,
        tuple(_judged_control(one, gather(one, held), rules) for one in judges),
        told_nothing,
        illustrate(trial, tested, decide(methods), places),
    )


def left_out(
    judges: Sequence[Candidate], held: Sequence[tuple[AuditRow, AuditReport]]
) -> dict[str, str]:
    """The findings that cannot tell what is right from what knows nothing on this model, and why."""
    found: dict[str, str] = {}
    for one in judges:
        for finding in gather(one, held):
            row = next((row for row, _ in held if row.name == finding.audit), None)
            if row is None or finding.name not in row.catches:
                continue
            if one.row.control == "exact" and finding.outcome == "fail":
                found[finding.name] = f"the exact answer ({one.label}) fails it: {finding.text}"
            elif one.row.control == "blind" and finding.outcome == "pass":
                found[finding.name] = f"{one.label} passes it, which knows nothing of the model"
    return found


def _on_controls(row: AuditRow, request: Request, judges: Sequence[Candidate]) -> AuditReport:
    """What an audit says of the controls of a few passes; nothing where it cannot be asked about them."""
    few = [
        one
        for one in judges
        if one.aggregator is None and not (one.row.cost.times and one.row.cost.forward)
    ]
    try:
        return row.make(replace(request, methods=few, checks=row.catches, say=lambda *_: None))
    except CamlucidaError:
        return AuditReport(row.name, row.title, "", "")


def _judged_control(
    one: Candidate, evidence: Sequence[Finding], rules: Sequence[TrustRule]
) -> MethodTrust:
    """Of a control, what was not tested does not count: the exact answer needs no test."""
    return judged(one, evidence, [rule for rule in rules if rule.when != "not tested"])
