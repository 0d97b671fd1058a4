"""Many photos: a data set sorted by confidence or mistake, its training neighbours, and pairs of faces."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

import torch

from camlucida.app.errors import PageError
from camlucida.app.jobs import Job
from camlucida.app.question import Question, number, text, texts
from camlucida.app.studio import Studio, png
from camlucida.app.works import Asked, Work
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.jsonable import to_json
from camlucida.common.printable import name_of, slug
from camlucida.data.samples import Sample
from camlucida.engine.borrow import borrowed
from camlucida.engine.outputs import first_tensor
from camlucida.engine.reading import probabilities
from camlucida.explanation import overlays
from camlucida.explanation.diagnostics import CASES
from camlucida.explanation.subject import prepare
from camlucida.faces import explain_pair, face_photo, load_embedder
from camlucida.faces.pair import CARE, KINDS, SIDES
from camlucida.methods import build
from camlucida.studies.icam import examples

_BATCH = 8
_MOST = 1000
_SURE = 0.5


def ranking(studio: Studio, asked: Asked) -> Work:
    """What the model predicts for each photo of the data set, and whether that is right."""
    data, model = studio.album.data, studio.model(number(asked, "model"))
    if data is None:
        raise PageError("no data set is open; start the page with --data")
    count = min(len(data), max(1, number(asked, "count", 200, _MOST)))
    places = sorted({i * len(data) // count for i in range(count)})
    names = model.class_names or ()

    def work(job: Job) -> None:
        for start in range(0, count, _BATCH):
            job.say("looking through the data set", start, count)
            samples: list[tuple[int, Sample]] = []
            pictures = []
            for place in places[start : start + _BATCH]:
                try:
                    pictures.append(data[place].picture())
                    samples.append((place, data[place]))
                except ImageError as error:
                    job.tell("unread", words=str(error))
            if not pictures:
                continue
            module, inputs, _, _ = prepare(model, pictures)
            with borrowed(module, inputs), torch.no_grad():
                logits = first_tensor(module(inputs))
                best = probabilities(module, logits).max(1)
            for (place, sample), share, index in zip(
                samples, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                right = None if sample.label is None else sample.label == index
                job.tell(
                    "row",
                    key=f"data:{place}",
                    name=name_of(sample.key),
                    predicted=_named(names, index),
                    probability=share,
                    label=None
                    if sample.label is None
                    else sample.label_name or _named(names, sample.label),
                    right=right,
                    case=None if right is None else _case(share, right=right),
                )

    return work


def _named(names: Any, index: int) -> str:
    return str(names[index]).partition(",")[0] if index < len(names) else f"class {index}"


def _case(share: float, *, right: bool) -> str:
    return CASES[f"{'confident' if share >= _SURE else 'unsure'}-{'right' if right else 'wrong'}"]


def neighbouring(studio: Studio, asked: Asked) -> Work:
    """The training photos that look most alike to what I-CAM says matters."""
    question = Question.read({**asked, "methods": ["icam"]})
    if studio.folder is None:
        raise PageError(
            "training neighbours are searched in a folder with one subfolder per class; start with --data FOLDER"
        )
    model, photo = studio.model(question.model), studio.album[question.photo]
    folder = studio.folder

    def work(job: Job) -> None:
        found = examples(
            model, photo.path or photo.picture, folder, true=photo.label, k=4, method="icam:n_perturb=4",
            progress=job.progress("training photos"),
        )  # fmt: skip
        words = [
            f"{side.class_name} ({side.role}): "
            + "; ".join(f"{name_of(n.photo.file)} at {n.distance:.3f}" for n in side.neighbours)
            for side in found.sides
        ]
        key = studio.pictures.add(overlays.png(found.figure(), dpi=100))
        job.tell("picture", key=key, words=". ".join(words))

    return work


def verifying(studio: Studio, asked: Asked) -> Work:
    """Two faces: do they match, and which pixels make them similar or set them apart?"""
    probe, gallery = (studio.album[text(asked, side)] for side in SIDES)
    methods = texts(asked, "methods", ("gradcam",))
    if not 0 < len(methods) <= 6:
        raise PageError(f"choose 1 to 6 methods for a pair, got {len(methods)}")
    for method in methods:
        build(method)

    files = (str(photo.path or photo.name) for photo in (probe, gallery))
    verify = ["camlucida", "verify", *files, "--face", "largest"]

    def work(job: Job) -> None:
        job.say("finding the faces", 0, 1)
        embedder = _embedder()
        sides = []
        for side, photo in zip(SIDES, (probe, gallery), strict=True):
            try:
                sides.append(face_photo(embedder, photo.picture, face="largest"))
            except ImageError as error:
                raise ImageError(f"{side}, {photo.name}: {error}") from error
        for side, face in zip(SIDES, sides, strict=True):
            job.tell("face", side=side, key=studio.pictures.add(png(face.crop.image)))
        for number_, method in enumerate(methods):
            try:
                found = explain_pair(
                    embedder, sides[0], sides[1], method=[method], progress=job.progress(method)
                )
            except CamlucidaError as error:
                job.tell("skipped", method=method, words=str(error))
                continue
            if not number_:
                job.tell(
                    "verdict", words=found.verdict, match=found.match, similarity=found.similarity,
                    threshold=found.threshold, messages=list(found.messages), care=CARE,
                )  # fmt: skip
            for one in found.methods:
                pictures = {
                    f"{side} {kind}": studio.pictures.add(png(found.overlay(one.label, side, kind)))
                    for side in SIDES
                    for kind in KINDS
                }
                stem = f"{slug(probe.name)}-{slug(gallery.name)}"
                job.tell(
                    "along",
                    png=studio.pictures.add(overlays.png(found.figure())),
                    json=to_json(found.record()),
                    name=f"{stem}.{slug(one.label)}",
                    command=shlex.join([*verify, "--method", method]),
                )
                said = [f"{s}: {t}" for s, m in zip(SIDES, one.messages, strict=True) for t in m]
                job.tell("pair", label=one.label, pictures=pictures, messages=said)

    return work


@cache
def _embedder() -> Any:
    """The faces’ network, loaded when it is first asked for."""
    return load_embedder("dlib")
