"""What the page works with: models, photos, grades, the queue, and the results it can still show."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from PIL import Image

from camlucida.app.errors import GoneError
from camlucida.app.grades import Grades
from camlucida.app.heads import Head, heads
from camlucida.app.jobs import Desk, Job
from camlucida.app.photos import Album, Kept, Photo
from camlucida.app.question import Question, Written
from camlucida.audits.verdicts import MARKS, OUTCOMES
from camlucida.common.errors import CamlucidaError
from camlucida.common.printable import slug
from camlucida.data import DataSet, picture, picture_names
from camlucida.data.boxes import map_boxes, map_mask
from camlucida.explanation import Comparison, Explanation, methods_for
from camlucida.explanation.overlays import COLOURS, SIGNED
from camlucida.faces import demo_photos
from camlucida.methods import MethodRow, list_methods
from camlucida.methods.describe import words_of
from camlucida.metrics import fill_boxes
from camlucida.models import LoadedModel, describe_layers
from camlucida.targets import list_targets

_RESULTS = 200
_USUAL = {"gradients", "pixel gradients", "second derivatives"}
"""What nearly every model has, so that a method that needs no more is tried when it is asked for."""
_SHOWN = 1024  # pixels of a photo's longer side on the page
_SMALL = 240
_PALETTES = (COLOURS, "viridis", "magma", "cividis", "gray", SIGNED, "coolwarm")
FORMATS = {
    "png": "image/png",
    "pdf": "application/pdf",
    "npz": "application/octet-stream",
    "json": "application/json",
}
"""What can be taken along."""


@dataclass(frozen=True)
class Answer:
    """A method's answer to a question.

    Attributes:
        key: what the page calls it.
        question: of one method.
        explanation: of one photo.
        seconds: what it took.
    """

    key: str
    question: Question
    explanation: Explanation = field(repr=False)
    seconds: float = 0.0


class Studio:
    """Everything behind the page.

    Args:
        models: at least one; the others can be chosen beside it, and of each another of its outputs.
        written: how each is named on the command line.
        data: a data set to look through.
        folder: where its photos lie, one subfolder per class, if they do.
        grades: of the last audit of the first model.
        desk: the queue before the models.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        written: Sequence[Written],
        data: DataSet | None = None,
        folder: Path | None = None,
        grades: Grades | None = None,
        desk: Desk | None = None,
    ) -> None:
        self.heads: list[Head] = []
        for model, how in zip(models, written, strict=True):
            self.heads += heads(model, how, len(self.heads))
        self.models = tuple(head.model for head in self.heads)
        self.written = tuple(head.written for head in self.heads)
        self.album = Album(data)
        self.folder = folder
        self.grades = grades
        self.desk = desk or Desk()
        self._answers: Kept[Answer] = Kept(_RESULTS)
        self._known: Kept[str] = Kept(_RESULTS)
        self._misfits: dict[int, Mapping[str, str]] = {}
        self.pictures: Kept[bytes] = Kept(_RESULTS)
        self.values: Kept[np.ndarray[Any, Any]] = Kept(_RESULTS)

    def model(self, number: int) -> LoadedModel:
        """One of the models; raises ``CamlucidaError`` where there is none."""
        if number >= len(self.models):
            raise CamlucidaError(f"there is no model {number}; there are {len(self.models)}")
        return self.models[number]

    # ---- answers -----------------------------------------------------------------------------

    def answer(self, question: Question, job: Job) -> Answer:
        """The answer of a question's only method, kept from before or found now."""
        known = self._known.get(repr(question))
        if known is not None and (kept := self._answers.get(known)) is not None:
            return kept
        photo = self.album[question.photo]
        started = monotonic()
        found = question.explain(
            self.model(question.model), photo, job.progress(question.methods[0])
        )
        answer = self.show(question, found, monotonic() - started)
        self._known.add(answer.key, repr(question))
        return answer

    def show(self, question: Question, found: Explanation, seconds: float = 0.0) -> Answer:
        """Keep an explanation, so that the page can draw it and take it along."""
        key = self.values.add(np.ascontiguousarray(found.numpy()[0], dtype="<f4"))
        answer = Answer(key, question, found, seconds)
        self._answers.add(answer, key)
        return answer

    def kept(self, keys: Sequence[str]) -> list[Answer]:
        """Answers that were found before.

        Raises:
            GoneError: one is not kept any more.
        """
        found = [self._answers.get(key) for key in keys]
        if not found or None in found:
            raise GoneError("this result is not kept any more; ask again")
        return [one for one in found if one is not None]

    def file(self, keys: Sequence[str], kind: str) -> tuple[bytes, str]:
        """Results as a file to take along, as :meth:`Explanation.save` writes it, and its name."""
        answers = self.kept(keys)
        several = Comparison([answer.explanation for answer in answers])
        drawn = several if len(answers) > 1 else answers[0].explanation
        stem = Path(self.album[answers[0].question.photo].name).stem
        with tempfile.TemporaryDirectory(prefix="camlucida-") as folder:
            path = drawn.save(Path(folder, f"result.{kind}"))
            return path.read_bytes(), f"{slug(stem, 'photo')}.{kind}"

    # ---- what the page is told at the start ----------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        """Models, methods, targets, samples, palettes and limits."""
        return {
            "models": [self._model_facts(head) for head in self.heads],
            "methods": [self._method_facts(row) for row in list_methods()],
            "targets": [row.name for row in list_targets() if row.of_class],
            "samples": [
                {"key": f"sample:{name}", "name": name, "says": picture(name).label}
                for name in picture_names()
            ],
            "faces": [{"key": f"face:{p.path.name}", "name": p.path.stem} for p in demo_photos()],
            "data": None
            if self.album.data is None
            else {"name": self.album.data.name, "folder": self.folder is not None},
            "grades": None if self.grades is None else self.grades.to_dict(),
            "outcomes": {name: [MARKS[name], said] for name, said in OUTCOMES.items()},
            "palettes": palettes(),
            "signed_palette": SIGNED,
        }

    def layers(self, number: int) -> dict[str, Any]:
        """The layers of a model that can be explained, in its order."""
        found = describe_layers(self.model(number))
        rows = [row for row in found.rows if not row.reason and row.kind != "Identity"]
        return {"default": found.default, "layers": [row.to_dict() for row in rows]}

    @staticmethod
    def _model_facts(head: Head) -> dict[str, Any]:
        names = head.model.class_names
        return {
            "name": head.model.name,
            "of": head.of,
            "head": head.name,
            "classes": None if names is None else [name.partition(",")[0] for name in names],
        }

    def _method_facts(self, row: MethodRow) -> dict[str, Any]:
        quick = ",".join(f"{k}={v}" for k, v in row.quick.items())
        text = f"{row.name}:{quick}" if quick else row.name
        return {
            "name": row.name,
            "text": text,
            "says": row.use or words_of(row.summary),
            "paper": row.paper,
            "needs": row.needs_in_words,
            "cost": row.cost_in_words,
            "slow": bool(row.cost.times),
            "grade": None if self.grades is None else self.grades.of(row),
        }

    def misfits(self, number: int, job: Job) -> Mapping[str, str]:
        """Why methods that ask something special of a model do not fit this one, by their names; found once."""
        if number not in self._misfits:
            special = [row.name for row in list_methods() if not _USUAL.issuperset(row.needs)]
            found = methods_for(
                self.model(number), methods=special, seconds=0.0,
                progress=job.progress("which methods fit"),
            )  # fmt: skip
            self._misfits[number] = {one.name: one.reason for one in found if not one.fits}
        return self._misfits[number]

    # ---- pictures ------------------------------------------------------------------------------

    def shown(self, photo: Photo, *, small: bool = False) -> Image.Image:
        """A photo as the page draws it, or as small as in a list."""
        picture = photo.picture.copy()
        side = _SMALL if small else _SHOWN
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture

    def mask(self, answer: Answer) -> str | None:
        """Where the object is, in pixels of the map: a key of ``values``; ``None`` where that is not known."""
        photo = self.album[answer.question.photo]
        preprocess = self.model(answer.question.model).preprocess
        if preprocess is None or (photo.mask is None and not photo.boxes):
            return None
        if photo.mask is not None:
            seen = map_mask(torch.from_numpy(np.ascontiguousarray(photo.mask)), preprocess)
        else:
            boxes = map_boxes(photo.boxes, photo.picture.size, preprocess)
            seen = fill_boxes([boxes], preprocess.size)[0]
        return self.values.add(seen.numpy().astype("<f4"))


def palettes() -> Mapping[str, str]:
    """Colour maps of matplotlib, each as 256 colours in hexadecimal digits."""
    import matplotlib as mpl

    found = {}
    for name in _PALETTES:
        colours = mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3]
        found[name] = (colours * 255).round().astype(np.uint8).tobytes().hex()
    return found


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
