"""The page of a trust report: which method answers which question on this model, why, and the numbers behind."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from camlucida.audits.ours import list_audits
from camlucida.audits.rules import GRADES, QUESTIONS, SHORT
from camlucida.audits.sanity.checks import CHECKS
from camlucida.audits.trust.scale import ORDERS
from camlucida.audits.verdicts import ENOUGH, MARKS
from camlucida.report import Document, Section, Table
from camlucida.report.page import answers, bullets, details, facts, paragraph, subheading

if TYPE_CHECKING:
    from camlucida.audits.trust.report import Finding, MethodTrust, TrustReport

_GAP = "\N{NO-BREAK SPACE}"
SIGNS = {
    "safe": f"✓{_GAP}safe",
    "with caution": f"!{_GAP}with{_GAP}caution",
    "not safe": f"✗{_GAP}not{_GAP}safe",
    "not enough to tell": f"?{_GAP}not{_GAP}enough{_GAP}to{_GAP}tell",
    "not tested": f"–{_GAP}not{_GAP}tested",
}
"""Grades in tables: a sign and a word, so that no colour is needed."""

_READ = {
    "with caution": "to be read with caution",
    "not enough to tell": "undecided",
}

_MEANINGS = {
    "safe": "No finding speaks against asking the method this question on this model.",
    "with caution": "Something can mislead a reader who does not know of it; the reasons say what.",
    "not safe": "A check failed without which the map does not answer the question, such as depending on the weights.",
    "not enough to tell": "A check that the question needs was made on too few images, or they do not decide it: its "
    "interval meets the bound. More images may.",
    "not tested": "No audit could measure what the question needs.",
}
_MEANT = (
    "What is measured on this model goes before what would be so on another: a check that foretells how a method may "
    "mislead, such as a test wall or shifted logits, counts only where the question itself could not be measured."
)
_DULL = ("usable", "repeat", "single", "state")  # left out of the table where all passed
_STYLE = (
    ".pairs > div { flex: 1 1 30rem; max-width: calc(50% - 1.75rem); } "
    "@media (max-width: 70rem) { .pairs > div { max-width: 100%; } }"
)
_SHOWN = 4  # reasons below a method; the rest is in the numbers


def trust_document(report: TrustReport) -> Document:
    """The whole page."""
    unread = report.record.get("skipped_images") or ()
    skipped = f"; {_images(len(unread))} could not be read" if unread else ""
    grades = [(SIGNS[grade].replace(_GAP, " "), text) for grade, text in _MEANINGS.items()]
    return Document(
        f"Can you trust the maps of {report.model}?",
        report.lead(),
        [
            _decisions(report),
            _questions(report),
            _controls(report),
            _methods(report),
            _numbers(report),
            _audits(report, unread),
            Section(
                "grades",
                "What the grades mean",
                [_folded("In words", [answers(grades), paragraph(_MEANT)])],
            ),
        ],
        facts=(
            ("model", report.model),
            ("images", f"{report.images} of {report.data}{skipped}"),
            ("methods", str(len(report.methods))),
            *_options(report),
            ("audits", str(len(report.audits))),
        ),
        style=_STYLE,
    )


def _options(report: TrustReport) -> list[tuple[str, str]]:
    """The options of methods that this audit chose, which their names do not say."""
    known = report.record.get("methods", {})
    said = [
        f"{label} with {', '.join(f'{k}={v}' for k, v in options.items())}"
        for label, options in known.items()
        if options and ":" not in label
    ]
    return [("chosen by the quick audit", "; ".join(said))] if said else []


def overview(
    report: TrustReport, methods: Sequence[MethodTrust] | None = None, name: str = "trust"
) -> Table:
    """Methods by questions."""
    shown = report.methods if methods is None else methods
    return Table.of_rows(
        name,
        "Which method answers which question",
        ("method", *SHORT.values()),
        [(m.label, *(SIGNS[m.answers[key].grade] for key in QUESTIONS)) for m in shown],
    )


def _titles() -> dict[str, str]:
    """What findings are called in tables."""
    checks = {key: check.title for key, check in CHECKS.items()}
    others = {row.name: row.title.lower() for row in list_audits() if row.name != "sanity"}
    return checks | others | {order.finding: order.title for order in ORDERS}


def numbers(report: TrustReport) -> Table:
    """Methods by findings: outcome and number."""
    titles = _titles()
    found = {m.label: {e.name: e for e in m.evidence if e.name in titles} for m in report.methods}
    every = [e for known in found.values() for e in known.values()]
    dull = {k for k in _DULL if all(e.outcome == "pass" for e in every if e.name == k)}
    keys = [k for k in titles if k not in dull and any(e.name == k for e in every)]

    def cell(evidence: Finding | None) -> str | None:
        if evidence is None:
            return None
        known = evidence.value is not None and evidence.outcome != "not tested"
        return MARKS[evidence.outcome] + (f"{_GAP}{_brief(evidence.value)}" if known else "")

    return Table.of_rows(
        "findings",
        "Every finding",
        ("method", *(titles[k] for k in keys)),
        [(label, *(cell(known.get(k)) for k in keys)) for label, known in found.items()],
        "✓ passed, ! passed with a caution, ✗ failed, ? not enough to tell, – not tested or not promised. What the "
        "numbers are and what they are held against stands below.",
    )


# ------------------------------------------------------------------------------------------- sections


def lead(report: TrustReport) -> tuple[str, ...]:
    """What the report says first, no more than its evidence."""
    everywhere = {
        grade: [m.label for m in report.methods if {a.grade for a in m.answers.values()} == {grade}]
        for grade in GRADES
    }
    counts = {e.images for m in report.methods for e in m.evidence if e.images is not None}
    fewer = ", some checks on fewer" if any(n < report.images for n in counts) else ""
    measured = (
        f"This was measured on {_images(report.images)}{fewer}. Another model or other images can give another answer, "
        "and a method that is safe here can still be misread."
    )
    if report.images < ENOUGH:
        measured = (
            f"{_images(report.images)} cannot decide it: no check is passed or failed on fewer than {ENOUGH}, and what "
            "is called not safe here is so by its formula. Audit more images."
        )
    chosen, never = report.best(), everywhere["not safe"]
    untested = everywhere["not tested"]
    others = [f"Nothing could be measured about {', '.join(untested)}."] if untested else []
    no = [f"Not safe for any question on this model: {', '.join(never)}."] if never else []
    if chosen is None:
        if never and len(never) == len(report.methods):
            no = []
            first = (
                "None of these methods can be trusted on this model: for each question each failed a check that it "
                "needs. Look at the numbers below before you show anybody a map."
            )
        else:
            first = "On this model no method is shown to be usable for any question yet."
            nearest = next((d for d in report.decisions if d.so_far), None)
            if nearest is not None:
                first += f" “{QUESTIONS[nearest.question]}” {nearest.so_far}"
        return (first, *no, *others, measured)
    asked = {
        grade: [text for key, text in QUESTIONS.items() if chosen.answers[key].grade == grade]
        for grade in GRADES
    }
    said = (
        f"If you use one method on this model, use {chosen.label}: it is "
        if asked["safe"]
        else f"No method is shown to be safe without reservation on this model. {chosen.label} has the fewest "
        "objections: it is "
    )
    total = len(QUESTIONS)
    parts = [
        f"{_READ.get(grade, grade)} for {len(texts)} of the {total} questions ({_listed([f'“{t}”' for t in texts])})"
        for grade, texts in asked.items()
        if texts
    ]
    return (f"{said}{_listed(parts)}.", *no, *others, measured)


def _decisions(report: TrustReport) -> Section:
    """For each question what to use and what never to, with the photo; two beside each other."""
    drawn = []
    for decision in report.decisions:
        use, never = decision.use, decision.never
        none = "none yet: no method is shown to answer it on this model."
        said = [("Use", f"{none} {decision.so_far}".strip())]
        if use is not None:
            sign = SIGNS[use.answers[decision.question].grade]
            said = [(f"Use {use.label}: {sign}", decision.because)]
        if never is not None:
            said.append((f"Never {never.label}", decision.since))
        shown = report.pictures.get(decision.question)
        parts = (
            subheading(QUESTIONS[decision.question]),
            answers(said),
            shown.html() if shown else "",
        )
        drawn.append(f"<div>{''.join(parts)}</div>")
    rows = [
        f'<div class="tables pairs">{"".join(drawn[k : k + 2])}</div>'
        for k in range(0, len(drawn), 2)
    ]
    return Section("decisions", "What to use", rows)


def _questions(report: TrustReport) -> Section:
    pairs = [
        (f"{question} ({SHORT[key]})", text.removeprefix(question).strip())
        for (key, question), text in zip(QUESTIONS.items(), report.advice(), strict=True)
    ]
    told = details("The same in words", answers(pairs))
    return Section("questions", "Every method and question", [overview(report), told])


def _controls(report: TrustReport) -> Section:
    """What must pass, what must not, and the checks that could not tell the two apart."""
    table = overview(report, report.controls, "controls")
    titles = _titles()
    out = [f"{titles.get(name, name)}: {why}" for name, why in report.left_out.items()]
    parts: list[str | Table] = [_folded("How the controls came out", [table])]
    if out:
        parts += [
            subheading("Left out of the grades: they cannot tell the controls apart here"),
            bullets(out),
        ]
    return Section(
        "controls",
        "The checks on trial",
        parts,
        lead="The exact answer, found by hiding places, must pass; maps that know nothing of what the model has "
        "learned must not. Exact answers are for one question each: for the score, or for the margin.",
    )


def _methods(report: TrustReport) -> Section:
    parts: list[str | Table] = []
    order = sorted(
        report.methods, key=lambda m: sum(GRADES.index(a.grade) for a in m.answers.values())
    )
    for method in order:
        parts.append(subheading(method.label))
        parts.append(facts([(SHORT[k], SIGNS[method.answers[k].grade]) for k in QUESTIONS]))
        why = method.why()
        if not why:
            parts.append(paragraph("Passed everything that was tested."))
        else:
            parts.append(bullets(why[:_SHOWN]))
        if len(why) > _SHOWN:
            parts.append(details(f"{len(why) - _SHOWN} more", bullets(why[_SHOWN:])))
    return Section(
        "methods",
        "Method by method",
        [_folded("What speaks against each method", parts)],
        lead="From the most to the least trustworthy on this model; below the grades, what speaks against it, the "
        "weightiest first.",
    )


def _numbers(report: TrustReport) -> Section:
    seen: dict[str, tuple[str, str]] = {}
    titles = _titles()
    for e in (e for method in report.methods for e in method.evidence):
        if e.name in titles and e.measure and e.name not in seen:
            bound = "" if e.threshold is None else f"; bound {_brief(e.threshold)}"
            if e.name in CHECKS:
                bound = f". {CHECKS[e.name].bound}"
            seen[e.name] = (titles[e.name], f"{e.measure[0].upper()}{e.measure[1:]}{bound}")
    pairs = [seen[k] for k in titles if k in seen]
    return Section(
        "numbers",
        "The numbers",
        [_folded("Every finding, and what the numbers are", [numbers(report), answers(pairs)])],
    )


def _audits(report: TrustReport, unread: Sequence[object]) -> Section:
    rows = "".join(
        f'<li><a href="{escape(a.audit, quote=True)}.html">{escape(a.title)}</a>. {escape(a.summary)}</li>'
        for a in report.audits
    )
    parts = [f"<ul>{rows}</ul>"]
    missing = [f"{title}: {why}" for title, why in report.missing.items()]
    for title, lines in (
        ("Not run", missing),
        ("Images that could not be read", list(map(str, unread[:_SHOWN]))),
    ):
        parts += [subheading(title), bullets(lines)] if lines else []
    return Section(
        "audits",
        "The audits behind this",
        parts,
        lead="Each has a page of its own beside this one, with pictures and all its numbers.",
    )


# -------------------------------------------------------------------------------------------- pieces


def _folded(summary: str, parts: Sequence[str | Table]) -> str:
    return details(
        summary, "".join(p.html(sortable=False) if isinstance(p, Table) else p for p in parts)
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _brief(value: float | None) -> str:
    if value is None or abs(value) < 1e-8:
        return "0"
    if 0.001 <= abs(value) < 1000:
        places = 2 if abs(value) >= 0.1 else 3
        return f"{value:.{places}f}".rstrip("0").rstrip(".").replace("-", "−")
    return f"{value:.0e}".replace("-", "−")
