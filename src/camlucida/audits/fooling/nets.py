"""Small networks to be fooled: trained in a minute on digits on photos, with maps of 7 x 7 cells as in the paper."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.audits.fooling.measure import accuracy
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.data.digits import CLASS_NAMES, DigitImages, Digits
from camlucida.models.small import SmallCNN, SmallConfig, as_input, small_preprocess
from camlucida.training.loop import FitOptions, fit

SIZE = 56
LAYER = "features"
PREPROCESS = small_preprocess(SIZE)

PAIRS = tuple(combinations(range(10), 2))
"""The 45 classes of images with two digits: which two they are."""


@dataclass(frozen=True)
class Plan:
    """How a network to be fooled is trained, before it is fooled.

    Attributes:
        train: training images, which the attack uses too.
        test: images that accuracy is measured on; the first of them are explained.
        epochs: passes over the training images.
        learning_rate: the highest of a cosine.
        batch: images per step.
        classes: 10 (one digit), or 45 (two digits, the class is which two).
        long_tail: how many times more training images the first class has than the last; 1 for equal numbers.
            The classes between fall geometrically (Cui et al. 2019, "Class-balanced loss").
        seed: of weights, data and order.
    """

    train: int = 5000
    test: int = 500
    epochs: int = 8
    learning_rate: float = 4e-3
    batch: int = 32
    classes: Literal[10, 45] = 10
    long_tail: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what cannot be trained."""
        if self.classes not in (10, 45):
            raise CamlucidaError(f"the stand-in has 10 or 45 classes, got {self.classes}")
        if not self.long_tail >= 1:
            raise CamlucidaError(f"long_tail must be 1 or more, got {self.long_tail}")


@dataclass(frozen=True)
class StandIn:
    """A trained network and its images.

    Attributes:
        model: in eval mode.
        images: training images ``(N, 3, S, S)`` uint8, after the long tail was cut.
        labels: their classes.
        test: inputs ``(T, 3, S, S)``, ready.
        test_labels: their classes.
        class_names: of its outputs.
        record: curves, accuracy and options, ready for JSON.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    record: dict[str, Any]


def stand_in(
    plan: Plan, store: Store, folder: Path | None = None, say: Say | None = None
) -> StandIn:
    """Train a network, or take it from the store.

    Args:
        plan: how.
        store: where it is kept.
        folder: where a stopped training goes on.
        say: told about the progress.
    """
    tell = say or (lambda *_: None)
    two = plan.classes == 45
    name = f"net-{plan.classes}-{plan.long_tail:g}"
    drawn = _draw(Digits("train", count=plan.train, size=SIZE, seed=plan.seed, second=two), tell)
    images, labels = drawn.images, _labels(drawn)
    kept = tail(labels, plan.classes, plan.long_tail)
    images, labels = images[kept], labels[kept]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = SmallCNN(SmallConfig(size=SIZE, classes=plan.classes))
    testing = _draw(Digits("test", count=plan.test, size=SIZE, seed=plan.seed, second=two), tell)
    test, test_labels = as_input(testing.images), _labels(testing)
    record: dict[str, Any] = {}

    def train() -> dict[str, Tensor]:
        checkpoint = None if folder is None else folder / f"{name}-{store.key}.ckpt"
        found = _train(model, images, labels, plan, checkpoint, tell)
        record.update(found)
        store.value(f"{name}-training", lambda: record)
        return dict(model.state_dict())

    model.load_state_dict(store.tensors(f"{name}-weights", train))
    model.eval()
    known = store.value(f"{name}-training", lambda: record)
    return StandIn(
        model,
        images,
        labels,
        test,
        test_labels,
        tuple(f"{a} and {b}" for a, b in PAIRS) if two else CLASS_NAMES,
        {**known, "accuracy": accuracy(model, test, test_labels)},
    )


def tail(labels: Tensor, classes: int, ratio: float) -> Tensor:
    """Positions of a long-tailed choice: class c keeps a share of ratio^(-c / (classes - 1)) of its images.

    Args:
        labels: ``(N,)``.
        classes: how many there are.
        ratio: of the first class's images to the last one's; 1 keeps all.
    """
    kept = []
    for c in range(classes):
        own = (labels == c).nonzero()[:, 0]
        share = ratio ** (-c / max(1, classes - 1))
        kept.append(own[: max(1, round(len(own) * share))] if len(own) else own)
    return torch.cat(kept).sort().values


def _labels(drawn: DigitImages) -> Tensor:
    if drawn.second_labels is None:
        return drawn.labels
    index = {pair: i for i, pair in enumerate(PAIRS)}
    both = zip(drawn.labels.tolist(), drawn.second_labels.tolist(), strict=True)
    return torch.tensor([index[min(a, b), max(a, b)] for a, b in both])


def _draw(data: Digits, say: Say) -> DigitImages:
    parts = []
    for start in range(0, len(data), 500):
        say(f"drawing {data.split} images", start, len(data))
        parts.append(data.tensors(range(start, min(start + 500, len(data)))))
    say(f"drawing {data.split} images", len(data), len(data))
    names = ("images", "labels", "masks", "second_labels", "second_masks")
    joined = {
        n: None if getattr(parts[0], n) is None else torch.cat([getattr(p, n) for p in parts])
        for n in names
    }
    return DigitImages(**joined)  # type: ignore[arg-type]


def _train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: Plan,
    checkpoint: Path | None,
    say: Say,
) -> dict[str, Any]:
    steps = -(-len(images) // plan.batch)
    start = time.perf_counter()
    model.to(memory_format=torch.channels_last)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(plan.seed * 1000 + epoch)
        for some in torch.split(torch.randperm(len(images), generator=generator), plan.batch):
            if len(some) > 1:
                yield (
                    as_input(images[some]).contiguous(memory_format=torch.channels_last),
                    labels[some],
                )

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        logits = net(batch[0])
        right = (logits.argmax(1) == batch[1]).float().mean()
        return F.cross_entropy(logits, batch[1]), {"accuracy": right}

    fitted = fit(
        model,
        batches,
        loss,
        options=FitOptions(
            epochs=plan.epochs,
            optimizer="adam",
            learning_rate=plan.learning_rate,
            weight_decay=0.01,
            schedule="cosine",
            warmup=min(50, steps),
            accelerator="cpu",
            seed=plan.seed,
        ),
        steps_per_epoch=steps,
        checkpoint=checkpoint,
        progress=lambda d, t, _: say(f"training the net with {plan.classes} classes", d, t),
    )
    model.to(memory_format=torch.contiguous_format)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return {
        "plan": asdict(plan),
        "images": len(images),
        "seconds": time.perf_counter() - start,
        "curve": fitted.curves,
    }
