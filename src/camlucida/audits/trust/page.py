"""The page of a trust report: which method answers which question on this model, why, and the numbers behind."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from camlucida.audits.rules import GRADES, QUESTIONS, SHORT
from camlucida.audits.sanity.checks import CHECKS
from camlucida.report.page import Document, Section, answers, details, facts, paragraph, subheading
from camlucida.report.tables import Cell, Column, Table

if TYPE_CHECKING:
    from camlucida.audits.trust.report import MethodTrust, TrustReport

_GAP = "\N{NO-BREAK SPACE}"
SIGNS = {
    "safe": f"✓{_GAP}safe",
    "with caution": f"!{_GAP}with{_GAP}caution",
    "not safe": f"✗{_GAP}not{_GAP}safe",
    "not tested": f"–{_GAP}not{_GAP}tested",
}
"""Grades in tables: a sign and a word, so that no colour is needed."""

_OUTCOMES = {"pass": "✓", "warn": "!", "fail": "✗", "not tested": "–"}
_TITLES = {
    **{key: check.title for key, check in CHECKS.items()},
    "deadzone": "dead zone",
    "deadzone-pixels": "dead pixels",
    "logit-shift": "logit attack",
    "faithfulness": "faithfulness",
}
_DULL = ("usable", "repeat", "single", "state")  # left out of the table where all passed
_FEW = 5  # images, below which the page says that they are few
_SHOWN = 4  # reasons below a method; the rest is in the numbers


def trust_document(report: TrustReport) -> Document:
    """The whole page."""
    return Document(
        f"Can you trust the maps of {report.model}?",
        _lead(report),
        [
            s
            for s in (
                _questions(report),
                _methods(report),
                _numbers(report),
                _audits(report),
                _grading(),
            )
            if s
        ],
        facts=(
            ("model", report.model),
            ("images", f"{report.images} of {report.data}{_unread(report)}"),
            ("methods", str(len(report.methods))),
            ("audits", str(len(report.audits))),
        ),
    )


def overview(report: TrustReport) -> Table:
    """Methods by questions."""
    return Table(
        "trust",
        "Which method can be asked which of the four questions",
        tuple(Column(text) for text in SHORT.values()),
        tuple(
            (m.label, tuple(Cell(SIGNS[m.answers[key].grade]) for key in QUESTIONS))
            for m in report.methods
        ),
    )


def numbers(report: TrustReport) -> Table:
    """Methods by findings: outcome and number."""
    found = [e for m in report.methods for e in m.evidence]
    dull = {k for k in _DULL if all(e.outcome == "pass" for e in found if e.name == k)}
    keys = [k for k in _TITLES if k not in dull and any(e.name == k for e in found)]

    def cell(method: MethodTrust, key: str) -> Cell:
        e = next((e for e in method.evidence if e.name == key), None)
        if e is None:
            return Cell()
        value = "" if e.value is None or e.outcome == "not tested" else f"{_GAP}{_brief(e.value)}"
        return Cell(f"{_OUTCOMES[e.outcome]}{value}")

    return Table(
        "findings",
        "Every finding",
        tuple(Column(_TITLES[k]) for k in keys),
        tuple((m.label, tuple(cell(m, k) for k in keys)) for m in report.methods),
        legend="✓ passed, ! passed with a caution, ✗ failed, – not tested or not promised. What the numbers are and "
        "what they are held against stands below.",
    )


# ------------------------------------------------------------------------------------------- sections


def _lead(report: TrustReport) -> list[str]:
    chosen = report.best()
    total = len(QUESTIONS)
    if chosen is None:
        first = (
            "None of these methods can be trusted on this model: for no question did one of them pass what the "
            "question needs. Look at the numbers below before you show anybody a map."
        )
        return [first, *_untested(report)]
    safe = [q for k, q in QUESTIONS.items() if chosen.answers[k].grade == "safe"]
    care = [q for k, q in QUESTIONS.items() if chosen.answers[k].grade == "with caution"]
    said = (
        f"If you use one method on this model, use {chosen.label}: it is "
        if safe
        else "No method is safe without reservation on this model. The least is to be said against "
        f"{chosen.label}: it is "
    )
    parts = []
    if safe:
        parts.append(f"safe for {_count(len(safe), total)} ({_quoted(safe)})")
    if care:
        parts.append(f"to be read with caution for {_count(len(care), total)} ({_quoted(care)})")
    left = total - len(safe) - len(care)
    if left:
        parts.append(f"not safe for {_count(left, total)}")
    said += ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] + "."
    never = [
        m.label for m in report.methods if all(a.grade == "not safe" for a in m.answers.values())
    ]
    found = [said]
    if never:
        found.append(f"Not safe for any question on this model: {', '.join(never)}.")
    found += _untested(report)
    found.append(
        f"This was measured on {_images(report.images)}. Another model or other images can give another answer, and "
        "a method that is safe here can still be misread."
    )
    if report.images < _FEW:
        found.append(
            "So few images say little: look at the numbers, and audit more images if you can."
        )
    return found


def _untested(report: TrustReport) -> list[str]:
    """The methods about which nothing could be measured."""
    none = [
        m.label for m in report.methods if all(a.grade == "not tested" for a in m.answers.values())
    ]
    return [f"Nothing could be measured about {', '.join(none)}."] if none else []


def _questions(report: TrustReport) -> Section:
    pairs = [
        (f"{question} ({SHORT[key]})", text.removeprefix(question).strip())
        for (key, question), text in zip(QUESTIONS.items(), report.advice(), strict=True)
    ]
    return Section("questions", "Question by question", [answers(pairs), overview(report)])


def _methods(report: TrustReport) -> Section:
    parts: list[str | Table] = []
    order = sorted(
        report.methods, key=lambda m: sum(GRADES.index(a.grade) for a in m.answers.values())
    )
    for method in order:
        parts.append(subheading(method.label))
        parts.append(facts([(SHORT[k], SIGNS[method.answers[k].grade]) for k in QUESTIONS]))
        why = method.why()
        if why:
            parts.append(_bullets(why[:_SHOWN]))
            if len(why) > _SHOWN:
                parts.append(details(f"{len(why) - _SHOWN} more", _bullets(why[_SHOWN:])))
        else:
            parts.append(paragraph("Passed everything that was tested."))
    return Section(
        "methods",
        "Method by method",
        parts,
        lead="From the most to the least trustworthy on this model; below the grades, what speaks against it, the "
        "weightiest first.",
    )


def _numbers(report: TrustReport) -> Section:
    seen: dict[str, tuple[str, str]] = {}
    for method in report.methods:
        for e in method.evidence:
            if e.name in _TITLES and e.measure and e.name not in seen:
                bound = "" if e.threshold is None else f"; bound {_brief(e.threshold)}"
                if e.name in CHECKS:
                    bound = f". {CHECKS[e.name].bound}"
                seen[e.name] = (_TITLES[e.name], f"{e.measure[0].upper()}{e.measure[1:]}{bound}")
    pairs = [seen[k] for k in _TITLES if k in seen]
    return Section(
        "numbers", "The numbers", [numbers(report), details("What the numbers are", answers(pairs))]
    )


def _audits(report: TrustReport) -> Section:
    rows = "".join(
        f'<li><a href="{escape(a.audit, quote=True)}.html">{escape(a.title)}</a>. {escape(a.summary)}</li>'
        for a in report.audits
    )
    parts: list[str | Table] = [f"<ul>{rows}</ul>"]
    if report.missing:
        parts.append(subheading("Not run"))
        parts.append(_bullets([f"{title}: {why}" for title, why in report.missing.items()]))
    if unread := report.record.get("skipped_images"):
        parts.append(subheading("Images that could not be read"))
        parts.append(_bullets([str(one) for one in unread[:_SHOWN]]))
    return Section(
        "audits",
        "The audits behind this",
        parts,
        lead="Each has a page of its own beside this one, with pictures and all its numbers.",
    )


def _grading() -> Section:
    pairs = [
        ("✓ safe", "No finding speaks against asking the method this question on this model."),
        (
            "! with caution",
            "Something can mislead a reader who does not know of it; the reasons say what.",
        ),
        (
            "✗ not safe",
            "A check failed without which the map does not answer the question, such as depending on the weights.",
        ),
        ("– not tested", "No audit could measure anything about the method on this model."),
    ]
    text = (
        "A method that explains one class's score lets itself be moved by what all classes share: that does no harm "
        "to “where”, but “why this class and not another” needs a method that does not move."
    )
    return Section("grades", "What the grades mean", [answers(pairs), paragraph(text)])


# -------------------------------------------------------------------------------------------- pieces


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _unread(report: TrustReport) -> str:
    """What could not be read, for the line that says how many images were used."""
    unread = report.record.get("skipped_images") or ()
    return f"; {_images(len(unread))} could not be read" if unread else ""


def _bullets(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _quoted(questions: Sequence[str]) -> str:
    quoted = [f"“{q}”" for q in questions]
    return ", ".join(quoted[:-1]) + (" and " if len(quoted) > 1 else "") + quoted[-1]


def _count(number: int, total: int) -> str:
    return f"{number} of the {total} questions"


def _brief(value: float) -> str:
    if abs(value) < 1e-8:
        return "0"
    if 0.001 <= abs(value) < 1000:
        places = 2 if abs(value) >= 0.1 else 3
        return f"{value:.{places}f}".rstrip("0").rstrip(".").replace("-", "−")
    return f"{value:.0e}".replace("-", "−")
