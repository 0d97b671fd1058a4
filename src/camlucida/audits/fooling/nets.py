"""Small networks to be fooled: trained in a minute on digits on photos, with maps of 7 x 7 cells as in the paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say, part
from camlucida.common.store import Store
from camlucida.data.digits import CLASS_NAMES, DigitImages, Digits
from camlucida.models.small import SmallConfig, as_input, small_preprocess
from camlucida.training.classifier import (
    SmallPlan,
    accuracy,
    keep_trained,
    small_net,
    train_classifier,
)

SIZE = 56
LAYER = "features"
PREPROCESS = small_preprocess(SIZE)

PAIRS = tuple(combinations(range(10), 2))
"""The 45 classes of images with two digits: which two they are."""


@dataclass(frozen=True)
class DigitPlan(SmallPlan):
    """How a network to be fooled is trained, before it is fooled, with the images that fool it.

    Attributes:
        classes: 10 (one digit), or 45 (two digits, the class is which two).
        long_tail: how many times more training images the first class has than the last; 1 for equal numbers.
            The classes between fall geometrically (Cui et al. 2019, "Class-balanced loss").
    """

    classes: Literal[10, 45] = 10
    long_tail: float = 1.0

    @classmethod
    def of(cls, *, quick: bool, seed: int, **more: Any) -> DigitPlan:
        """The plan of a quick audit, or of a full one."""
        if quick:
            return cls(train=3000, epochs=7, seed=seed, **more)
        return cls(train=10_000, test=1000, seed=seed, **more)

    def __post_init__(self) -> None:
        """Check what cannot be trained."""
        if self.classes not in (10, 45):
            raise CamlucidaError(f"the stand-in has 10 or 45 classes, got {self.classes}")
        if not self.long_tail >= 1:
            raise CamlucidaError(f"long_tail must be 1 or more, got {self.long_tail}")


@dataclass(frozen=True)
class DigitNet:
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


def stand_in(plan: DigitPlan, store: Store, say: Say | None = None) -> DigitNet:
    """Train a network, or take it from the store."""
    two = plan.classes == 45
    data = partial(Digits, size=SIZE, seed=plan.seed, second=two)
    drawn = data("train", count=plan.train).tensors(say=say)
    labels = _labels(drawn)
    kept = tail(labels, plan.classes, plan.long_tail)
    images, labels = drawn.images[kept], labels[kept]
    model = small_net(SmallConfig(size=SIZE, classes=plan.classes), plan.seed)
    testing = data("test", count=plan.test).tensors(say=say)
    test, test_labels = as_input(testing.images), _labels(testing)

    def train(checkpoint: Path | None) -> dict[str, Any]:
        fitted = train_classifier(
            model,
            (images, labels),
            plan,
            batch=plan.batch,
            prepare=as_input,
            checkpoint=checkpoint,
            progress=part(say, f"training the net with {plan.classes} classes"),
        )
        return {"plan": asdict(plan), "images": len(images), "curve": fitted.curves}

    record = keep_trained(store, f"net-{plan.classes}-{plan.long_tail:g}", model, train)
    return DigitNet(
        model,
        images,
        labels,
        test,
        test_labels,
        tuple(f"{a} and {b}" for a, b in PAIRS) if two else CLASS_NAMES,
        {**record, "accuracy": accuracy(model, test, test_labels)},
    )


def tail(labels: Tensor, classes: int, ratio: float) -> Tensor:
    """Positions of a long-tailed choice: class c keeps a share of ratio^(-c / (classes - 1)) of its images."""
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
