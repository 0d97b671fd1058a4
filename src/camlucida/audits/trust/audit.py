"""One trust report: which methods are safe on this model for which question, and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.registry import AUDITS, AuditRow, list_audits
from camlucida.audits.report import AuditReport
from camlucida.audits.request import Request, Tested
from camlucida.audits.rules import GRADES, NATURE, QUESTIONS, Grade, Question, Rule
from camlucida.audits.sanity.audit import MethodChoice, explained_layer, inputs_of, name_of
from camlucida.audits.sanity.measures import Bench, choose
from camlucida.audits.verdicts import Outcome, Verdict
from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.optional import first_line
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.version import __version__
from camlucida.data.samples import DataSet
from camlucida.engine.layers import list_layers, resolve
from camlucida.explanation.subject import Photo
from camlucida.methods import list_methods, method_row
from camlucida.models import LoadedModel

QUICK = (
    "gradcam", "diffgradcam", "gradcam++", "hirescam", "layercam", "eigencam", "ablationcam",
    "saliency", "inputxgradient", "fullgrad",
)  # fmt: skip
"""What is judged unless told: methods of few passes. ``--full`` judges all that are registered."""

NATURAL = "registry"
"""Where evidence comes from that follows from what a method is."""


@dataclass(frozen=True)
class Evidence:
    """One finding about a method.

    Attributes:
        name: what rules call it.
        audit: which audit found it.
        outcome: as audits say it.
        text: in words.
        value: the number.
        threshold: its bound.
        measure: what the number is.
    """

    name: str
    audit: str
    outcome: Outcome
    text: str
    value: float | None = None
    threshold: float | None = None
    measure: str = ""


@dataclass(frozen=True)
class Answer:
    """Whether a method can be asked a question.

    Attributes:
        grade: ``"safe"``, ``"with caution"``, ``"not safe"``, or ``"not tested"`` where no audit could measure
            anything.
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
    answers: Mapping[Question, Answer]
    evidence: tuple[Evidence, ...]

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
    """

    model: str
    data: str
    images: int
    methods: tuple[MethodTrust, ...]
    audits: tuple[AuditReport, ...]
    missing: Mapping[str, str]
    record: Mapping[str, Any] = field(default_factory=dict)

    def graded(self, question: Question, grade: Grade) -> tuple[str, ...]:
        """The methods that have a grade for a question."""
        return tuple(m.label for m in self.methods if m.answers[question].grade == grade)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the audits' own reports, ready for JSON."""
        return {
            "camlucida": __version__,
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "questions": QUESTIONS,
            "methods": [asdict(m) for m in self.methods],
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
            "record": self.record,
        }

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write ``trust.json`` and the pages of every audit, each whole or not at all.

        Raises:
            CamlucidaError: the folder cannot be written to.
        """
        root = Path(folder)
        files = [write_bytes(root / "trust.json", to_json(self.to_dict()).encode())]
        for report in self.audits:
            files += report.save(root)
        return tuple(files)


def audit_all(
    model: nn.Module | LoadedModel,
    images: DataSet | Tensor | Photo | Sequence[Photo],
    *,
    methods: Sequence[MethodChoice] | None = None,
    names: Sequence[str] | None = None,
    layer: str | None = None,
    count: int | None = None,
    quick: bool = True,
    labels: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> TrustReport:
    """Ask every audit about every method, and say for which questions each is safe on this model.

    An audit that cannot be run, or breaks, is left out and named in the report; a stopped run goes on where it
    was. Nothing but finished parts is written; :meth:`TrustReport.save` writes the report, so that a stopped run
    never leaves new pages beside an old report.

    Args:
        model: any classifier; given back as it was.
        images: photos, a data set, or a tensor that is ready.
        methods: registered names, or pairs of a name and options; :data:`QUICK` by default, all of them unless
            ``quick``.
        names: only these audits.
        layer: the explained layer; the model's last feature map unless told.
        count: images at most; 6 with ``quick``, else 50.
        quick: some minutes on two cores.
        labels: train two small networks for the check with shuffled labels.
        seed: of everything.
        batch_size: images at a time.
        folder: where finished parts are kept.
        say: told about the progress.

    Raises:
        CamlucidaError: the model is no classifier, a method, layer or audit is unknown, no image can be read, or
            no audit can be run.
    """
    tell = say or (lambda *_: None)
    wanted = [AUDITS[name].name for name in names or AUDITS.names]
    rows = [row for row in list_audits() if row.name in wanted]
    given = methods or (QUICK if quick else [m.name for m in list_methods()])
    tested = choose(given, quick=quick)
    module, inputs, preprocess, skipped = inputs_of(model, images, count or (6 if quick else 50))
    Bench.of(module, inputs[:1])  # a model without classes is refused before anything is done
    if layer is not None:
        resolve(module, layer)
    place = None if folder is None else Path(folder)
    data = images.name if isinstance(images, DataSet) else "your images"
    found: list[tuple[AuditRow, AuditReport]] = []
    missing: dict[str, str] = {}
    reached = [0.0]
    for number, row in enumerate(rows):

        def told(
            what: str, done: float, total: float, row: AuditRow = row, number: int = number
        ) -> None:
            share = number + min(done / total if total else 0.0, 1.0)
            reached[0] = max(reached[0], share)  # an audit may count its parts one after the other
            tell(f"{row.title}: {what}", 100 * reached[0], 100 * len(rows))

        told("starting", 0, 1)
        request = Request(
            model, module, name_of(model), inputs, tested, preprocess, layer, quick, seed, batch_size,
            labels, place, told,
        )  # fmt: skip
        try:
            report = row.make(request)
        except (CamlucidaError, ImportError) as error:
            missing[row.title] = str(error)
        except torch.cuda.OutOfMemoryError:
            raise  # a smaller batch helps, and the command says so
        except Exception as error:
            # One audit that does not fit the model must not take the others with it.
            missing[row.title] = (
                f"it broke on this model ({type(error).__name__}: {first_line(error)})"
            )
        else:
            found.append((row, report))
    if not found:
        reasons = "; ".join(f"{title}: {why}" for title, why in missing.items())
        raise CamlucidaError(f"no audit could be run. {reasons}")
    record = {
        "weights_sha256": fingerprint(module),
        "methods": {t.label: dict(t.options) for t in tested},
        "layer": layer,
        "quick": quick,
        "seed": seed,
        "batch_size": batch_size,
        "skipped_images": skipped,
        "resumed_parts": sum(int(r.record.get("resumed_parts", 0)) for _, r in found),
    }
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    cells = _cells(module, inputs, layer)
    return TrustReport(
        name_of(model),
        data,
        len(inputs),
        tuple(judged(one, gather(one, found, size, cells)) for one in tested),
        tuple(report for _, report in found),
        missing,
        record,
    )


# --------------------------------------------------------------------------------------------- judging


def judged(
    tested: Tested, evidence: Sequence[Evidence], rules: Sequence[Rule] | None = None
) -> MethodTrust:
    """Grades for every question.

    Args:
        tested: the method.
        evidence: every finding about it.
        rules: what findings mean; by default those of all registered audits and of what methods are.
    """
    known = {e.name: e for e in evidence}
    if not any(e.audit != NATURAL and e.outcome != "not tested" for e in evidence):
        said = dict.fromkeys(e.text for e in evidence if e.audit != NATURAL and e.text)
        none = Answer("not tested", tuple(said) or ("No audit could measure anything about it.",))
        return MethodTrust(tested.label, dict.fromkeys(QUESTIONS, none), tuple(evidence))
    outcomes = {e.name: e.outcome for e in evidence}
    against: dict[Question, list[tuple[Grade, str]]] = {question: [] for question in QUESTIONS}
    for rule in all_rules() if rules is None else rules:
        for name in rule.applies(outcomes):
            text = rule.because or (known[name].text if name in known else "")
            for question in rule.questions:
                against[question].append((rule.grade, text))
    answers = {}
    for question, found in against.items():
        ranked = sorted(found, key=lambda pair: -GRADES.index(pair[0]))
        grade = ranked[0][0] if ranked else GRADES[0]
        answers[question] = Answer(grade, tuple(dict.fromkeys(text for _, text in ranked if text)))
    return MethodTrust(tested.label, answers, tuple(evidence))


def all_rules() -> tuple[Rule, ...]:
    """What every finding means: of what methods are, and of all registered audits."""
    return (*NATURE, *(rule for row in list_audits() for rule in row.rules))


def gather(
    tested: Tested,
    found: Sequence[tuple[AuditRow, AuditReport]],
    size: tuple[int, int],
    cells: tuple[int, int] | None = None,
) -> tuple[Evidence, ...]:
    """All that the audits, and the registry, say of a method.

    Args:
        tested: the method.
        found: audits with their reports.
        size: height and width of the images.
        cells: height and width of the explained layer's map, where it has one.
    """
    evidence = [*_nature(tested)]
    for row, report in found:
        subject = row.subject(tested)
        for verdict in (v for v in report.verdicts if v.subject == subject):
            evidence += _evidence(row, tested, verdict)
    return (*evidence, *_grain(tested, size, cells))


def _evidence(row: AuditRow, tested: Tested, verdict: Verdict) -> Iterator[Evidence]:
    """A verdict and all that it is made of."""
    text = verdict.text if verdict.value is None else f"{row.preface}{verdict.text}"
    if row.is_usual(tested):
        text += f" Measured with the usual options of {tested.name}."
    yield Evidence(
        verdict.finding or row.name, row.name, verdict.outcome, text, verdict.value, verdict.threshold,
        verdict.measure,
    )  # fmt: skip
    for part in verdict.parts:
        yield from _evidence(row, tested, part)


_NO_CLASS = "Its map is the same whichever class is asked about: it shows what stands out, not evidence for a class."
_NEAR = (
    "It shows what a very small change of a pixel would do; a place that was used can stay dark where more of the same "
    "makes no difference."
)
_ONE_SIGN = "It drops evidence against the class, so a dark place may have been looked at and have counted against it."


def _nature(tested: Tested) -> Iterator[Evidence]:
    """What follows from what the method is."""
    row = method_row(tested.name)
    method = row.make(**{k: v for k, v in tested.options.items() if k in row.options})
    for name, text, holds in (
        ("claims a class", _NO_CLASS, not row.discriminative),
        ("looks far", _NEAR, row.local),
        ("shows both signs", _ONE_SIGN, method.steps.rectify),
    ):
        if holds:
            yield Evidence(name, NATURAL, "fail", text)


def _cells(module: nn.Module, inputs: Tensor, layer: str | None) -> tuple[int, int] | None:
    """Height and width of the explained layer's map; ``None`` where the model has none."""
    name = layer or explained_layer(module, inputs)
    if name is None:
        return None
    seen = list_layers(module, inputs[:1])
    return next((i.shape[1:] for i in seen if i.name == name and i.shape is not None), None)


