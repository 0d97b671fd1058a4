"""Train the small network on digits on photos, and keep its weights."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.progress import Say, part
from camlucida.common.version import __version__
from camlucida.data.digits import CLASS_NAMES, Digits
from camlucida.models import LoadedModel, load_model
from camlucida.models.cache import cache_folder
from camlucida.models.small import (
    RECORD,
    SmallCNN,
    SmallConfig,
    as_input,
    count_parameters,
    read_record,
)
from camlucida.training.classifier import SmallPlan, accuracy, small_net, train_classifier
from camlucida.training.loop import Fitted

_BATCH = 64


@dataclass(frozen=True)
class TrainedDigits:
    """The trained network and what is known about it.

    Attributes:
        module: in eval mode, on the CPU.
        accuracy: on test images, whose digits and photos were not trained on; in [0, 1].
        fitted: the curves of the training.
        record: what was written beside the weights, ready for JSON.
        weights: the file with the weights.
    """

    module: SmallCNN
    accuracy: float
    fitted: Fitted
    record: Mapping[str, Any]
    weights: Path


def train_digits(
    seed: int = 0,
    *,
    epochs: int = 7,
    size: int = 64,
    images: int = 10_000,
    config: SmallConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Say | None = None,
) -> TrainedDigits:
    """Train a :class:`SmallCNN` on digits on photos; a minute or two on two cores.

    The same arguments give the same weights on the same machine with the same number of threads.

    Args:
        seed: of the images, the first weights and the order of the batches.
        epochs: how often to go through the images.
        size: height and width of the images; a multiple of 8 from 32.
        images: how many to train on.
        config: another network; its ``size`` and ``classes`` are set to fit.
        out: folder for weights and record; the cache, where ``load_model("digits")`` looks, unless told.
        progress: called while images are drawn and after each batch.

    Returns:
        The network, its accuracy, and where the weights are.

    Raises:
        CamlucidaError: an option is out of range, or the folder cannot be written to.

    Example:
        >>> found = camlucida.training.train_digits(epochs=7)  # doctest: +SKIP
        >>> camlucida.training.train_digits(images=3)
        Traceback (most recent call last):
        camlucida.common.errors.CamlucidaError: images must be 128 or more, got 3
    """
    if images < 2 * _BATCH:
        raise CamlucidaError(f"images must be {2 * _BATCH} or more, got {images}")
    if epochs < 1:
        raise CamlucidaError(f"epochs must be at least 1, got {epochs}")
    config = replace(config or SmallConfig(), size=size, classes=len(CLASS_NAMES))
    folder = cache_folder() if out is None else Path(out)
    start = time.perf_counter()
    training = Digits("train", count=images, size=size, seed=seed)
    drawn = training.tensors(say=progress)

    module = small_net(config, seed)
    fitted = train_classifier(
        module,
        (drawn.images, drawn.labels),
        SmallPlan(epochs=epochs, learning_rate=0.003, seed=seed, train=images, batch=_BATCH),
        batch=_BATCH,
        whole=True,
        prepare=as_input,
        progress=part(progress, "training"),
    )
    testing = Digits("test", size=size, seed=seed)
    shown = testing.tensors(say=progress)
    right = accuracy(module, as_input(shown.images), shown.labels)
    seconds = time.perf_counter() - start
    record = {
        "camlucida": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "epochs": epochs,
        "config": asdict(config),
        "parameters": count_parameters(module),
        "training": training.describe(),
        "test": testing.describe(),
        "accuracy": right,
        "seconds": seconds,
        "options": fitted.to_dict()["options"],
        "curves": fitted.curves,
    }
    weights, record = save_digits(module, record, folder)
    return TrainedDigits(module, right, fitted, record, weights)


def save_digits(
    module: SmallCNN, record: Mapping[str, Any], folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Write weights, then the record that names them; until that is in place an older model stays in use.

    Given back are that file and the whole record, with the name and the hash of the file.

    Raises:
        CamlucidaError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    content = buffer.getvalue()
    mark = hashlib.sha256(content).hexdigest()
    name = f"digits-{mark[:12]}.pt"
    whole = {**record, "weights": name, "sha256": mark}
    try:
        older = read_record(folder)
    except CamlucidaError:  # a damaged record is replaced
        older = None
    write_bytes(folder / name, content)
    write_bytes(folder / RECORD, to_json(whole).encode())
    if (
        older
        and (left := Path(str(older.get("weights"))).name) != name
        and left.startswith("digits-")
    ):
        (folder / left).unlink(missing_ok=True)
    return folder / name, whole


def digits_model(say: Say | None = None) -> LoadedModel:
    """The small network for digits on photos, trained first where that has not been done."""
    try:
        return load_model("digits")
    except ModelError:
        train_digits(progress=say)
        return load_model("digits")
