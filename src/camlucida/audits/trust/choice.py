"""For each question the method to use and the one never to use, why, and a photo explained by both; and demands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from camlucida.audits.candidates import Candidate
from camlucida.audits.deadzone.walls import Wall
from camlucida.audits.report import Illustration
from camlucida.audits.rules import DECIDED, GRADES, MEASURED, QUESTIONS, SHORT, Grade, TrustQuestion
from camlucida.audits.sanity.models import shifted_logits
from camlucida.audits.trial import UNFIT, Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import nearest
from camlucida.common.registry import plain
from camlucida.data.regions import Region
from camlucida.engine.layers import list_layers
from camlucida.engine.redraw import redrawn
from camlucida.explanation import Explanation
from camlucida.explanation.overlays import View, grid, overlay

if TYPE_CHECKING:
    from camlucida.audits.trust.report import MethodTrust, TrustReport

_SIDE = 224  # pixels of a drawn picture's longer side
_FRAMED = 0.5  # a place is framed that does at least this share of what the most important one does


@dataclass(frozen=True)
class Decision:
    """What to use for a question, and what never to.

    Attributes:
        question: which.
        use: the method with the best grade, of several the one that comes nearest to the exact answer; ``None`` where
            none is safe or to be read with caution.
        because: why.
        never: of the methods that are not safe, the one that is furthest from the exact answer; ``None`` for none.
        since: why.
        so_far: where there is none to use, what is known of the undecided method that comes nearest; else empty.
    """

    question: TrustQuestion
    use: MethodTrust | None
    because: str
    never: MethodTrust | None
    since: str
    so_far: str = ""


def decide(methods: Sequence[MethodTrust]) -> tuple[Decision, ...]:
    """For every question."""
    return tuple(_decision(question, methods) for question in QUESTIONS)


def _decision(question: TrustQuestion, methods: Sequence[MethodTrust]) -> Decision:
    def share(method: MethodTrust) -> float:
        value = method.finding(MEASURED[question])
        return -1e9 if value is None or value.value is None else value.value

    graded = {
        grade: [m for m in methods if m.answers[question].grade == grade] for grade in DECIDED
    }
    use = max(graded["safe"] or graded["with caution"], key=share, default=None)
    never = min(graded["not safe"], key=share, default=None)
    because = since = ""
    if use is not None:
        measured = use.finding(MEASURED[question])
        reasons = [
            r for r in use.answers[question].reasons if measured is None or r != measured.text
        ][:1]
        because = " ".join(
            [*([measured.text] if measured else []), *(f"But: {r}" for r in reasons)]
        )
    if never is not None:
        since = never.answers[question].reasons[0]
    open_ = [m for m in methods if m.answers[question].grade == "not enough to tell"]
    nearest = max(open_, key=share, default=None)
    so_far = ""
    if use is None and nearest is not None and (found := nearest.finding(MEASURED[question])):
        so_far = f"{nearest.label} comes nearest. {found.text}" if found.value is not None else ""
    return Decision(question, use, because, never, since, so_far)


def unmet(report: TrustReport, demands: Sequence[str]) -> tuple[str, ...]:
    """The demands ``question:method=grade`` that a report does not meet, in sentences.

    Args:
        report: of a model.
        demands: such as ``"where:diffgradcam=caution"``: the method must be graded so or better. Questions are
            written as ``where``, ``why-not-another``, ``which-pixels``, ``looked-at-all``, or by their names.

    Raises:
        CamlucidaError: a demand cannot be read, or names a question, method or grade that is not in the report.
    """
    found = []
    for demand in demands:
        question, label, least = _demand(demand, report)
        grade = next(m.answers[question].grade for m in report.methods if m.label == label)
        if grade not in DECIDED or GRADES.index(grade) > GRADES.index(least):
            reason = next(m.answers[question].reasons for m in report.methods if m.label == label)
            found.append(
                f"{label} is {grade} for “{QUESTIONS[question]}”, and {least} is demanded"
                + (f": {reason[0]}" if reason else "")
            )
    return tuple(found)


def _demand(text: str, report: TrustReport) -> tuple[TrustQuestion, str, Grade]:
    asked, colon, rest = text.partition(":")
    label, equals, wanted = rest.rpartition("=")
    if not (colon and equals and asked and label and wanted):
        raise CamlucidaError(
            f"a demand is written question:method=grade, as in where:diffgradcam=caution; got {text!r}"
        )
    questions = {plain(word): q for q, said in SHORT.items() for word in (q, said)}
    grades = {plain(word): g for g in DECIDED for word in (g, g.removeprefix("with "))}
    labels = {m.label: m.label for m in report.methods}
    for what, given, known in (
        ("question", plain(asked), questions), ("method", label, labels), ("grade", plain(wanted), grades),
    ):  # fmt: skip
        if given not in known:
            raise CamlucidaError(
                f"the demand {text!r} names no known {what}: {given!r}{nearest(given, list(known))} "
                f"(there are: {', '.join(known)})"
            )
    return questions[plain(asked)], label, grades[plain(wanted)]


# ------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class _Proof:
    """How a check that a method fails is drawn: its map of the model with one thing changed.

    Attributes:
        title: what is changed, over the picture.
        told: what the picture shows.
        change: makes the trial of the changed model, and says which share of the image, from below, is dead there.
    """

    title: str
    told: str
    change: Callable[[Trial], tuple[Trial, float]]


def _walled(trial: Trial, layer: str | None) -> tuple[Trial, float]:
    """The lowest quarter is hidden, as the audits hide it."""
    seen = list_layers(trial.model, trial.inputs[:1])
    shapes = {one.name: one.shape for one in seen if one.shape is not None}
    rows = trial.size[0] if layer is None else shapes[layer][1]
    quarter = max(1, rows // 4)
    wall = Wall(Region.rows(rows - quarter), layer)
    return replace(trial, model=wall.build(trial.model, trial.inputs)), quarter / rows


_PROOFS: dict[str, _Proof] = {
    "parameters": _Proof(
        "all weights redrawn",
        "the same method on this network with weights that have learned nothing.",
        lambda trial: (replace(trial, model=redrawn(trial.model, trial.seed)), 0.0),
    ),
    "deadzone-pixels": _Proof(
        "pixels hidden", "the pixels below the line are hidden from the model.",
        lambda trial: _walled(trial, None),
    ),
    "deadzone": _Proof(
        "cells hidden", "the cells below the line are hidden from the head.",
        lambda trial: _walled(trial, trial.explained_layer),
    ),
    "logit-shift": _Proof(
        "logits shifted", "all logits are raised equally, which changes no probability.",
        lambda trial: (replace(trial, model=shifted_logits(trial.model, trial.inputs, seed=trial.seed)), 0.0),
    ),
}  # fmt: skip
"""By finding, the gravest first."""


def _proof(
    trial: Trial, one: Candidate, method: MethodTrust
) -> tuple[_Proof, Explanation, float] | None:
    """What a method shows on a changed model, by the first of the checks that it fails which can be drawn."""
    failed = {f.name for f in method.evidence if f.outcome == "fail"}
    for name, proof in _PROOFS.items():
        if name in failed:
            try:
                changed, dead = proof.change(trial)
            except UNFIT:
                continue
            found = changed.maps([one])[one.label]
            if isinstance(found, Explanation):
                return proof, found, dead
    return None


def illustrate(
    trial: Trial,
    tested: Sequence[Candidate],
    decisions: Sequence[Decision],
    places: Mapping[str, Any],
) -> dict[TrustQuestion, Illustration]:
    """The first photo explained by what to use and by what never to, with the places framed that decide.

    Beside them stands the proof against what is never to be used, where a check that it fails can be drawn.
    ``places`` are the measured effects of the first image's places, ``own`` and ``margin``.
    """
    by = {one.label: one for one in tested}
    found: dict[TrustQuestion, Illustration] = {}
    first = replace(trial.few(1).ranked(), images={})
    for decision in decisions:
        asked = {"use": decision.use, "never": decision.never}
        made = {
            f"{how} {method.label}": first.maps([by[method.label]])[method.label]
            for how, method in asked.items()
            if method is not None
        }
        shown = {title: e for title, e in made.items() if isinstance(e, Explanation)}
        if not shown or not places:
            continue
        effect = places["margin" if decision.question == "contrast" else "own"]
        values = [abs(v) if decision.question in {"pixels", "absence"} else v for v in effect]
        one = next(iter(shown.values()))
        height, width = one.maps.shape[1:]
        scale = _SIDE / max(height, width)
        size = max(1, round(scale * width)), max(1, round(scale * height))
        photo = one.views[0].cropped().resize(size, Image.Resampling.BICUBIC)

        def drawn(e: Explanation, photo: Image.Image = photo) -> Image.Image:
            return overlay(View(photo, (0, 0, *photo.size)), e.maps[0])

        pictures = [_framed(picture, values) for picture in (photo, *map(drawn, shown.values()))]
        titles = ["the photo", *shown]
        caption = (
            "Your photo, and its maps. Framed: the places that were measured to matter most for this question, by "
            "hiding random halves of the photo."
        )
        never = decision.never
        if never is not None and (proof := _proof(first, by[never.label], never)) is not None:
            how, e, dead = proof
            pictures.append(_lined(drawn(e), dead))
            titles.append(f"{never.label}, {how.title}")
            caption += f" Last: {how.told}"
        figure = grid([pictures], columns=titles, bar=None, cell=2.2)
        name = f"use-{decision.question}"
        found[decision.question] = Illustration.of(name, caption, figure)
    return found


def _lined(picture: Image.Image, dead: float) -> Image.Image:
    """With a black and white line over what is dead at its lower end."""
    drawn = picture.convert("RGB")
    top = round((1 - dead) * drawn.height)
    pen = ImageDraw.Draw(drawn)
    if dead:
        pen.line([(0, top), (drawn.width, top)], fill="black", width=4)
        pen.line([(0, top), (drawn.width, top)], fill="white", width=2)
    return drawn


def _framed(picture: Image.Image, values: Sequence[float]) -> Image.Image:
    """With a black and white line around every place of a square grid that matters most."""
    cells = round(len(values) ** 0.5)
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    most = max(values)
    for number, value in enumerate(values):
        if most <= 0 or value < _FRAMED * most:
            continue
        row, column = divmod(number, cells)
        box = [
            column * drawn.width // cells, row * drawn.height // cells,
            (column + 1) * drawn.width // cells - 1, (row + 1) * drawn.height // cells - 1,
        ]  # fmt: skip
        pen.rectangle(box, outline="black", width=3)
        pen.rectangle([box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1], outline="white", width=1)
    return drawn