def _grain(
    tested: Tested, size: tuple[int, int], cells: tuple[int, int] | None
) -> tuple[Evidence, ...]:
    """How many pixels share one value of the map."""
    if cells is None or tested.own_layers:
        return ()
    tall, wide = size[0] / cells[0], size[1] / cells[1]
    if max(tall, wide) <= 1:
        return ()
    text = f"It is coarse: one cell of its map stands for {tall:.0f} x {wide:.0f} pixels, and depends on more."
    return (Evidence("fine", NATURAL, "fail", text, tall * wide, 1.0, "pixels per cell"),)


def advice(report: TrustReport) -> tuple[str, ...]:
    """The report in sentences: for each question, whom to ask."""
    said = []
    for key, question in QUESTIONS.items():
        safe, care = report.graded(key, "safe"), report.graded(key, "with caution")
        no, untested = report.graded(key, "not safe"), report.graded(key, "not tested")
        if safe:
            text = f"Safe: {', '.join(safe)}."
            text += f" With caution: {', '.join(care)}." if care else ""
        elif care:
            text = f"No method is safe without reservation; with caution: {', '.join(care)}."
        else:
            text = "None of the methods can be trusted with this on this model."
        text += f" Not safe: {', '.join(no)}." if no and (safe or care) else ""
        text += f" Not tested: {', '.join(untested)}." if untested else ""
        said.append(f"{question} {text}")
    return tuple(said)


def best(report: TrustReport) -> MethodTrust | None:
    """The method that is usable for the most questions, and safe for the most of these; the first of equals.

    ``None`` where none is usable for any, being not safe or not tested.
    """

    def score(m: MethodTrust) -> tuple[int, int]:
        grades = [a.grade for a in m.answers.values()]
        return (-grades.count("not safe") - grades.count("not tested"), grades.count("safe"))

    chosen = max(report.methods, key=score, default=None)
    if chosen is None or score(chosen)[0] == -len(QUESTIONS):
        return None
    return chosen
