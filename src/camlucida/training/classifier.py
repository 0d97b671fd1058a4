"""Small classifiers of images in memory: their batches, their loss, their accuracy, and trainings that are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count, NotNegative, Positive
from camlucida.common.store import Store
from camlucida.engine.outputs import first_tensor
from camlucida.models.small import SmallCNN, SmallConfig
from camlucida.training.loop import FitOptions, Fitted, Loss, Score, fit


@dataclass(frozen=True)
class SmallPlan(FitOptions):
    """How a small network is trained on digits on photos.

    Attributes:
        train: training images.
        test: images that accuracy is measured on.
        batch: images per step.
    """

    epochs: Count = 8
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Positive = 4e-3
    weight_decay: NotNegative = 0.01
    schedule: Literal["step", "cosine", "constant"] = "cosine"
    warmup: int = 50
    accelerator: Literal["auto", "cpu", "gpu"] = "cpu"
    train: Count = 5000
    test: Count = 500
    batch: Count = 32


class Shuffled:
    """Places of images in chunks, in an order of their own for each epoch.

    Args:
        count: how many images there are.
        size: how many a chunk has. A last one of a single image is left out, since batch norms refuse it.
        seed: of the order.
        whole: leave out a last chunk that is smaller than the others.

    Raises:
        CamlucidaError: no chunk can be made.
    """

    def __init__(self, count: int, size: int, seed: int, *, whole: bool = False) -> None:
        self.count, self.size, self.seed = count, size, seed
        rest = count % size
        self.steps = count // size + (rest > 1 and not whole)
        if self.steps < 1:
            raise CamlucidaError(f"{count} images are too few to learn from")

    def __call__(self, epoch: int) -> list[Tensor]:
        """The chunks of an epoch."""
        generator = torch.Generator().manual_seed((self.seed * 4099 + epoch) % 2**63)
        order = torch.randperm(self.count, generator=generator)
        return list(torch.split(order, self.size))[: self.steps]


def small_net(config: SmallConfig, seed: int) -> SmallCNN:
    """A small network whose first weights the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallCNN(config)


def class_loss(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of a batch ``(images, labels, ...)``; it and the accuracy are logged."""
    logits = first_tensor(model(batch[0]))
    entropy = F.cross_entropy(logits, batch[1])
    right = (logits.argmax(1) == batch[1]).float().mean()
    return entropy, {"ce": entropy.detach(), "accuracy": right}


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 100) -> float:
    """The share of images whose label a model predicts, in the mode that it is in."""
    right = 0
    for x, y in zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True):
        right += int((first_tensor(model(x)).argmax(1) == y).sum())
    return right / len(labels)


def train_classifier(
    model: nn.Module,
    tensors: tuple[Tensor, ...],
    options: FitOptions,
    *,
    batch: int = 32,
    whole: bool = False,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
    loss: Loss = class_loss,
    validate: Score | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[float, float], object] | None = None,
) -> Fitted:
    """Train a model on images that lie in memory; see :func:`camlucida.training.fit`.

    Args:
        model: trained in place.
        tensors: images, labels, and what else the loss takes of each image.
        options: learning rate, epochs and all else that decides how it is trained. A warm-up longer than an epoch is
            cut to one.
        batch: images per step.
        whole: leave out a last batch that is smaller than the others.
        prepare: makes inputs of a batch of images, such as of uint8.
        loss: of a batch of the tensors.
        validate: a score after each epoch.
        checkpoint: where a stopped training goes on.
        progress: called after each batch with those done and all.
    """
    shuffled = Shuffled(len(tensors[0]), batch, options.seed, whole=whole)

    def batches(epoch: int) -> Iterator[tuple[Tensor, ...]]:
        for places in shuffled(epoch):
            images, *rest = (tensor[places] for tensor in tensors)
            # The memory order in which convolutions on a CPU are quick.
            yield (prepare(images).contiguous(memory_format=torch.channels_last), *rest)

    model.to(memory_format=torch.channels_last)
    fitted = fit(
        model,
        batches,
        loss,
        validate=validate,
        options=replace(options, warmup=min(options.warmup, shuffled.steps)),
        steps_per_epoch=shuffled.steps,
        checkpoint=checkpoint,
        progress=None if progress is None else lambda done, total, _: progress(done, total),
    )
    model.to(memory_format=torch.contiguous_format)
    return fitted


def keep_trained(
    store: Store,
    name: str,
    model: nn.Module,
    train: Callable[[Path | None], Mapping[str, Any]],
) -> dict[str, Any]:
    """Give a model the weights that are kept for it, or train it now and keep them.

    ``train`` is told where a stopped training goes on, and returns what to note down. That is given back with the
    seconds that it took, or nothing where it is lost; the model is in eval mode then.
    """
    record: dict[str, Any] = {}
    checkpoint = store.checkpoint(name)

    def run() -> dict[str, Tensor]:
        start = time.perf_counter()
        record.update(train(checkpoint))
        record["seconds"] = time.perf_counter() - start
        # Before the weights: who finds those finds the record too.
        store.value(f"{name}-training", lambda: record)
        return dict(model.state_dict())

    model.load_state_dict(store.tensors(f"{name}-weights", run))
    model.eval()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return dict(store.value(f"{name}-training", lambda: record))
