"""Deeper looks at a photo: the layers of I-CAM, FAME as it moves the pixels, and single cells of a feature map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from camlucida.app.jobs import Job
from camlucida.app.question import Question, number, text
from camlucida.app.studio import Studio
from camlucida.app.words import described
from camlucida.app.works import Asked, Work, shares, told
from camlucida.explanation.subject import prepare
from camlucida.studies.fame import cells

_FRAMES = 10
_MOST_STEPS = 500


def layering(studio: Studio, asked: Asked) -> Work:
    """I-CAM: how much each layer matters, with the layer's own map."""
    copies = max(1, number(asked, "copies", 8, 64))
    question = replace(_asked(studio, asked), methods=(f"icam:n_perturb={copies}",))

    def work(job: Job) -> None:
        answer = studio.answer(question, job)
        fused, found = told(studio, answer), answer.explanation
        job.tell("map", **fused)
        facts = {
            name: found.details[f"layer_{name}"][0].tolist() for name in ("score", "weight", "kept")
        }
        for place, (layer, maps) in enumerate(found.layer_maps.items()):
            own = {name: values[place] for name, values in facts.items()}
            job.tell("layer", layer=layer, **own, map=_beside(studio, fused, maps[0], layer))

    return work


def growing(studio: Studio, asked: Asked) -> Work:
    """FAME's map after more and more steps, of one descent."""
    steps = max(_FRAMES, number(asked, "steps", 60, _MOST_STEPS))
    frames = sorted({max(1, round(steps * (i / _FRAMES) ** 2)) for i in range(1, _FRAMES)})
    method = f"fame:iterations={steps},snapshots={'/'.join(map(str, frames))}"
    question = replace(_asked(studio, asked), methods=(method,))

    def work(job: Job) -> None:
        answer = studio.answer(question, job)
        fused, found = told(studio, answer), answer.explanation
        for frame in frames:
            label = f"after {frame} steps"
            job.tell(
                "frame",
                steps=frame,
                map=_beside(studio, fused, found.details[f"map@{frame}"][0], label),
            )
        job.tell("frame", steps=steps, map={**fused, "label": f"after {steps} steps"})

    return work


def celling(studio: Studio, asked: Asked) -> Work:
    """FAME on one cell of a feature map: where does it really look?"""
    question = _asked(studio, asked)
    layer = text(asked, "cell_layer")
    row, column = number(asked, "row"), number(asked, "column")
    steps = max(1, number(asked, "steps", 40, _MOST_STEPS))

    def work(job: Job) -> None:
        photo, model = studio.album[question.photo], studio.model(question.model)
        found = cells(
            model, photo.picture, layer, method=f"fame:iterations={steps}",
            cells=[(row, column)], progress=job.progress("the cell"),
        )  # fmt: skip
        (facts,) = found.cells
        values = found.maps[0]
        _, _, view, _ = prepare(model, photo.picture)
        label = f"cell {row}, {column} of {layer}"
        shown = {
            "label": label,
            "method": "fame",
            "explained": "the cell’s activation",
            "box": shares(view),
            "signed": False,
        }
        job.tell("cell", map=_beside(studio, shown, values, label), patch=facts.nominal, dead=facts.dead,
            inside=facts.inside, offset=facts.offset, radius=facts.rms_radius)  # fmt: skip

    return work


def _asked(studio: Studio, asked: Asked) -> Question:
    question = Question.read({**asked, "methods": ["gradcam"]})
    studio.model(question.model)
    studio.album[question.photo]
    # What is told beside a map is of the one side.
    return replace(question, layer=None, signed=False, two_colours=False)


def _beside(studio: Studio, like: Mapping[str, Any], values: Tensor, label: str) -> dict[str, Any]:
    """Another map of the same photo, for the page to draw."""
    own = values.detach().cpu().float()
    largest = float(own.abs().max())
    return {
        **like,
        "key": studio.values.add(own.contiguous().numpy().astype("<f4")),
        "label": label,
        "size": list(own.shape),
        "signed": bool((own < 0).any()),
        "largest": largest,
        "mask": None,
        "messages": [],
        "described": described(own, ("against it", "for it")),
    }
