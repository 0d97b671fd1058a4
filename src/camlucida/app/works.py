"""The kinds of work that the page asks for; each reads what was asked, and returns what a job does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from camlucida.app.errors import TimeOverError
from camlucida.app.jobs import Job
from camlucida.app.photos import Photo
from camlucida.app.question import Question, by_name, command, number, python
from camlucida.app.studio import Answer, Studio
from camlucida.app.words import described
from camlucida.common.errors import ImageError
from camlucida.engine.chunks import out_of_memory
from camlucida.explanation.left_out import reason
from camlucida.explanation.overlays import View

Work: TypeAlias = Callable[[Job], object]
Asked: TypeAlias = Mapping[str, Any]


def explaining(studio: Studio, asked: Asked) -> Work:
    """Every method's map as soon as it is there; a method that cannot run costs only itself."""
    question = Question.read(asked)
    said = by_name(question, studio.model(question.model).class_names)
    photo, written = studio.album[question.photo], studio.written[question.model]

    def work(job: Job) -> None:
        job.tell(
            "asked",
            command=command(said, photo, written),
            python=python(said, photo, written),
        )
        answers: list[Answer] = []
        for method in question.methods:
            job.check()
            try:
                answer = studio.answer(question.of(method), job)
                facts = told(studio, answer)
                if twin := next((one for one in answers if _same(one, answer)), None):
                    facts["messages"].append(
                        f"This is the map of {twin.explanation.label} again: on this model and question the two are "
                        "one method, so that their agreement confirms nothing."
                    )
                answers.append(answer)
                job.tell("map", **facts)
            except (TimeOverError, ImageError):
                raise
            except Exception as error:
                if out_of_memory(error):
                    raise
                job.tell("skipped", method=method, words=reason(error))
        for answer in answers:
            # Hashed while the model is free, so that no download waits for another job.
            _ = answer.explanation.provenance.weights

    return work


def _same(one: Answer, other: Answer) -> bool:
    """Whether two maps cannot be told apart by eye."""
    first, second = one.explanation.maps, other.explanation.maps
    if first.shape != second.shape or not bool(first.any()):
        return False
    most = float(first.abs().max())
    return float((first - second).abs().max()) < most / 256


def fitting(studio: Studio, asked: Asked) -> Work:
    """Which methods do not fit the model, and why."""
    model = number(asked, "model")
    studio.model(model)

    def work(job: Job) -> None:
        job.tell("misfits", reasons=studio.misfits(model, job))

    return work


def told(studio: Studio, answer: Answer) -> dict[str, Any]:
    """Everything about an answer but its values."""
    found = answer.explanation
    diagnostics, view = found.diagnostics[0], found.views[0]
    attribution = found.maps[0].detach().cpu()
    largest = found.style_of(0).largest or 1.0
    signed = bool((attribution < 0).any()) or answer.question.steps is not None
    return {
        "key": answer.key,
        "method": answer.question.methods[0],
        "label": found.label,
        "explained": found.explained[0],
        "sides": found.sides,
        "size": list(attribution.shape),
        "signed": signed,
        "largest": max(largest, 1.0) if not signed else largest,
        "box": shares(view),
        "layers": list(found.layers),
        "predictions": [
            {"index": p.index, "name": p.name.partition(",")[0], "probability": p.probability}
            for p in found.predictions[0]
        ],
        "explains": _class(answer),
        "messages": [m for m in diagnostics.messages if m not in diagnostics.assumed],
        "assumed": list(diagnostics.assumed),
        "raw": [diagnostics.raw_min, diagnostics.raw_max],
        "described": described(attribution, found.sides),
        "mask": studio.mask(answer),
        "boxes": _boxes(studio.album[answer.question.photo]),
        "seconds": round(answer.seconds, 3),
    }


def shares(view: View) -> list[float]:
    """The part of the photo that the model saw, as shares of its sides: left, top, right, bottom."""
    return [edge / side for edge, side in zip(view.box, 2 * view.picture.size, strict=True)]


def _boxes(photo: Photo) -> list[list[float]]:
    """Where the object is, as shares of the photo's sides."""
    return [
        [e / s for e, s in zip(box, 2 * photo.picture.size, strict=True)] for box in photo.boxes
    ]


def _class(answer: Answer) -> int | None:
    classes = getattr(answer.explanation.target, "classes", None)
    return None if classes is None else int(classes[0])
