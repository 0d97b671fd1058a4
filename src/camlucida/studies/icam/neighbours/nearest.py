"""A photo beside the training images that are nearest to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import nn

from camlucida.common.errors import CamlucidaError, ImageError, MethodError
from camlucida.common.printable import name_of, printable
from camlucida.data import resolve_class
from camlucida.data.folders import open_folder
from camlucida.data.images import read_image
from camlucida.data.samples import Sample, Skipped
from camlucida.engine.layers import Layers
from camlucida.explanation import Explanation, Prediction, overlays
from camlucida.explanation.explain import MethodLike
from camlucida.methods import Progress
from camlucida.models import LoadedModel, class_names_of
from camlucida.report import Column, Table
from camlucida.studies.icam.neighbours.features import (
    Feature,
    FeatureStore,
    describe,
    distance,
    feature_key,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Neighbour:
    """A training image near the photo.

    Attributes:
        photo: its file and label.
        distance: one minus the cosine of the features, 0 to 2.
        explanation: its own, for its label's class.
    """

    photo: Sample
    distance: float
    explanation: Explanation = field(repr=False)


@dataclass(frozen=True)
class ClassExamples:
    """The photo beside the nearest training images of one class.

    Attributes:
        role: ``"predicted"``, ``"true"``, ``"asked"``, or several of them: ``"predicted and true"``.
        class_index: the class.
        class_name: its name.
        explanation: the explanation of the photo, for this class.
        neighbours: the nearest first.
        candidates: number of training images they were chosen from.
    """

    role: str
    class_index: int
    class_name: str
    explanation: Explanation = field(repr=False)
    neighbours: tuple[Neighbour, ...]
    candidates: int


@dataclass(frozen=True)
class Examples:
    """A photo explained by training images.

    Attributes:
        photo: its file, where it has one.
        sides: the predicted class, then the true one where it is given and differs; a class of which there is
            no training photo is missing.
        skipped: what of the training folder could not be used, with the reason.
        computed: training images whose features were not in the cache.

    Example:
        >>> found = camlucida.studies.icam.examples(loaded, photo, "photos", true=3)
        >>> found.figure().savefig("examples.png")
    """

    photo: str | None
    sides: tuple[ClassExamples, ...]
    skipped: tuple[Skipped, ...] = ()
    computed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        first = self.sides[0].explanation
        return {
            "photo": self.photo,
            "predictions": first.record()["images"][0]["predictions"],
            "sides": [
                {
                    "role": side.role,
                    "class_index": side.class_index,
                    "class_name": side.class_name,
                    "candidates": side.candidates,
                    "neighbours": [
                        {
                            "file": str(n.photo.path),
                            "label": n.photo.label_name,
                            "distance": n.distance,
                        }
                        for n in side.neighbours
                    ],
                }
                for side in self.sides
            ],
            "skipped": [{"file": str(p), "reason": reason} for p, reason in self.skipped],
            "computed": self.computed,
            "provenance": first.provenance.to_dict(),
        }

    def figure(self) -> Figure:
        """Two rows per class: the photo and its neighbours, and their maps below."""
        width = 1 + max(len(side.neighbours) for side in self.sides)
        size = self.sides[0].explanation.seen().picture.size
        blank = Image.new("RGB", size, "white")
        rows: list[list[Image.Image]] = []
        labels: list[str] = []
        captions: dict[int, str] = {}
        for side in self.sides:
            drawn = [side.explanation, *(n.explanation for n in side.neighbours)]
            words = [name_of(self.photo or "photo")] + [
                f"{name_of(n.photo.file)}\ndistance {n.distance:.3f}" for n in side.neighbours
            ]
            captions |= {len(rows) * width + i: text for i, text in enumerate(words)}
            empty = [blank] * (width - len(drawn))
            rows.append([_seen(e) for e in drawn] + empty)
            rows.append([_seen(e, mapped=True) for e in drawn] + empty)
            name = side.class_name.partition(",")[0]
            labels += [f"{side.role} class:\n{name}", side.explanation.label]
        figure = overlays.grid(rows, rows=labels, cell=1.9)
        for position, text in captions.items():
            figure.axes[position].set_title(text, fontsize=6.5, parse_math=False)
        return figure

    def __rich__(self) -> Any:
        """A table for the terminal."""
        rows = [
            (
                f"{side.class_name.partition(',')[0]} ({side.role})",
                printable(n.photo.file),
                n.distance,
            )
            for side in self.sides
            for n in side.neighbours
        ]
        columns = ("class", "nearest training images", Column("distance", places=4))
        return Table.of_rows("examples", "Nearest training images", columns, rows).rich()


def _best(explained: Explanation) -> Prediction:
    """The predicted class of the photo."""
    if explained.logits is None or explained.logits.shape[1] < 2:
        raise MethodError("examples need a model with two or more classes")
    if not explained.predictions[0]:
        raise MethodError("the model returns NaN for the photo, so that nothing is near to it")
    return explained.predictions[0][0]


def examples(
    model: nn.Module | LoadedModel,
    photo: str | os.PathLike[str] | Image.Image,
    train: str | os.PathLike[str],
    *,
    true: str | int | None = None,
    classes: Sequence[str | int] = (),
    k: int = 5,
    method: MethodLike = "gradcam",
    layers: Layers | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Examples:
    """The training images nearest to a photo in what its map marks, for the predicted class and others that are given.

    Args:
        model: the model, as for :func:`camlucida.explain`; it must know how photos are prepared.
        photo: a file or a picture. If it lies in the training folder itself, it is no neighbour of its own.
        train: a folder with one subfolder of photos per class, see
            :func:`camlucida.data.folders.open_folder`.
        true: the photo's true class, an index or a name.
        classes: further classes to find neighbours in, by index or name.
        k: number of neighbours per class.
        method: any, as for :func:`camlucida.explain`; I-CAM weighs the layers by how much they matter.
        layers: the layers; the method's own choice by default.
        seed: of methods that draw random numbers.
        cache: a folder that keeps the training images' features, in one file for each model, method, layers and
            seed; it is read only where a photo's file is unchanged. What is done is kept also after Ctrl-C.
        batch_size: training images at a time.
        progress: is called with the number of training images done and their total.

    Raises:
        ImageError: the photo cannot be read, or the folder holds no usable photo of either class.
        TargetError: a class is unknown.
        MethodError: the model has no classes, or returns NaN for the photo.
        CamlucidaError: k is less than 1, or the cache cannot be written.

    Example:
        >>> found = camlucida.studies.icam.examples(loaded, photo, "photos", true=3)
        >>> [neighbour.photo.key for neighbour in found.sides[-1].neighbours]
        ['3/photo.jpg']
    """
    if k < 1 or batch_size < 1:
        raise CamlucidaError(f"k and batch_size must be at least 1, got {k} and {batch_size}")
    names = model.class_names if isinstance(model, LoadedModel) else class_names_of(model)
    folder = open_folder(train, names, labels=True)
    root = Path(train)
    path = None if isinstance(photo, Image.Image) else os.fspath(photo)
    picture = read_image(photo)
    asked = [] if true is None else [("true", true)]
    asked += [("asked", one) for one in classes]
    explained, feature = describe(model, [picture], None, method=method, layers=layers, seed=seed)
    predicted = _best(explained)
    roles = {predicted.index: ["predicted"]}
    for role, one in asked:
        roles.setdefault(resolve_class(one, names), []).append(role)
    sides = []
    for index, told in roles.items():
        if index != predicted.index:
            explained, feature = describe(
                model, [picture], [index], method=method, layers=layers, seed=seed
            )
        role = " and ".join(dict.fromkeys(told))
        sides.append((role, index, explained, feature[0]))
    if not all(np.isfinite(of_photo).all() for *_, of_photo in sides):
        raise MethodError(
            "the model returns NaN or infinite values for the photo, so nothing is near it; in single "
            "precision (model.float()) it may not"
        )
    own = None if path is None else os.path.realpath(path)
    of_class = {
        index: [p for p in folder if p.label == index and os.path.realpath(p.file) != own]
        for _, index, _, _ in sides
    }
    skipped = list(folder.skipped)
    for index, found in of_class.items():
        if not found:
            other_words = "other " if any(p.label == index for p in folder) else ""
            words = f"no {other_words}photo of the class {_class_name(index, names)!r} ({index})"
            skipped.append((root, f"{str(root)!r} holds {words}"))
    if not any(of_class.values()):
        raise ImageError(skipped[-1][1])
    key = feature_key(model, method, layers, seed)
    store = FeatureStore(None if cache is None else Path(cache), key, root)
    every = [p for found in of_class.values() for p in found]
    describer = _Describer(model, method, layers, seed)
    features, computed = store.complete(every, describer, batch_size, skipped, progress)
    found_sides = []
    for role, index, explanation, own_feature in sides:
        candidates = [p for p in of_class[index] if p.file in features]
        if not candidates:
            continue
        distances = [distance(own_feature, features[p.file]) for p in candidates]
        order = sorted(range(len(candidates)), key=lambda i, d=distances: (d[i], i))[:k]  # type: ignore[misc]
        nearest = [candidates[i] for i in order]
        theirs = describer.explain(nearest, batch_size)
        found_sides.append(
            ClassExamples(
                role,
                index,
                _class_name(index, names),
                replace(explanation, sources=(path,)),
                tuple(
                    Neighbour(candidates[i], distances[i], e)
                    for i, e in zip(order, theirs, strict=True)
                ),
                len(candidates),
            )
        )
    if not found_sides:
        raise ImageError(f"no photo of the class can be read: {skipped[-1][1]}")
    return Examples(path, tuple(found_sides), tuple(skipped), computed)


@dataclass(frozen=True)
class _Describer:
    """Explains training images, each for its label's class."""

    model: nn.Module | LoadedModel
    method: MethodLike
    layers: Layers | None
    seed: int

    def __call__(self, photos: Sequence[tuple[Sample, Image.Image]]) -> tuple[Explanation, Feature]:
        return describe(
            self.model,
            [picture for _, picture in photos],
            [photo.label for photo, _ in photos if photo.label is not None],
            method=self.method,
            layers=self.layers,
            seed=self.seed,
        )

    def explain(self, photos: Sequence[Sample], batch_size: int) -> list[Explanation]:
        """The explanations of a few photos, which are cheaper made again than kept."""
        found: list[Explanation] = []
        for start in range(0, len(photos), batch_size):
            part = photos[start : start + batch_size]
            one, _ = self([(photo, photo.picture()) for photo in part])
            named = replace(one, sources=tuple(str(photo.path) for photo in part))
            found += list(named)
        return found


def _class_name(index: int, names: Sequence[str] | None) -> str:
    return names[index] if names and 0 <= index < len(names) else f"class {index}"


def _seen(explanation: Explanation, *, mapped: bool = False) -> Image.Image:
    """What the model saw of a photo, under its map if ``mapped``."""
    seen = explanation.seen()
    return overlays.overlay(seen, explanation.maps[0]) if mapped else seen.picture
