r"""Explain by examples: the training images that look most alike to what I-CAM says matters.

The I-CAM authors pick such images by hand and leave finding them to future work; the definition is ours.
For an image and a class, with the maps $L_l$ and the weights $W_l$ (which add up to 1) of the layers that
I-CAM keeps, the feature of layer l is the activation averaged over the places that its map marks,

$v_l = \sum_{ij} M_{l,ij} A_{l,ij} / \sum_{ij} M_{l,ij}$, with $M_l = L_l$ scaled to [0, 1] (uniform where
$L_l$ is constant), divided by its length. The feature of the image is the concatenation of
$\sqrt{W_l} v_l$ over all layers; filtered layers have weight 0. The distance of two images is one minus the
cosine of their features, $\cos(f, f') = \sum_l \sqrt{W_l W'_l} \cos(v_l, v'_l)$: two images are near when the
same layers matter in both, and the same channels are active where these layers look.

A photo is explained once for the predicted class, and once for its true class where that is given; it is
compared with the training images *of that class*, each explained for its own label.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida import render
from camlucida.data.folders import LabelledFolder, LabelledPhoto, Skipped, labelled_folder
from camlucida.data.images import read_image
from camlucida.errors import CamlucidaError, ImageError
from camlucida.explain import explain
from camlucida.layers import Layers
from camlucida.maps import normalise
from camlucida.methods.base import Progress
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel, class_names_of, resolve_class
from camlucida.plain import to_json
from camlucida.provenance import weights_hash
from camlucida.subject import prepare
from camlucida.tap import tap
from camlucida.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from camlucida.explanation import Explanation

_SIDE = 224  # pixels of a picture in the figure

Feature = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbour:
    """A training image near the photo.

    Attributes:
        photo: its file and label.
        distance: one minus the cosine of the features, 0 to 2.
        explanation: its own, for its label's class.
    """

    photo: LabelledPhoto
    distance: float
    explanation: Explanation = field(repr=False)


@dataclass(frozen=True)
class Side:
    """The photo beside the nearest training images of one class.

    Attributes:
        role: ``"predicted"``, ``"true"``, or ``"predicted and true"``.
        class_index: the class.
        class_name: its name.
        explanation: that of the photo, for this class.
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
    """

    photo: str | None
    sides: tuple[Side, ...]
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
                        {"file": str(n.photo.path), "label": n.photo.label, "distance": n.distance}
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
        blank = Image.new("RGB", (_SIDE, _SIDE), "white")
        rows: list[list[Image.Image]] = []
        labels: list[str] = []
        captions: dict[int, str] = {}
        for side in self.sides:
            drawn = [side.explanation, *(n.explanation for n in side.neighbours)]
            words = [Path(self.photo or "photo").name] + [
                f"{n.photo.path.name}\ndistance {n.distance:.3f}" for n in side.neighbours
            ]
            captions |= {len(rows) * width + i: text for i, text in enumerate(words)}
            empty = [blank] * (width - len(drawn))
            rows.append([_seen(e) for e in drawn] + empty)
            rows.append([_seen(e, mapped=True) for e in drawn] + empty)
            labels += [f"{side.role} class:\n{side.class_name.partition(',')[0]}", "I-CAM"]
        figure = render.grid(rows, rows=labels, cell=1.9)
        for position, text in captions.items():
            figure.axes[position].set_title(text, fontsize=6.5)
        return figure

    def __rich__(self) -> Any:
        """A table for the terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold")
        table.add_column("class")
        table.add_column("nearest training images")
        table.add_column("distance", justify="right")
        for side in self.sides:
            title = f"{side.class_name.partition(',')[0]} ({side.role})"
            for n in side.neighbours:
                table.add_row(Text(title), Text(str(n.photo.path)), f"{n.distance:.4f}")
                title = ""
        return table


