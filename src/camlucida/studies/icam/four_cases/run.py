"""The four cases over a labelled folder, batch by batch: its photos explained by a method, and what is measured."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import PIL
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from camlucida.common.errors import ImageError, MethodError
from camlucida.common.jsonable import digest
from camlucida.common.statistics import correlation, mean, number
from camlucida.common.store import Store
from camlucida.data import resolve_class
from camlucida.data.folders import open_folder, read_photos
from camlucida.data.samples import Box, Sample, Skipped
from camlucida.engine.layers import Layers
from camlucida.explanation import Explanation, overlays
from camlucida.explanation.explain import MethodLike
from camlucida.explanation.explain import explain as explain_photos
from camlucida.explanation.subject import Subject, prepare
from camlucida.methods import Progress
from camlucida.methods.build import build_as
from camlucida.methods.icam import ICAM
from camlucida.metrics.localisation import saliency_score
from camlucida.models import LoadedModel, class_names_of
from camlucida.report.template import jpeg
from camlucida.studies.icam.facts import facts_of, told
from camlucida.studies.icam.four_cases.patchiness import (
    VARIANTS,
    Numerics,
    islands,
    numerics,
    patchiness,
)
from camlucida.studies.icam.four_cases.selection import as_published
from camlucida.studies.icam.four_cases.study import (
    DIALLED,
    CasePhoto,
    CaseSide,
    CaseStudy,
    Dial,
    NearPhoto,
)
from camlucida.studies.icam.neighbours.nearest import ClassExamples, examples


@dataclass(frozen=True)
class Examination:
    """How each photo is examined.

    Attributes:
        model: the model, as for :func:`camlucida.explain`.
        class_names: the model's, where known.
        method: any.
        layers: the layers; the method's own choice by default.
        seed: of methods that draw random numbers.
        explained: the class: the predicted one (``None``), the true one (``"label"``), or one for all, by its index.
        numerics: whether I-CAM's numerics are varied too.
        train: a folder of training photos; those nearest to a wrongly predicted photo are shown with it.
        nearest: how many of either class.
        cache: keeps what is measured of the training photos.
    """

    model: nn.Module | LoadedModel
    class_names: Sequence[str] | None
    method: MethodLike
    layers: Layers | None
    seed: int
    explained: Literal["label"] | int | None = None
    numerics: bool = False
    train: Path | None = None
    nearest: int = 0
    cache: str | os.PathLike[str] | None = None

    def facts(self) -> dict[str, Any]:
        """What the results depend on besides the photos, ready for JSON."""
        parameter = next(Subject.of(self.model, None, None).module.parameters(), None)
        return {
            "study": "cases",
            "torch": str(torch.__version__),
            "pillow": PIL.__version__,
            "device": "cpu" if parameter is None else parameter.device.type,
            "class_names": None if self.class_names is None else list(self.class_names),
            "explained": self.explained,
            "numerics": self.numerics,
            "nearest": self.nearest,
            "train": None if self.train is None else digest([_state(p) for p in self._training]),
            **facts_of(self.model, self.method, self.layers, self.seed),
        }

    @property
    def _training(self) -> Sequence[Sample]:
        return open_folder(self.train or "", self.class_names, labels=True)

    def __call__(self, photos: Sequence[Sample], dialled: Sequence[bool]) -> dict[str, Any]:
        """What is measured of some photos, ready for JSON; each is named by its place among them.

        ``dialled`` says which of them take part in the experiment on confidence.

        Raises:
            MethodError: the model has no classes.
        """
        places = {photo.file: place for place, photo in enumerate(photos)}
        unread: list[Skipped] = []
        (read,) = read_photos(photos, len(photos), unread)
        skipped = [(places[path], reason) for path, reason in unread]
        measured: list[dict[str, Any]] = []
        if read:
            pictures = [picture for _, picture in read]
            target: Any = self.explained
            if target == "label":
                target = [photo.label for photo, _ in read]
            explanation = explain_photos(
                self.model,
                pictures,
                method=self.method,
                target=target,
                layers=self.layers,
                seed=self.seed,
                batch_size=len(pictures),
            )
            if explanation.logits is None or explanation.logits.shape[1] < 2:
                raise MethodError("the four cases need a model with two or more classes")
            computed = None
            if self.numerics:
                module, inputs, _, _ = prepare(self.model, pictures)
                (computed,) = numerics(module, inputs, explanation)
            for i, (photo, _) in enumerate(read):
                place = places[photo.file]
                shown = explanation.predictions[i]
                if not shown or not math.isfinite(shown[0].probability):
                    skipped.append((place, f"{str(photo.path)!r}: the model returns NaN for it"))
                    continue
                turned = None
                if dialled[place]:
                    one = numerics(module, inputs[i : i + 1], explanation[i], DIALLED)
                    turned = [_maps_measured(each) for each in one]
                measured.append({
                    "place": place,
                    "dialled": turned,
                    **self._measured(photo, explanation[i]),
                    **_maps_measured(None if computed is None else _at(computed, i)),
                })  # fmt: skip
        return {"photos": measured, "skipped": skipped}

    def _measured(self, photo: Sample, explanation: Explanation) -> dict[str, Any]:
        attribution = explanation.maps[0]
        predicted = explanation.predictions[0][0]
        size = (int(attribution.shape[0]), int(attribution.shape[1]))
        mask = box_mask(photo.boxes, explanation.views[0].box, size)
        names = self.class_names
        seen, mapped = drawn(explanation, photo.boxes)
        sides = [] if predicted.index == photo.label else self._sides(photo, explanation)
        return {
            "right": predicted.index == photo.label,
            "true_class": names[photo.label or 0] if names else f"class {photo.label}",
            "predicted_class": predicted.name,
            "explained": explanation.explained[0],
            "confidence": predicted.probability,
            "saliency": number(saliency_score(explanation.maps, mask[None])[0])
            if bool(mask.any())
            else None,
            "islands": islands(attribution),
            "messages": [
                *explanation.diagnostics[0].messages,
                *(
                    f"there is no training photo of {side['class_name']} to show"
                    for side in sides
                    if self.train is not None and not side["nearest"]
                ),
            ],
            "seen": _text(seen),
            "mapped": _text(mapped),
            "sides": sides,
        }

    def _sides(self, photo: Sample, explanation: Explanation) -> list[dict[str, Any]]:
        """Of a wrongly predicted photo: the maps of the predicted and of the true class, and what is near in each."""
        how: dict[str, Any] = {"method": self.method, "layers": self.layers, "seed": self.seed}
        wanted = {"predicted": explanation.predictions[0][0].index, "true": photo.label or 0}
        role_of: dict[Any, str] = {None: "predicted", "label": "true"}
        near: dict[int, ClassExamples] = {}
        if self.train is not None:
            with suppress(ImageError):  # no training photo of either class
                found = examples(
                    self.model, photo.file, self.train, true=photo.label, k=self.nearest, cache=self.cache, **how
                )  # fmt: skip
                near = {side.class_index: side for side in found.sides}
        sides = []
        for role, index in wanted.items():
            side = near.get(index)
            if self.explained == index or role_of.get(self.explained) == role:
                one = explanation
            elif side:
                one = side.explanation
            else:
                one = explain_photos(self.model, [photo.picture()], target=[index], **how)
            sides.append({
                "role": role,
                "class_name": self.class_names[index] if self.class_names else f"class {index}",
                "mapped": _text(drawn(one, photo.boxes)[1]),
                "nearest": [
                    {
                        "file": str(n.photo.path), "distance": n.distance,
                        "seen": _text(n.explanation.seen().picture), "mapped": _text(drawn(n.explanation, ())[1]),
                    }
                    for n in (side.neighbours if side else ())
                ],
            })  # fmt: skip
        return sides


def _text(picture: Image.Image) -> str:
    """A picture as JSON holds it: JPEG in base 64."""
    return base64.b64encode(jpeg(picture)).decode("ascii")


def _at(computed: Numerics, i: int) -> Numerics:
    return Numerics(
        {name: m[i : i + 1] for name, m in computed.maps.items()},
        {name: v[i : i + 1] for name, v in computed.levels.items()},
        computed.pole_share[i : i + 1],
    )


def _maps_measured(computed: Numerics | None) -> dict[str, Any]:
    """The numbers about one image's maps, where I-CAM's numerics are varied."""
    if computed is None:
        return {"patchiness": {}, "levels": {}, "same": {}, "pole_share": None}
    exact = computed.maps["exact"].flatten()
    return {
        "patchiness": {n: number(patchiness(m)[0]) for n, m in computed.maps.items()},
        "levels": {n: number(v[0]) for n, v in computed.levels.items()},
        "same": {n: number(correlation(m.flatten(), exact)) for n, m in computed.maps.items()},
        "pole_share": number(computed.pole_share[0]),
    }  # fmt: skip


def case_photo(measured: Mapping[str, Any], photo: Path, threshold: float) -> CasePhoto:
    """The case that a photo is, from what was measured of it."""
    sure = "confident" if measured["confidence"] >= threshold else "unsure"
    own = {name: v for name, v in measured.items() if name not in {"place", "dialled", "right"}}
    own["messages"] = tuple(own["messages"])
    own = _pictures_read(own)
    own["sides"] = tuple(
        CaseSide(**{**side, "nearest": tuple(NearPhoto(**near) for near in side["nearest"])})
        for side in own["sides"]
    )
    return CasePhoto(
        file=str(photo), case=f"{sure}-{'right' if measured['right'] else 'wrong'}", **own
    )


def _pictures_read(value: Any) -> Any:
    """The same with its pictures as JPEG."""
    if isinstance(value, list):
        return [_pictures_read(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64decode(one) if name in {"seen", "mapped"} else _pictures_read(one)
        for name, one in value.items()
    }


def dial_means(turned: Sequence[Sequence[dict[str, Any]]]) -> Dial:
    """Means over what was measured of each dialled photo."""

    def means(what: str, variant: str) -> list[float | None]:
        return [mean([one[i][what][variant] for one in turned]) for i in range(len(DIALLED))]

    return Dial(
        images=len(turned),
        confidences=DIALLED,
        patchiness={v: means("patchiness", v) for v in VARIANTS},
        levels={v: means("levels", v) for v in VARIANTS},
        same={v: means("same", v) for v in VARIANTS},
        constant={
            v: [sum(one[i]["patchiness"][v] is None for one in turned) for i in range(len(DIALLED))]
            for v in VARIANTS
        },
        pole_share=[mean([one[i]["pole_share"] for one in turned]) for i in range(len(DIALLED))],
    )


def box_mask(
    boxes: Sequence[Box], view: tuple[float, float, float, float], size: tuple[int, int]
) -> Tensor:
    """The union of boxes as the model sees it.

    Boxes are ``(xmin, ymin, xmax, ymax)`` in pixels of the photo, ``view`` the part of it that the model sees, see
    :meth:`camlucida.Preprocess.crop_box`. Those of the ``(H, W)`` pixels count whose centre lies in a box.
    """
    left, top, right, bottom = view
    x = left + (torch.arange(size[1], dtype=torch.float64) + 0.5) * (right - left) / size[1]
    y = top + (torch.arange(size[0], dtype=torch.float64) + 0.5) * (bottom - top) / size[0]
    mask = torch.zeros(size, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        mask |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    return mask


def drawn(explanation: Explanation, boxes: Sequence[Box]) -> tuple[Image.Image, Image.Image]:
    """What the model saw of one photo, with the boxes in black and white, and the same under its map."""
    seen = explanation.seen()
    picture, (width, height) = seen.picture, seen.picture.size
    mapped = overlays.overlay(seen, explanation.maps[0])
    left, top, right, bottom = explanation.views[0].box
    for drawing in (ImageDraw.Draw(picture), ImageDraw.Draw(mapped)):
        for x0, y0, x1, y1 in boxes:
            corners = (
                (x0 - left) / (right - left) * width,
                (y0 - top) / (bottom - top) * height,
                (x1 - left) / (right - left) * width,
                (y1 - top) / (bottom - top) * height,
            )
            drawing.rectangle(corners, outline="black", width=4)
            drawing.rectangle(corners, outline="white", width=2)
    return picture, mapped


def cases(
    model: nn.Module | LoadedModel,
    folder: str | os.PathLike[str],
    *,
    boxes: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    method: MethodLike = "gradcam",
    explain: str | int = "predicted",
    layers: Layers | None = None,
    seed: int = 0,
    dial: int | None = None,
    train: str | os.PathLike[str] | None = None,
    nearest: int = 3,
    selection: Literal["all", "paper"] = "all",
    batch_size: int = 8,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CaseStudy:
    """Explain every photo of a labelled folder, and sort the photos into the four cases: sure or not, right or wrong.

    Args:
        model: the model, as for :func:`camlucida.explain`; it must know how photos are prepared.
        folder: one subfolder of photos per class, see :func:`camlucida.data.folders.open_folder`.
        boxes: a table of boxes, see there.
        threshold: confidence from which on a prediction counts as confident.
        method: any, as for :func:`camlucida.explain`.
        explain: the class that is explained: ``"predicted"``, ``"label"``, or one for all photos, by name or index.
        layers: the layers; the method's own choice by default.
        seed: of methods that draw random numbers, and of the permutation tests.
        dial: with I-CAM only: also study what its numerics do to its maps, and let so many photos, spread over the
            folder, take part in the experiment on confidence. ``None`` leaves the study out.
        train: a folder of training photos like ``folder``; beside every wrongly predicted photo the nearest ones of
            the predicted and of the true class are shown with their maps, see :func:`camlucida.studies.icam.examples`.
        nearest: how many of either class.
        selection: ``"all"`` photos, or the ``"paper"``'s: five classes of highest F1, ten most confident photos each.
        batch_size: photos at a time.
        cache: a folder that keeps what is measured, so that a stopped study goes on where it was, and another
            threshold costs nothing; what is kept is used only for the same model, options, batch size and
            unchanged files. What is done is kept also after Ctrl-C.
        progress: is called with the number of photos done and their total.

    Raises:
        ImageError: no photo can be read.
        MethodError: the model has no classes, or the threshold or batch size is out of range.
        CamlucidaError: the boxes or the folder do not fit, or the cache cannot be written.

    Example:
        >>> study = camlucida.studies.icam.cases(loaded, "photos")
        >>> [found["photos"] for found in study.table()]  # confident or unsure, right or wrong
        [..., ..., ..., ...]
    """
    if not 0 < threshold < 1 or batch_size < 1 or (dial or 0) < 0:
        raise MethodError(
            f"threshold must lie in (0, 1), batch_size be >= 1 and dial >= 0, got {threshold}, {batch_size} "
            f"and {dial}"
        )
    if nearest < 1 or selection not in {"all", "paper"}:
        raise MethodError(
            f"nearest must be >= 1 and selection all or paper, got {nearest}, {selection!r}"
        )
    if dial is not None:
        if isinstance(method, tuple) or callable(method):
            raise MethodError("the study of numerics takes I-CAM as text or as an object")
        method = build_as(ICAM, method)
    names = model.class_names if isinstance(model, LoadedModel) else class_names_of(model)
    root = Path(folder)
    every = open_folder(root, names, labels=True, boxes=None if boxes is None else os.fspath(boxes))
    skipped = list(every.skipped)
    chosen: Sequence[Sample] = every
    scores: dict[int, float] = {}
    if selection == "paper":
        chosen, scores = as_published(model, every, skipped, batch_size=batch_size)
    total = len(chosen)
    count = min(dial or 0, total)
    turning = {chosen[i * total // count].file for i in range(count)}
    fixed = {"predicted": None, "label": "label"}
    explained: Any = fixed[explain] if explain in fixed else resolve_class(explain, names)
    examine = Examination(
        model, names, method, layers, seed, explained, dial is not None,
        None if train is None else Path(train), nearest if train else 0, cache,
    )  # fmt: skip
    facts = {} if cache is None else {**examine.facts(), "root": str(root.resolve())}
    found: list[CasePhoto] = []
    turned: list[list[dict[str, Any]]] = []
    for start in range(0, total, batch_size):
        photos = chosen[start : start + batch_size]
        dialled = [photo.file in turning for photo in photos]
        store = Store(cache, {**facts, "photos": [_state(p) for p in photos], "dialled": dialled})
        part = store.value(f"cases {start:06d}", partial(examine, photos, dialled))
        skipped += [(photos[place].file, reason) for place, reason in part["skipped"]]
        for one in part["photos"]:
            found.append(case_photo(one, photos[one["place"]].file, threshold))
            if one["dialled"] is not None:
                turned.append(one["dialled"])
        if progress is not None:
            progress(start + len(photos), total)
    if not found:
        reason = skipped[-1][1] if skipped else "there is none"
        raise ImageError(f"no photo in {str(root)!r} can be read: {reason}")
    return CaseStudy(
        photos=tuple(found),
        threshold=threshold,
        dial=dial_means(turned) if turned else None,
        skipped=tuple(skipped),
        model=model.name if isinstance(model, LoadedModel) else type(model).__name__,
        method=told(method),
        seed=seed,
        selection={names[i] if names else f"class {i}": score for i, score in scores.items()},
    )


def _state(photo: Sample) -> list[Any]:
    """What is measured of a photo depends on: its file, which is not read for this, its class and boxes."""
    try:
        status = photo.file.stat()
        file = [status.st_mtime_ns, status.st_size, status.st_mode]  # the mode: may it be read
    except OSError:
        file = []
    return [photo.key, file, photo.label, photo.boxes]
