"""Given models on any number of photos: how far apart their maps are, batch by batch."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.measure import moved
from camlucida.audits.fooling.tune import Attack, fitting
from camlucida.audits.request import Request
from camlucida.audits.trial import Trial
from camlucida.common.ahead import THREADS, ahead
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import CHECKPOINTS
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.data.draws import draw
from camlucida.data.open import open_known
from camlucida.data.samples import DataSet, Sample
from camlucida.engine.reading import original, reading
from camlucida.explanation.subject import ModelLike, Subject, prepare
from camlucida.metrics.agreement import similarity
from camlucida.metrics.concentration import cam_entropy
from camlucida.models import LoadedModel
from camlucida.models.checkpoint import load_weights
from camlucida.targets import LogitMargin
from camlucida.targets.margin import takes_lse
from camlucida.training.cam_loss import TrainableCAM
from camlucida.training.sham import Layout, sham_mask

CLEAN = "clean"
_REFERENCE = Candidate("gradcam")
Batch = tuple[Tensor, Tensor]


class Photos(Sequence[Batch]):
    """Inputs and classes of a data set, batch by batch; a batch is read when it is asked for.

    Args:
        model: with its preprocessing.
        data: the photos; the class of one without a label is -1.
        size: of a batch.
    """

    def __init__(self, model: LoadedModel, data: DataSet, size: int) -> None:
        self.model, self.data, self.size = model, data, size

    def __len__(self) -> int:
        return (len(self.data) + self.size - 1) // self.size

    def __getitem__(self, index: Any) -> Any:
        """Those that can be read.

        Raises:
            ImageError: none can be.
        """
        samples = self.data[index * self.size : (index + 1) * self.size]
        with closing(ahead(samples, _read, THREADS, self.size)) as read:
            found = [(sample.label, photo) for sample, photo in read if not isinstance(photo, str)]
        if not found:
            raise ImageError(f"{_read(samples[0])} (and {len(samples) - 1} other photos)")
        _, inputs, _, _ = prepare(self.model, [photo for _, photo in found])
        labels = [-1 if label is None else label for label, _ in found]
        return inputs, torch.tensor(labels, device=inputs.device)


def _read(sample: Sample) -> Any:
    try:
        return sample.picture()
    except ImageError as error:
        return str(error)


@dataclass(frozen=True)
class Compared:
    """What is found of a clean model and of others, on the same images.

    Attributes:
        moves: what happened to each method's maps, see :func:`camlucida.audits.fooling.measure.moved`: by model, by
            method. Of the clean model only the ``similarity`` to Grad-CAM, which all have.
        right: whether a model tells the class of each image.
        entropy: of the attacked map of each image, in nats.
        far: its distance from the mask.
        soft: for which images the guideline chooses LSE.
        spread: standard deviation of the rivals' logits of each image.
        mask: that a SHAM attack pushes maps to, ``(h, w)``.
    """

    moves: dict[str, dict[str, dict[str, Any]]]
    right: dict[str, list[bool]]
    entropy: dict[str, list[float]]
    far: dict[str, list[float]]
    soft: list[bool]
    spread: list[float]
    mask: Tensor

    @property
    def images(self) -> int:
        """How many."""
        return len(self.soft)

    def accuracy(self, side: str = CLEAN) -> float:
        """Of a model."""
        return sum(self.right[side]) / len(self.right[side])

    def reached(self, side: str) -> float:
        """By which share a model's attacked map is nearer to the mask than the clean model's."""
        before, after = (mean_std(self.far[one])[0] for one in (CLEAN, side))
        return 1 - after / before if before > 0 else 0.0

    def similarity(self, label: str) -> list[float]:
        """Distance of a method's maps from Grad-CAM's, on the clean model."""
        found: list[float] = self.moves[CLEAN][label].get("similarity", [])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**vars(self), "mask": self.mask.tolist(), "images": self.images}


@dataclass(frozen=True)
class Sides:
    """A clean model and others, the images, and where finished batches are kept.

    Attributes:
        trial: the clean model and its layer; its images are the first batch.
        others: by what they are called, such as ``"fooled"``.
        photos: inputs and classes by batch; -1 stands for the class that the clean model predicts.
        store: a stopped comparison goes on.
        named: names of the classes, where they are known.
        of: what the images are, in words.
    """

    trial: Trial
    others: Mapping[str, nn.Module]
    photos: Sequence[Batch]
    store: Store
    named: tuple[str, ...] | None = None
    of: str = ""

    @classmethod
    def open(
        cls, request: Request, others: Mapping[str, ModelLike], per_class: int | None = None
    ) -> Sides:
        """Of what a user asks: ``request.model`` is the clean model.

        Args:
            request: model, images, layer, and whatever else audits are asked.
            others: modules; names of models; or files with weights for the clean model's own architecture.
            per_class: draw so many photos of each class; by default every photo is used.

        Raises:
            CamlucidaError: a model or the photos cannot be opened, do not fit each other, or have no classes.
        """
        if request.model is None or request.data is None:
            raise CamlucidaError(
                "two models are compared on photos: give the clean one, and the data"
            )
        known = Subject.of(
            request.model, request.preprocess, request.class_names, request.outputs,
            architecture=request.architecture, device=request.device,
        )  # fmt: skip
        loaded, given = known.loaded, request.data
        if isinstance(given, str | os.PathLike):
            given = open_known(given, class_names=known.class_names)
        if isinstance(given, DataSet):
            given = draw(given, per_class=per_class, count=request.count, seed=request.seed)
            photos: Sequence[Batch] = Photos(loaded, given, request.batch_size)
            source = given.describe()
        else:
            photos, source = _split(given, request.batch_size)
        inputs, labels = photos[0]
        module = prepare(loaded, inputs)[0]
        opened = {name: _module(one, loaded, known, inputs) for name, one in others.items()}
        trial = Trial(
            module, inputs, labels, request.layer, known.preprocess, request.seed, request.batch_size,
            request.name or known.name,
        )  # fmt: skip
        layer = trial.explained_layer
        if layer is None:
            raise CamlucidaError(f"{trial.name} has no feature map that could be explained")
        trial = replace(trial, layer=layer)
        weights = {name: fingerprint(one) for name, one in {CLEAN: module, **opened}.items()}
        key = {"compared": weights, "data": source, "layer": layer, "batch": request.batch_size}
        key |= {"preprocess": str(known.preprocess), "seed": request.seed}
        store = Store(request.out, key)
        return cls(trial, opened, photos, store, known.class_names, str(source.get("name", "")))

    def compare(
        self,
        methods: Sequence[Candidate],
        *,
        layout: Layout | Tensor = "rounded",
        say: Say = lambda *_: None,
    ) -> Compared:
        """Explain every image on every model; the methods of one target share their passes.

        Raises:
            CamlucidaError: a label is none of the model's classes, or these are fewer than two.
        """
        wanted = [replace(one, images=None) for one in methods]
        if _REFERENCE.label not in {one.label for one in wanted}:
            wanted.append(_REFERENCE)
        one = _Batchwise(self, wanted, layout)
        parts = []
        key = [*(w.key for w in wanted), str(layout)]
        for i in range(len(self.photos)):
            say(f"explaining the images of {len(self.others) + 1} models", i, len(self.photos))
            batch = self.photos[i]
            part = f"{fingerprint(*batch)}-{key}"
            parts.append(self.store.value(part, lambda batch=batch: one(*batch)))  # type: ignore[misc]
        say("explaining", len(self.photos), len(self.photos))
        return Compared(**_joined(parts), mask=one.mask)


class _Batchwise:
    """Measures a batch."""

    def __init__(self, sides: Sides, methods: Sequence[Candidate], layout: Layout | Tensor) -> None:
        self.trial, self.methods = sides.trial, methods
        self.models = {CLEAN: sides.trial.model, **sides.others}
        first, layer = self.trial.inputs[:1], str(self.trial.layer)
        shown = fitting(Attack(), self.trial.model, first, layer).shown
        options = replace(shown, cam_layer=layer, mode="eval")
        self.cams = {
            name: TrainableCAM(model, first, options) for name, model in self.models.items()
        }
        self.mask = sham_mask(self.cams[CLEAN].size, layout)

    def __call__(self, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
        trial = replace(self.trial, inputs=inputs, classes=labels)
        logits = {name: replace(trial, model=m).logits() for name, m in self.models.items()}
        classes = _checked(logits[CLEAN], labels)
        trial = replace(trial, classes=classes)
        maps = {name: self._maps(replace(trial, model=m)) for name, m in self.models.items()}
        pinned = LogitMargin(classes, "guideline")
        variance, rivals = pinned.spread(logits[CLEAN])
        mask = self.mask.to(inputs)
        found: dict[str, Any] = {"moves": {}, "right": {}, "entropy": {}, "far": {}}
        for name, model in self.models.items():
            found["moves"][name] = {
                one.label: self._moves(maps[CLEAN], maps[name], one.label) for one in self.methods
            }
            found["right"][name] = (logits[name].argmax(1) == classes).tolist()
            attacked = self.cams[name].observe(model, inputs, classes, trial.batch_size)[1]
            found["entropy"][name] = cam_entropy(attacked).tolist()
            found["far"][name] = (attacked - mask).square().mean((1, 2)).tolist()
        soft = takes_lse(variance, rivals).tolist()
        return {**found, "soft": soft, "spread": variance.sqrt().tolist()}

    def _maps(self, trial: Trial) -> dict[str, Tensor | str]:
        found: dict[str, Tensor | str] = {}
        for margin in dict.fromkeys(one.aggregator for one in self.methods):
            made = trial.maps([one for one in self.methods if one.aggregator == margin])
            for label, one in made.items():
                found[label] = one if isinstance(one, str) else one.raw.detach()
        return found

    def _moves(
        self, clean: Mapping[str, Tensor | str], other: Mapping[str, Tensor | str], label: str
    ) -> dict[str, Any]:
        before, after = clean[label], other[label]
        for maps in (before, after):
            if isinstance(maps, str):
                return {"error": maps}
        found: dict[str, Any] = {}
        if clean is not other:
            found = moved(before, after, self.mask)  # type: ignore[arg-type]
        reference = clean[_REFERENCE.label]
        if isinstance(reference, Tensor) and reference.shape == before.shape:  # type: ignore[union-attr]
            found["similarity"] = similarity(reference, before).tolist()  # type: ignore[arg-type]
        return found


def _checked(logits: Tensor, labels: Tensor) -> Tensor:
    """The explained classes."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise CamlucidaError(
            f"margins need a model of two classes or more, this one returns {tuple(logits.shape)}"
        )
    if int(labels.max()) >= logits.shape[1]:
        raise CamlucidaError(
            f"the model has classes 0 to {logits.shape[1] - 1}, but a label is {int(labels.max())}"
        )
    return torch.where(labels < 0, logits.argmax(1), labels)


