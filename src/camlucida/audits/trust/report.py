"""What the trust report holds: each method with its answers, and the evidence behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.rules import GRADES, QUESTIONS, Grade, TrustQuestion
from camlucida.audits.trust.choice import Decision, decide, unmet
from camlucida.audits.trust.page import lead, overview, trust_document
from camlucida.audits.verdicts import Outcome
from camlucida.common.version import __version__
from camlucida.report import Table, save


@dataclass(frozen=True)
class Finding:
    """One finding about a method.

    Attributes:
        name: what rules call it.
        audit: which audit found it.
        outcome: as audits say it.
        text: in words.
        value: the number.
        threshold: its bound.
        measure: what the number is.
        interval: ends of its 95 % interval, where it is a mean over images.
        images: how many.
    """

    name: str
    audit: str
    outcome: Outcome
    text: str
    value: float | None = None
    threshold: float | None = None
    measure: str = ""
    interval: tuple[float, float] | None = None
    images: int | None = None


@dataclass(frozen=True)
class Answer:
    """Whether a method can be asked a question.

    Attributes:
        grade: ``"safe"``, ``"with caution"``, ``"not safe"``, ``"not enough to tell"`` where the images do not decide
            it, or ``"not tested"`` where no audit could measure what it takes.
        reasons: why not better, the weightiest first; empty where it is safe.
    """

    grade: Grade
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodTrust:
    """Everything about a method.

    Attributes:
        label: as tables name it.
        answers: by question.
        evidence: every finding.
    """

    label: str
    answers: Mapping[TrustQuestion, Answer]
    evidence: tuple[Finding, ...]

    def finding(self, name: str) -> Finding | None:
        """The finding of a name."""
        return next((e for e in self.evidence if e.name == name), None)

    def why(self) -> tuple[str, ...]:
        """All reasons, each once, the weightiest first."""
        ranked = sorted(self.answers.values(), key=lambda a: -GRADES.index(a.grade))
        return tuple(dict.fromkeys(reason for answer in ranked for reason in answer.reasons))


@dataclass(frozen=True)
class TrustReport:
    """What ``camlucida audit all`` found.

    Attributes:
        model: its name.
        data: what the images are.
        images: how many were used.
        methods: each with its answers.
        audits: what was asked, with everything behind it.
        missing: audits that could not be run, with the reason.
        record: what is needed to run it again.
        controls: the exact answer, and maps that know nothing, judged like the methods.
        left_out: findings that cannot tell these apart on this model, with the reason.
        pictures: for a question, the first photo explained by what to use and by what never to.

    Example:
        >>> report = camlucida.audits.TrustReport("my model", "photos", 1, (), (), {})
        >>> report.advice()[0]
        'Where is the evidence for this class? No method was tested.'
    """

    model: str
    data: str
    images: int
    methods: tuple[MethodTrust, ...]
    audits: tuple[AuditReport, ...]
    missing: Mapping[str, str]
    record: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[MethodTrust, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[TrustQuestion, Illustration] = field(default_factory=dict, repr=False)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """For each question what to use and what never to."""
        return decide(self.methods)

    def unmet(self, demands: Sequence[str]) -> tuple[str, ...]:
        """The demands, such as ``"where:diffgradcam=caution"``, that are not met, in sentences.

        Raises:
            CamlucidaError: a demand cannot be read.
        """
        return unmet(self, demands)

    def graded(self, question: TrustQuestion, grade: Grade) -> tuple[str, ...]:
        """The methods that have a grade for a question."""
        return tuple(m.label for m in self.methods if m.answers[question].grade == grade)

    @property
    def untested(self) -> dict[str, str]:
        """The methods of which no audit could test anything, with the reason."""
        return {
            m.label: m.evidence[0].text
            for m in self.methods
            if m.evidence and all(found.outcome == "not tested" for found in m.evidence)
        }

    def best(self) -> MethodTrust | None:
        """The method that is usable for the most questions, safe for the most of these, and unsafe for the fewest.

        Of several the one that is nearest to the exact answer for the most questions; ``None`` where none is shown to
        be usable for any.
        """
        nearest = [d.use.label for d in self.decisions if d.use is not None]

        def score(method: MethodTrust) -> tuple[int, ...]:
            safe, care, *_, no = (
                sum(a.grade == grade for a in method.answers.values()) for grade in GRADES
            )
            return (safe + care, safe, -no, nearest.count(method.label))

        chosen = max(self.methods, key=score, default=None)
        return None if chosen is None or score(chosen)[0] == 0 else chosen

    def lead(self) -> tuple[str, ...]:
        """What the page says first: the method to use, or what is known instead."""
        return lead(self)

    def advice(self) -> tuple[str, ...]:
        """The report in sentences: for each question, whom to ask."""
        said = []
        for key, question in QUESTIONS.items():
            found = {grade: labels for grade in GRADES if (labels := self.graded(key, grade))}
            parts = [
                f"{grade.capitalize()}: {', '.join(labels)}." for grade, labels in found.items()
            ]
            if list(found) == ["not safe"]:
                parts = ["None of the methods can be trusted with this on this model: all failed."]
            said.append(" ".join((question, *(parts or ["No method was tested."]))))
        return tuple(said)

    def table(self) -> Table:
        """Methods by questions."""
        return overview(self)

    def html(self) -> str:
        """The whole page."""
        return trust_document(self).html()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the audits' own reports, ready for JSON."""
        return {
            "camlucida": __version__,
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "questions": QUESTIONS,
            "methods": [asdict(m) for m in self.methods],
            "controls": [asdict(m) for m in self.controls],
            "left_out": dict(self.left_out),
            "decisions": [
                {
                    "question": d.question,
                    "use": d.use and d.use.label,
                    "because": d.because,
                    "never": d.never and d.never.label,
                    "since": d.since,
                    "so_far": d.so_far,
                }
                for d in self.decisions
            ],
            "audits": [
                {
                    "audit": a.audit,
                    "title": a.title,
                    "summary": a.summary,
                    "file": f"{a.audit}.json",
                }
                for a in self.audits
            ],
            "missing": self.missing,
            "skipped": [{"method": m, "reason": why} for m, why in self.untested.items()],
            "record": self.record,
        }

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write ``trust.html`` and ``trust.json`` and the pages of every audit, each whole or not at all.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        pictures = {one.file("trust"): one.content for one in self.pictures.values()}
        files = save(folder, "trust", self.html(), self.to_dict(), pictures=pictures)
        return (*files, *(file for report in self.audits for file in report.save(folder)))
