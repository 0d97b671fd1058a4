"""What an audit is asked: model, data, methods, and the words that all audits share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.audits.candidates import Candidate, Choice, choose, usual
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.grammar import refuse_arguments
from camlucida.common.jsonable import digest
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.store import Store
from camlucida.data.images import is_image_file
from camlucida.data.open import open_known, own_data
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet
from camlucida.data.stack_mix import StackFolder, StackMix
from camlucida.engine.layers import resolve
from camlucida.engine.reading import OutputsLike
from camlucida.explanation.explain import listed
from camlucida.explanation.photos import Photo
from camlucida.explanation.subject import ModelLike, PreprocessGiven, Subject, prepare
from camlucida.models import LoadedModel
from camlucida.models.factory import ArchitectureLike

AuditData: TypeAlias = "DataSet | Tensor | tuple[Tensor, Tensor] | Photo | Sequence[Photo]"
"""A data set, also by its path or as ``kind:path,option=value``; a tensor ``(N, C, H, W)`` that is ready, such a tensor
with its labels ``(N,)``; or photos."""


@dataclass(frozen=True)
class Request:
    """What an audit is asked. The Python functions of the audits take its fields as keywords.

    Attributes:
        model: any classifier, or a name or file that :func:`camlucida.load_model` takes; given back as it was. Some
            audits train small networks where it is ``None``.
        data: a data set, also as ``camlucida evaluate`` takes it: a path, or ``kind:path,option=value``; a tensor
            ``(N, C, H, W)`` that is ready, such a tensor with its labels ``(N,)``; or photos. By default the labelled
            photos of this package, or the data that belong to the model, such as ``"digits"``.
        methods: one or several registered names, alone or with options. By default ``quick`` audits take the methods
            of few passes, the others all that are registered; the dead-zone and the fooling audits always take all.
        preprocess: how photos become inputs, as for :func:`camlucida.explain`; the model's own by default.
        layers: the explained layer, which is one; the model's last feature map by default.
        class_names: one per class, or a file of them; by default the model's own.
        outputs: what the model's outputs are, as for :func:`camlucida.explain`; found by default.
        architecture: of a model that is a checkpoint file.
        device: where the model is put, such as ``"cuda"``; by default it stays where it is.
        count: images at most, spread evenly over the data; by default each audit has its own number.
        quick: some minutes on two cores: fewer images, and fewer passes of the methods that take many.
        seed: of everything that is drawn.
        batch_size: images at a time.
        labels: whether the sanity checks train two small networks for the check with shuffled labels.
        checks: those of the sanity checks that are made, by name; all by default, but in a quick audit of all none that
            takes double precision or another network.
        out: the folder where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress, as ``say(what, done, total)``.
        name: of the model, for people; its own by default.

    Example:
        >>> request = camlucida.audits.Request(model, images, methods=["gradcam"], count=1)
        >>> request.open().inputs.shape
        torch.Size([1, 3, 32, 32])
    """

    model: ModelLike | None = None
    data: AuditData | None = None
    methods: Sequence[Choice] | Choice | None = None
    preprocess: PreprocessGiven | None = None
    layers: str | Sequence[str] | None = None
    class_names: Sequence[str] | str | os.PathLike[str] | None = None
    outputs: OutputsLike = None
    architecture: ArchitectureLike | None = None
    device: str | torch.device | None = None
    count: int | None = None
    quick: bool = True
    seed: int = 0
    batch_size: int = 16
    labels: bool = True
    checks: Sequence[str] | None = None
    out: str | os.PathLike[str] | None = None
    say: Say = field(default=lambda *_: None, repr=False)
    name: str = ""

    @classmethod
    def of(
        cls,
        audit: Callable[..., Any],
        model: ModelLike | None,
        data: AuditData | None,
        options: Mapping[str, Any],
    ) -> Request:
        """What a Python function is asked, with its keywords.

        Raises:
            CamlucidaError: the function has no such keyword; the nearest one is named.
        """
        refuse_arguments(audit, options, [f.name for f in fields(cls)])
        return cls(model, data, **options)

    @property
    def layer(self) -> str | None:
        """The name of the explained layer.

        Raises:
            CamlucidaError: there are several.
        """
        given = [self.layers] if isinstance(self.layers, str) else [*(self.layers or ())]
        if len(given) > 1:
            raise CamlucidaError(
                f"an audit explains one layer, got {len(given)}: {', '.join(map(str, given))}"
            )
        return given[0] if given else None

    def tested(self, *, everything: bool = False) -> tuple[Candidate, ...]:
        """The methods with their options.

        Args:
            everything: take all that are registered, where the user named none, also in a quick audit.

        Raises:
            CamlucidaError: one is unknown or given twice, or an option does not fit.
        """
        names = usual(quick=self.quick and not everything)
        return choose(names if self.methods is None else listed(self.methods), quick=self.quick)

    def open(self, few: int = 8, many: int = 50, *, whole: bool = False) -> Trial:
        """The model and the images, ready; images that cannot be read are left out and named.

        Args:
            few: images at most in a quick audit, where the user named no number.
            many: in a full one.
            whole: take all images of a tensor, where the user named no number.

        Raises:
            CamlucidaError: there are no images, none can be read, or there is no such layer.
        """
        if self.model is None:
            raise CamlucidaError("no model was given to be audited")
        known = Subject.of(
            self.model, self.preprocess, self.class_names, self.outputs,
            architecture=self.architecture, device=self.device,
        )  # fmt: skip
        given: Any = self.data
        if given is None:
            given = own_data(known.name) or "photos"
        if isinstance(given, str | os.PathLike) and not is_image_file(given):
            given = open_known(given, class_names=known.class_names)
        data, labels = _labelled(given)
        count = self.count or (few if self.quick else many)
        if whole and self.count is None and isinstance(data, Tensor):
            count = len(data)
        data, labels, skipped = _read(data, labels, count)
        preprocess = _unresized(given, known.preprocess)
        module, inputs, _, preprocess = prepare(known.loaded, data, preprocess)
        if self.layer is not None:
            resolve(module, self.layer)
        source = given.describe() if isinstance(given, DataSet) else {}
        return Trial(
            module,
            inputs,
            layer=self.layer,
            preprocess=preprocess,
            seed=self.seed,
            batch_size=self.batch_size,
            name=self.name or known.name,
            images={**source, **described(inputs), "skipped": skipped},
            labels=labels,
        )

    def but(self, trial: Trial, **changes: Any) -> Request:
        """The same request about a model and images that are open already, with changes."""
        known: Any = dict.fromkeys(
            ("class_names", "outputs", "architecture", "preprocess", "device")
        )
        opened = LoadedModel(trial.model, trial.name, trial.preprocess, None)
        return replace(
            self, model=opened, data=trial.inputs, name=trial.name, **{**known, **changes}
        )

    def record(self, trial: Trial) -> dict[str, Any]:
        """What is needed to run an audit again, ready for JSON."""
        return {
            "model": trial.name,
            "weights_sha256": fingerprint(trial.model),
            "layer": trial.layer,
            "images": trial.images,
            "quick": self.quick,
            "seed": self.seed,
        }

    def store(self, trial: Trial, audit: str, **more: Any) -> Store:
        """Where finished parts of an audit are kept; of another model, other images or options there are none.

        Args:
            trial: model and images.
            audit: its name.
            more: what its parts depend on beside the words that all audits share.
        """
        key = {
            **self.record(trial),
            # The same weights with other activations are another model.
            "network": digest([re.sub(r"0x[0-9a-f]+", "", repr(trial.model))]),
            "classes": None if trial.classes is None else trial.classes.tolist(),
            "batch_size": self.batch_size,
            "preprocess": str(trial.preprocess),
        }
        return Store(self.out, {"audit": audit, **key, **more})


def described(inputs: Tensor) -> dict[str, Any]:
    """Number, size and hash of images that are ready, for JSON."""
    return {
        "used": len(inputs),
        "size": list(inputs.shape[1:]),
        "sha256": fingerprint(inputs),
    }


def _labelled(data: Any) -> tuple[Any, Tensor | None]:
    """Images, and their labels where they are given beside them."""
    if not (
        isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data)
    ):
        return data, None
    images, labels = data
    if labels.shape != (len(images),):
        raise ImageError(
            f"{len(images)} images need as many labels (N,), got shape {tuple(labels.shape)}"
        )
    return images, labels


def _read(data: Any, labels: Tensor | None, count: int) -> tuple[Any, Tensor | None, list[str]]:
    """At most so many images, spread evenly, their labels where all are known, and what cannot be read."""
    several = isinstance(data, DataSet | Tensor | Sequence) and not isinstance(data, str)
    given: Any = data if several else [data]
    if isinstance(data, Tensor) and data.ndim != 4:
        return data, None, []
    places = list(dict.fromkeys(i * len(given) // count for i in range(count)))
    if isinstance(data, Tensor):
        return data[places], None if labels is None else labels[places], []
    found, named, skipped = [], [], []
    for place in places[: len(given)]:
        try:
            one = given[place]
            found.append(_still(one.picture()) if isinstance(data, DataSet) else one)
        except CamlucidaError as error:
            skipped.append(str(error))
        else:
            named.append(getattr(one, "label", None))
    if not found:
        raise ImageError(
            f"none of the images can be read: {skipped[0]}" if skipped else "there are no images"
        )
    known = isinstance(data, DataSet) and None not in named
    return found, torch.tensor(named) if known else None, skipped


def _still(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("RGB")))


def _unresized(data: Any, preprocess: Preprocess | None) -> Preprocess | None:
    """Images that were stacked for the model's size are not resized once more: their seam is where the wall is.

    Source: Taimeskhanov, Sicre and Garreau, ECML 2024, section 3.2.

    Raises:
        CamlucidaError: they are of another size than the model's.
    """
    if not isinstance(data, StackMix | StackFolder) or preprocess is None:
        return preprocess
    if preprocess.size != (data.size, data.size):
        height, width = preprocess.size
        raise CamlucidaError(
            f"{data.name} has images of {data.size} x {data.size} pixels, but the model takes {height} x {width}; make "
            f"them with size={height}" + ("" if height == width else ", which needs a square model")
        )
    return replace(preprocess, resize=None, crop=True, cover=False)
