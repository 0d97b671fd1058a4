"""Features of training images where their maps mark them, their distance, and how they are kept between runs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from camlucida.common.errors import LayerError
from camlucida.common.files import write
from camlucida.common.jsonable import digest
from camlucida.common.version import __version__
from camlucida.data.folders import read_photos
from camlucida.data.samples import Sample, Skipped
from camlucida.engine.layers import INPUT, Layers, default_layer
from camlucida.engine.maps import normalise
from camlucida.engine.tap import tap
from camlucida.explanation import Explanation
from camlucida.explanation.explain import MethodLike, explain
from camlucida.explanation.subject import prepare
from camlucida.methods import Progress
from camlucida.models import LoadedModel
from camlucida.studies.icam.facts import facts_of

Feature = npt.NDArray[np.float32]


def describe(
    model: nn.Module | LoadedModel,
    pictures: Sequence[Image.Image],
    classes: Sequence[int] | None,
    *,
    method: MethodLike,
    layers: Layers | None = None,
    seed: int = 0,
) -> tuple[Explanation, Feature]:
    """Explanations of some pictures, and the features of what their maps mark, see :mod:`camlucida.studies.icam`.

    A method that does not weigh its layers gives them equal weights; of a method that explains no layer that can be
    read, the map is laid over the model's last feature map. Features are ``(N, D)``, each of length 1 (0 where nothing
    is active). By default the predicted classes are explained.
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
    maps = {name: m for name, m in explanation.layer_maps.items() if name != INPUT}
    try:
        activations = dict(tap(module, inputs, list(maps), gradients=False).activations)
    except LayerError:
        activations = {}
    if not activations or not all(m.shape[1:] == activations[n].shape[2:] for n, m in maps.items()):
        last = default_layer(module, inputs)
        activations = dict(tap(module, inputs, [last], gradients=False).activations)
        height, width = activations[last].shape[2:]
        maps = {last: F.adaptive_avg_pool2d(explanation.maps[:, None], (height, width))[:, 0]}
    equal = torch.full((len(inputs), len(maps)), 1 / len(maps))
    weights = explanation.details.get("layer_weight", equal)
    weights = weights if weights.shape == equal.shape else equal
    return explanation, weighted_features(activations, maps, weights)


def weighted_features(
    activations: dict[str, Tensor], maps: dict[str, Tensor], weights: Tensor
) -> Feature:
    """The features of images, given what I-CAM found.

    Args:
        activations: the activations of each layer, ``(N, K, h, w)``.
        maps: the maps of each layer, ``(N, h, w)``.
        weights: the weights of the layers, ``(N, L)``, in the order of ``maps``.

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


def distance(a: Feature, b: Feature) -> float:
    """One minus the cosine of two features, 0 to 2; NaN where one of them is."""
    return float(np.maximum(0.0, 1 - np.dot(a.astype(np.float64), b.astype(np.float64))))


Describer: TypeAlias = Callable[[Sequence[tuple[Sample, Image.Image]]], tuple[Explanation, Feature]]
"""Explains photos, and gives their features ``(N, D)``."""


_NOT_FINITE = "{!r}: the model returns NaN or infinite values for it"


def feature_key(
    model: nn.Module | LoadedModel, method: MethodLike, layers: Layers | None, seed: int
) -> str:
    """What a feature depends on besides the photo: weights, preparation, method, layers, seed."""
    return digest([__version__, facts_of(model, method, layers, seed)])


class FeatureStore:
    """Features of training images, kept in a file between runs.

    Args:
        folder: where the file lies; ``None`` keeps nothing.
        key: what the features depend on besides the photos.
        root: the training folder, whose photos are named relative to it.
    """

    _EVERY = 64  # photos between two writes of the file

    def __init__(self, folder: Path | None, key: str, root: Path) -> None:
        mark = digest([key, root.resolve()])[:16]
        self.file = None if folder is None else folder / f"examples-features-{mark}.npz"
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
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return {}
        return {
            str(name): ((int(state[0]), int(state[1]), int(state[2])), feature)
            for name, state, feature in zip(names, states, features, strict=True)
        }

    def get(self, photo: Sample) -> Feature | None:
        """The feature of a photo whose file and class are as they were."""
        row = self._rows.get(photo.key)
        return row[1] if row is not None and row[0] == _state(photo) else None

    def put(self, photo: Sample, feature: Feature) -> None:
        """Keep the feature of a photo."""
        self._rows[photo.key] = (_state(photo), feature)

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            CamlucidaError: it cannot be written.
        """
        if self.file is None or not self._rows:
            return
        arrays = {
            "key": np.array(self._key),
            "names": np.array(list(self._rows)),
            "states": np.array([state for state, _ in self._rows.values()], dtype=np.int64),
            "features": np.stack([feature for _, feature in self._rows.values()]),
        }
        write(self.file, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    def complete(
        self,
        photos: Sequence[Sample],
        describer: Describer,
        batch_size: int,
        skipped: list[Skipped],
        progress: Progress | None = None,
    ) -> tuple[dict[Path, Feature], int]:
        """The features of all photos that can be read, and how many had to be computed.

        The file is written now and then, and in any case at the end, also after Ctrl-C or an error.
        """
        features = {p.file: f for p in photos if (f := self.get(p)) is not None}
        missing = [p for p in photos if p.file not in features]
        done, unsaved = len(features), 0
        try:
            for read in read_photos(missing, batch_size, skipped):
                if read:
                    _, found = describer(read)
                    for (photo, _), feature in zip(read, found, strict=True):
                        if not np.isfinite(feature).all():
                            skipped.append((photo.file, _NOT_FINITE.format(str(photo.path))))
                            continue
                        self.put(photo, feature)
                        features[photo.file] = feature
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


def _state(photo: Sample) -> tuple[int, int, int]:
    """Time and size of the file (zeros where it is gone), and the class that it is explained for."""
    try:
        status = photo.file.stat()
    except OSError:
        return 0, 0, photo.label or 0
    return status.st_mtime_ns, status.st_size, photo.label or 0
