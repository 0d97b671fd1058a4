"""What salience-guided training is made of: its arms, its recipes, its images and its losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, get_args

from torch import Tensor

from camlucida.common.limits import Count, Limits, NotNegative, Positive, Share
from camlucida.data.digits import Digits
from camlucida.training.cam_loss import (
    CAMOptions,
    EntropyKind,
    EntropyLoss,
    SalienceLoss,
    TrainableCAM,
)
from camlucida.training.classifier import class_loss
from camlucida.training.loop import FitOptions, Loss
from camlucida.training.salience.data import DigitSet, ImageSet
from camlucida.training.salience.models import SMALL, Start, build_start
from camlucida.training.sham import HUMAN_ENTROPY, Layout

Arm: TypeAlias = Literal["human", "mask", "sham", "plain", "droid", "fmmce", "hb-cam"]
ARMS: Mapping[Arm, str] = {
    "human": "human salience",
    "mask": "true masks",
    "sham": "SHAM",
    "plain": "cross-entropy alone",
    "droid": "DROID entropy loss",
    "fmmce": "FMMCE entropy loss",
    "hb-cam": "HB-CAM entropy loss",
}
"""What a training is guided by, and how it is called in tables."""

ENTROPY_ARMS: tuple[EntropyKind, ...] = get_args(EntropyKind)
"""The arms with an entropy loss."""

PUBLISHED: Mapping[Arm, tuple[float, float]] = {
    "human": (0.9723, 0.0021),
    "sham": (0.9766, 0.0018),
}
"""Accuracy and its standard deviation over 5 seeds: Iris PAD, 7 classes, DenseNet-121 (DiffGradCAM, table 1; its
heading says AUROC, its values are accuracies)."""


@dataclass(frozen=True)
class SalienceRecipe(FitOptions):
    """How networks are trained, the seed apart; the defaults are those of the published Iris PAD experiment.

    Attributes:
        model: see :func:`camlucida.training.salience.models.build_start`.
        architecture: of a checkpoint file.
        pretrained: start from ImageNet's weights.
        size: height and width that photos are resized to.
        batch_size: images per step.
        weight: of the cross-entropy; the distance of the maps has the rest.
        cam: which map is trained; ``cam_layer=None`` finds it.
        layout: of the SHAM mask.
        entropy_weight: of the entropy's term beside the cross-entropy, in the arms with an entropy loss.

    Source: Piland, Sweet and Czajka, "DiffGradCAM", arXiv 2506.08514, section 6; Boyd et al., "CYBORG", WACV 2023.
    """

    epochs: Count = 50
    learning_rate: Positive = 0.002
    weight_decay: NotNegative = 1e-6
    step_size: Count = 12
    ties: Literal["first", "later"] = "later"
    model: str = "timm:densenet121"
    architecture: str | None = None
    pretrained: bool = True
    size: Annotated[int, Limits(16, 2048)] = 224
    batch_size: Annotated[int, Limits(2)] = 20
    weight: Share = 0.5
    cam: CAMOptions = field(default_factory=CAMOptions)
    layout: Layout = "rounded"
    entropy_weight: NotNegative = 1.0

    def start(self, classes: int, seed: int = 0) -> Start:
        """The network before it is trained."""
        return build_start(
            self.model, classes, architecture=self.architecture, pretrained=self.pretrained, size=self.size,
            layer=None if self.cam.cam_layer is None else str(self.cam.cam_layer), seed=seed,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found = {**vars(self), "cam": self.cam.describe()}
        del found["seed"], found["accelerator"]  # where it runs may change
        return found


IRIS_PAD = SalienceRecipe()
"""The published experiment: DenseNet-121 from ImageNet's weights, 50 epochs, 5 seeds."""

STAND_IN = SalienceRecipe(
    model=SMALL,
    pretrained=False,
    size=56,
    epochs=8,
    optimizer="adam",
    learning_rate=0.004,
    weight_decay=0.01,
    schedule="cosine",
    warmup=100,
    accelerator="cpu",
)
"""A small network with the paper's 7 x 7 cells on digits on photos: a trial of the mechanism, in minutes."""


@dataclass(frozen=True)
class ImageSets:
    """The images of an experiment.

    Attributes:
        train: to learn from.
        validation: chooses the epoch.
        test: everything is measured on; the validation images again where there are no others.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet

    def describe(self) -> dict[str, Any]:
        """What identifies them, ready for JSON."""
        return {name: getattr(self, name).describe() for name in ("train", "validation", "test")}

    @property
    def own_test(self) -> bool:
        """Whether the test images are others than those that choose the epoch."""
        return self.test is not self.validation


def stand_in_sets(
    train: int = 4000, validation: int = 500, test: int = 1000, size: int = 56, seed: int = 0
) -> ImageSets:
    """Digits on photos: test images have digits and photos of their own."""
    return ImageSets(
        DigitSet(Digits("train", count=train, size=size, seed=seed)),
        DigitSet(Digits("train", count=validation, size=size, seed=seed + 100_003)),
        DigitSet(Digits("test", count=test, size=size, seed=seed)),
    )


def loss_of(recipe: SalienceRecipe, arm: Arm, cam: TrainableCAM, sham: Tensor) -> Loss:
    """What goes down in an arm."""
    if arm == "plain":
        return class_loss
    if arm in {"human", "mask"}:
        return SalienceLoss(cam, recipe.weight)
    if arm == "sham":
        return SalienceLoss(cam, recipe.weight, sham)
    (kind,) = (k for k in ENTROPY_ARMS if k == arm)
    # On another grid the same share of the cells.
    human = HUMAN_ENTROPY + math.log(cam.size[0] * cam.size[1] / 49)
    return EntropyLoss(cam, kind, recipe.entropy_weight, human)