def _joined(parts: Sequence[Any]) -> Any:
    """One record from those of consecutive batches."""
    first = parts[0]
    if isinstance(first, dict):
        if wrong := next((p for p in parts if "error" in p), None):
            return wrong
        found = {key: _joined([p[key] for p in parts]) for key in first}
        if "blank" in found:  # counts, and sides of lists
            found["cells"] = first["cells"]
            found["blank"] = [
                sum(sides) for sides in zip(*(p["blank"] for p in parts), strict=True)
            ]
            for key in {"entropy", "to_mask"} & {*found}:
                found[key] = [_joined(side) for side in zip(*(p[key] for p in parts), strict=True)]
        return found
    return [value for part in parts for value in part]


def _split(given: Any, size: int) -> tuple[list[Batch], dict[str, Any]]:
    """A tensor of images that are ready, with their labels."""
    if not (isinstance(given, tuple) and len(given) == 2):
        raise CamlucidaError(
            "give a data set, or a pair of tensors: images (N, C, H, W) and labels (N,)"
        )
    images, labels = given
    if labels.shape != (len(images),) or not len(images):
        raise CamlucidaError(f"got {len(images)} images and {len(labels)} labels")
    both = zip(torch.split(images, size), torch.split(labels, size), strict=True)
    return [*both], {"images": len(images), "sha256": fingerprint(images, labels)}


def _module(given: ModelLike, clean: LoadedModel, known: Subject, inputs: Tensor) -> nn.Module:
    """Another model, read as the clean one is; weights in a file belong to the clean one's architecture."""
    if isinstance(given, str | os.PathLike) and str(given).lower().endswith(CHECKPOINTS):
        build: Callable[..., nn.Module] = lambda *_: copy.deepcopy(original(clean.module))  # noqa: E731
        module = load_weights(Path(given), clean.name, build)[0]
    else:
        module = Subject.of(given).module
    device = inputs.device
    return reading(module.eval().to(device), known.loaded.outputs)
