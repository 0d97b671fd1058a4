"""Quick checks of one map on one photo: the metrics and audits of the package, told as they are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from camlucida.app.jobs import Job
from camlucida.app.question import Question, number
from camlucida.app.studio import Answer, Studio
from camlucida.app.works import Asked, Work, told
from camlucida.audits import Request, Wall, audit_dead_zone, input_wall
from camlucida.audits.sanity.audit import measure_sanity
from camlucida.audits.sanity.checks import CHECKS
from camlucida.common.errors import CamlucidaError
from camlucida.data.regions import Region
from camlucida.engine.borrow import borrowed
from camlucida.explanation.subject import prepare
from camlucida.methods.controls import random_maps
from camlucida.metrics import Deletion, Insertion, Scene, sensitivity_max
from camlucida.metrics.robustness import explain_again, streams

_HEIGHTS = 40  # of a curve
_DRAWS = 3
_SAMPLES = 4
_RADIUS = 0.02


def checking(studio: Studio, asked: Asked) -> Work:
    """Does the model need what the map puts first; does it follow class, weights and jitter?"""
    question = _one(studio, asked)

    def work(job: Job) -> None:
        answer = studio.answer(question, job)
        if answer.explanation.logits is not None:
            scene = _scene(studio, answer)
            with borrowed(scene.model, scene.inputs):
                _curves(scene, answer, job)
                _jitter(scene, answer, job)
        _sanity(studio, question, job)

    return work


def _one(studio: Studio, asked: Asked) -> Question:
    question = Question.read(asked)
    if len(question.methods) != 1:
        raise CamlucidaError(f"one map is checked at a time, got {len(question.methods)} methods")
    studio.model(question.model)
    studio.album[question.photo]
    return question


def _scene(studio: Studio, answer: Answer) -> Scene:
    found, question = answer.explanation, answer.question
    photo = studio.album[question.photo].picture
    module, inputs, _, preprocess = prepare(studio.model(question.model), photo)
    assert found.logits is not None  # noqa: S101
    chosen = getattr(found.target, "classes", None)
    classes = chosen if isinstance(chosen, Tensor) else found.logits.argmax(1)
    nothing = torch.zeros(1, *inputs.shape[-2:], dtype=torch.bool)
    return Scene(
        module, inputs, found.logits, classes, torch.tensor([-1]), (torch.empty(0, 4),), nothing,
        torch.tensor([False]), preprocess, question.seed,
    )  # fmt: skip


def _curves(scene: Scene, answer: Answer, job: Job) -> None:
    """Deletion and insertion, beside those of maps that know nothing."""
    step = max(1, scene.inputs.shape[-1] * scene.inputs.shape[-2] // _HEIGHTS)

    def gap(maps: Tensor, watched: bool, whose: str = "") -> float:
        """Area under insertion less that under deletion."""
        areas = []
        for metric, title in ((Deletion, "deleted"), (Insertion, "put back")):
            made = metric(step=step, score="explained")
            (name,) = made.names
            watch = _watcher(job, f"{whose} {name}", f"{whose} {title}") if watched else None
            seen = replace(scene, watch=watch)
            measured = made.measure(seen, replace(answer.explanation, maps=maps))
            areas.append(float(measured.values[name][0]))
            job.check()
        return areas[1] - areas[0]

    own = gap(answer.explanation.maps, True, "own")
    random = [
        gap(random_maps(scene.inputs, scene.seed + draw), not draw, "random")
        for draw in range(_DRAWS)
    ]
    if own > max(random):
        outcome, said = "pass", "matter more to the model than random ones"
    elif own < min(random):
        outcome, said = "fail", "matter less to the model than random ones"
    else:
        outcome, said = "warn", "matter to the model no more than random ones might"
    job.tell(
        "check",
        outcome=outcome,
        title="Does the model need what the map puts first?",
        words=f"Insertion less deletion is {own:+.2f}, of {_DRAWS} random maps as coarse as a CAM "
        f"{min(random):+.2f} to {max(random):+.2f}: on this photo the pixels that the map puts first {said}.",
    )


def _watcher(job: Job, name: str, title: str) -> Callable[[str, Tensor], None]:
    def watch(_: str, curves: Tensor) -> None:
        job.check()
        heights = curves[0].tolist()
        at = [i / (len(heights) - 1) for i in range(len(heights))]
        job.tell("curve", name=name, title=title, at=at, heights=heights)

    return watch


def _jitter(scene: Scene, answer: Answer, job: Job) -> None:
    done = 0

    def explained(images: Tensor) -> Tensor:
        nonlocal done
        job.say("jittered input", done, _SAMPLES)
        done += 1
        return explain_again(scene, answer.explanation, images).maps

    moved = sensitivity_max(
        explained, scene.inputs, answer.explanation.maps, streams(scene), radius=_RADIUS, samples=_SAMPLES
    )  # fmt: skip
    share = float(moved[0])
    words = (
        f"With every value of the input moved by up to {_RADIUS:g}, the map changed by at most {share:.1%} of its "
        f"size, in {_SAMPLES} tries."
        if share == share  # noqa: PLR0124 - not NaN
        else "The map is blank, so that nothing can be compared."
    )
    job.tell("check", outcome="not judged", title="Does the map stay under jitter?", words=words)


_TITLES: Mapping[str, str] = {name: check.asks for name, check in CHECKS.items()}


def _sanity(studio: Studio, question: Question, job: Job) -> None:
    """The sanity checks on this photo, of the predicted class."""
    (method,) = question.methods
    request = Request(
        studio.model(question.model), [studio.album[question.photo].picture], [method],
        layers=question.layers, count=1, seed=question.seed, labels=False, say=job.say,
    )  # fmt: skip
    found = measure_sanity(request)
    for checks in found.results.values():
        for name, verdict in checks.items():
            if name not in {"data", "single"}:  # need training, or a batch
                job.tell("check", outcome=verdict.outcome, title=_TITLES[name], words=verdict.text)


def walling(studio: Studio, asked: Asked) -> Work:
    """A wall in front of a part of the photo: does the map light up what the model then cannot see?"""
    question = _one(studio, asked)
    given: Any = asked.get("region")
    if not isinstance(given, dict):
        raise CamlucidaError("no region was given for the wall")
    top, left, bottom, right = (number(given, k) for k in ("top", "left", "bottom", "right"))
    region = Region(top, left, bottom, right)

    def work(job: Job) -> None:
        (method,) = question.methods
        model, photo = studio.model(question.model), studio.album[question.photo]
        report = audit_dead_zone(
            model, [photo.picture], wall=Wall(region), methods=[method],
            layers=question.layers, count=1, seed=question.seed, say=job.say,
        )  # fmt: skip
        for verdict in report.verdicts:
            job.tell(
                "check",
                outcome=verdict.outcome,
                title=f"Behind a wall in front of {region}: does the map stay dark there?",
                words=verdict.text,
            )
        blind = replace(model, module=input_wall(model.module, region))
        found = question.explain(blind, photo, job.progress(method))
        found = replace(found, label=f"{found.label}, behind the wall")
        job.tell("map", **told(studio, studio.show(question, found)))

    return work