def nearest_examples(
    model: nn.Module | LoadedModel,
    photo: str | os.PathLike[str] | Image.Image,
    train: str | os.PathLike[str] | LabelledFolder,
    *,
    true: str | int | None = None,
    k: int = 5,
    method: ICAM | None = None,
    layers: Layers | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Examples:
    """The training images nearest to a photo, for the predicted and, if given, the true class.

    Args:
        model: as for :func:`camlucida.explain`; it must know how photos are prepared.
        photo: a file or a picture. If it lies in the training folder itself, it is no neighbour of its own.
        train: a folder with one subfolder of photos per class, see
            :func:`camlucida.data.folders.labelled_folder`.
        true: the photo's true class, an index or a name.
        k: number of neighbours per class.
        method: I-CAM with its options.
        layers: the layers; all blocks by default.
        seed: of the perturbed copies.
        cache: a folder that keeps the training images' features, in one file for each model, method, layers and
            seed; it is read only where a photo's file is unchanged. What is done is kept also after Ctrl-C.
        batch_size: training images at a time.
        progress: called with the number of training images done and their total.

    Raises:
        ImageError: the photo cannot be read, or the folder holds no usable photo of either class.
        TargetError: a class is unknown.
        CamlucidaError: k is less than 1, or the cache cannot be written.
    """
    if k < 1 or batch_size < 1:
        raise CamlucidaError(f"k and batch_size must be at least 1, got {k} and {batch_size}")
    method = method or ICAM()
    names = model.class_names if isinstance(model, LoadedModel) else class_names_of(model)
    folder = train if isinstance(train, LabelledFolder) else labelled_folder(train, names)
    path = None if isinstance(photo, Image.Image) else os.fspath(photo)
    picture = read_image(photo)
    wanted = None if true is None else resolve_class(true, names)
    explained, feature = describe(model, [picture], None, method=method, layers=layers, seed=seed)
    predicted = explained.predictions[0][0]
    sides = [("predicted", predicted.index, explained, feature[0])]
    if wanted == predicted.index:
        sides[0] = ("predicted and true", *sides[0][1:])
    elif wanted is not None:
        other, of_other = describe(
            model, [picture], [wanted], method=method, layers=layers, seed=seed
        )
        sides.append(("true", wanted, other, of_other[0]))
    own = None if path is None else Path(path).resolve()
    of_class = {
        index: [p for p in folder.of_class(index) if p.path.resolve() != own]
        for _, index, _, _ in sides
    }
    skipped = list(folder.skipped)
    for index, found in of_class.items():
        if not found:
            other_words = "other " if folder.of_class(index) else ""
            words = f"no {other_words}photo of the class {_class_name(index, names)!r} ({index})"
            skipped.append((folder.root, f"{str(folder.root)!r} holds {words}"))
    if not any(of_class.values()):
        raise ImageError(skipped[-1][1])
    key = _key(model, method, explained.layers, seed)
    store = FeatureStore(None if cache is None else Path(cache), key, folder.root)
    every = [p for found in of_class.values() for p in found]
    describer = _Describer(model, method, explained.layers, seed)
    features, computed = store.complete(every, describer, batch_size, skipped, progress)
    found_sides = []
    for role, index, explanation, own_feature in sides:
        candidates = [p for p in of_class[index] if p.path in features]
        if not candidates:
            continue
        distances = [_distance(own_feature, features[p.path]) for p in candidates]
        order = sorted(range(len(candidates)), key=lambda i, d=distances: (d[i], i))[:k]  # type: ignore[misc]
        nearest = [candidates[i] for i in order]
        theirs = describer.explain(nearest, batch_size)
        found_sides.append(
            Side(
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


def describe(
    model: nn.Module | LoadedModel,
    pictures: Sequence[Image.Image],
    classes: Sequence[int] | None,
    *,
    method: ICAM,
    layers: Layers | None = None,
    seed: int = 0,
) -> tuple[Explanation, Feature]:
    """I-CAM of some pictures, and the I-CAM-weighted features defined above.

    Args:
        model: as for :func:`camlucida.explain`.
        pictures: of any size.
        classes: one per picture; ``None`` for the predicted ones.
        method: I-CAM.
        layers: the layers; all blocks by default.
        seed: of the perturbed copies.

    Returns:
        The explanation, and the features ``(N, D)``, each of length 1 (0 where nothing is active).
    """
    explanation = explain(
        model,
        list(pictures),
        method=method,
        target=None if classes is None else list(classes),
        layers=layers,
        seed=seed,
        batch_size=len(pictures),
    )
    module, inputs, _, _ = prepare(model, list(pictures))
    seen = tap(module, inputs, list(explanation.layers), gradients=False)
    return explanation, weighted_features(
        seen.activations, explanation.layer_maps, explanation.details["layer_weight"]
    )


def weighted_features(
    activations: dict[str, Tensor], maps: dict[str, Tensor], weights: Tensor
) -> Feature:
    """The features of images, given what I-CAM found.

    Args:
        activations: of each layer, ``(N, K, h, w)``.
        maps: of each layer, ``(N, h, w)``.
        weights: of the layers, ``(N, L)``, in the order of ``maps``.

    Returns:
        ``(N, D)``, D the number of channels of all layers together.
    """
    parts = []
    for position, (name, one) in enumerate(maps.items()):
        where = normalise(one.double())
        total = where.sum(dim=(1, 2), keepdim=True)
        where = torch.where(total > 0, where, 1)
        where = where / where.sum(dim=(1, 2), keepdim=True)
        mean = torch.einsum("nhw,nkhw->nk", where, activations[name].double())
        unit = nn.functional.normalize(mean, dim=1)
        parts.append(weights[:, position, None].to(unit).sqrt() * unit)
    whole = nn.functional.normalize(torch.cat(parts, 1), dim=1)
    return whole.cpu().numpy().astype(np.float32)


def _distance(a: Feature, b: Feature) -> float:
    return float(max(0.0, 1 - np.dot(a.astype(np.float64), b.astype(np.float64))))


@dataclass(frozen=True)
class _Describer:
    """I-CAM on training images, each for its label's class."""

    model: nn.Module | LoadedModel
    method: ICAM
    layers: tuple[str, ...]
    seed: int

    def __call__(
        self, photos: Sequence[tuple[LabelledPhoto, Image.Image]]
    ) -> tuple[Explanation, Feature]:
        return describe(
            self.model,
            [picture for _, picture in photos],
            [photo.class_index for photo, _ in photos],
            method=self.method,
            layers=list(self.layers),
            seed=self.seed,
        )

    def explain(self, photos: Sequence[LabelledPhoto], batch_size: int) -> list[Explanation]:
        """The explanations of a few photos, which are cheaper made again than kept."""
        found: list[Explanation] = []
        for start in range(0, len(photos), batch_size):
            part = photos[start : start + batch_size]
            one, _ = self([(photo, read_image(photo.path)) for photo in part])
            named = replace(one, sources=tuple(str(photo.path) for photo in part))
            found += list(named)
        return found


# ------------------------------------------------------------------------------------------- the cache


def _key(
    model: nn.Module | LoadedModel, method: ICAM, layers: tuple[str, ...], seed: int
) -> str:  # fmt: skip
    """What a feature depends on besides the photo: weights, preparation, method, layers, seed."""
    module = model.module if isinstance(model, LoadedModel) else model
    preprocess = model.preprocess if isinstance(model, LoadedModel) else None
    facts = {
        "camlucida": __version__,
        "weights": weights_hash(module),
        "model": type(module).__name__,
        "preprocess": preprocess.to_dict() if preprocess else None,
        "method": method.describe(),
        "layers": list(layers),
        "seed": seed,
    }
    return hashlib.sha256(to_json(facts).encode()).hexdigest()


class FeatureStore:
    """Features of training images, kept in a file between runs.

    Args:
        folder: where the file lies; ``None`` keeps nothing.
        key: what the features depend on besides the photos.
        root: the training folder, whose photos are named relative to it.
    """

    _EVERY = 64  # photos between two writes of the file

    def __init__(self, folder: Path | None, key: str, root: Path) -> None:
        mark = hashlib.sha256(f"{key}:{root.resolve()}".encode()).hexdigest()[:16]
        self.file = None if folder is None else folder / f"examples-features-{mark}.npz"
        self._root = root
        self._key = key
        self._rows: dict[str, tuple[tuple[int, int, int], Feature]] = {}
        if self.file is not None and self.file.is_file():
            self._rows = self._load(self.file)

    def __len__(self) -> int:
        return len(self._rows)

    def _load(self, file: Path) -> dict[str, tuple[tuple[int, int, int], Feature]]:
        """What the file holds; nothing where it is damaged or of something else."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                if str(stored["key"]) != self._key:
                    return {}
                states, names, features = stored["states"], stored["names"], stored["features"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}
        return {
            str(name): ((int(state[0]), int(state[1]), int(state[2])), feature)
            for name, state, feature in zip(names, states, features, strict=True)
        }

    def _name(self, photo: LabelledPhoto) -> str:
        return photo.path.relative_to(self._root).as_posix()

    def get(self, photo: LabelledPhoto) -> Feature | None:
        """The feature of a photo whose file and class are as they were."""
        row = self._rows.get(self._name(photo))
        return row[1] if row is not None and row[0] == _state(photo) else None

    def put(self, photo: LabelledPhoto, feature: Feature) -> None:
        """Keep the feature of a photo."""
        self._rows[self._name(photo)] = (_state(photo), feature)

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            CamlucidaError: it cannot be written.
        """
        if self.file is None or not self._rows:
            return
        temporary = self.file.with_name(f".writing-{os.getpid()}.npz")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.file, error) from error
        try:
            np.savez_compressed(
                temporary,
                key=np.array(self._key),
                names=np.array(list(self._rows)),
                states=np.array([state for state, _ in self._rows.values()], dtype=np.int64),
                features=np.stack([feature for _, feature in self._rows.values()]),
            )
            temporary.replace(self.file)
        except OSError as error:
            raise _unwritable(self.file, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def complete(
        self,
        photos: Sequence[LabelledPhoto],
        describer: _Describer,
        batch_size: int,
        skipped: list[Skipped],
        progress: Progress | None = None,
    ) -> tuple[dict[Path, Feature], int]:
        """The features of all photos that can be read, and how many had to be computed.

        The file is written now and then, and in any case at the end, also after Ctrl-C or an error.
        """
        from camlucida.data.folders import read_photos

        features = {p.path: f for p in photos if (f := self.get(p)) is not None}
        missing = [p for p in photos if p.path not in features]
        done, unsaved = len(features), 0
        try:
            for read in read_photos(missing, batch_size, skipped):
                if read:
                    _, found = describer(read)
                    for (photo, _), feature in zip(read, found, strict=True):
                        self.put(photo, feature)
                        features[photo.path] = feature
                    unsaved += len(read)
                if unsaved >= self._EVERY:
                    self.save()
                    unsaved = 0
                done = min(done + batch_size, len(photos))
                if progress is not None:
                    progress(done, len(photos))
        finally:
            if unsaved:
                self.save()
        return features, len(missing)


def _unwritable(file: Path, error: OSError) -> CamlucidaError:
    return CamlucidaError(f"cannot write to {str(file)!r}: {error.strerror or error}")


def _state(photo: LabelledPhoto) -> tuple[int, int, int]:
    """Time and size of the file, and the class that it is explained for."""
    status = photo.path.stat()
    return status.st_mtime_ns, status.st_size, photo.class_index


# ------------------------------------------------------------------------------------------- drawing


def _class_name(index: int, names: Sequence[str] | None) -> str:
    return names[index] if names and 0 <= index < len(names) else f"class {index}"


def _seen(explanation: Explanation, *, mapped: bool = False) -> Image.Image:
    """What the model saw of a photo, under its map if ``mapped``."""
    view: render.View = explanation.views[0]
    picture = view.cropped().resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if not mapped:
        return picture
    return render.overlay(render.View(picture, (0, 0, _SIDE, _SIDE)), explanation.maps[0])
