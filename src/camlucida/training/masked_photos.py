"""The photos of a training of the masked VGG: crops and order that seed, epoch and photo alone decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count, Limits, NotNegative, Positive
from camlucida.common.optional import require
from camlucida.data.images import read_image
from camlucida.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from camlucida.data.train_val import Part
from camlucida.training.loop import FitOptions, Precision


class Photos(Dataset[tuple[Tensor, int]]):
    """Labelled photos; each crop depends on seed, epoch and photo alone."""

    def __init__(
        self,
        part: Part,
        index: dict[str, int],
        recipe: MaskedRecipe,
        *,
        crop: bool,
    ) -> None:
        self.paths = part.paths
        self.labels = [index[name] for name in part.names]
        self.recipe, self.epoch = recipe, 0
        self.whole = Preprocess(size=(recipe.size, recipe.size), resize=recipe.size)
        self.crop: Any = None
        if crop:
            transforms = require("torchvision", "models").transforms
            self.crop = transforms.Compose(
                [
                    transforms.RandomResizedCrop(
                        recipe.size, scale=recipe.area, ratio=recipe.aspect
                    ),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                ]
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        photo = read_image(self.paths[place])
        if self.crop is None:
            return self.whole(photo), self.labels[place]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the dropout of a GPU with every photo.
            torch.default_generator.manual_seed(
                hash((self.recipe.seed, self.epoch, place)) & 0x7FFFFFFF
            )
            return self.crop(photo), self.labels[place]


class Order(Sampler[int]):
    """This process's share of a permutation, or of all in order."""

    def __init__(
        self, length: int, rank: int, world: int, *, seed: int | None, count: int | None
    ) -> None:
        self.length, self.rank, self.world, self.seed, self.count = length, rank, world, seed, count

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self.length)
        if self.seed is not None:
            order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.seed))
        return iter(order[self.rank :: self.world][: self.count].tolist())

    def __len__(self) -> int:
        own = len(range(self.rank, self.length, self.world))
        return own if self.count is None else min(own, self.count)


@dataclass(frozen=True)
class MaskedRecipe(FitOptions):
    """The authors' training.

    SGD, learning rate times 0.1 every 30 epochs, cross-entropy, random crops of a tenth to all of the area and
    a little out of square, flips; photos are validated at 224 pixels of the shorter side, cut about the centre.

    Attributes:
        batch_size: images per step, over all devices together.
        area: share of the photo that a crop takes.
        aspect: width over height of a crop.
        size: height and width of the images.
        workers: processes that read photos, for each device.
        steps: steps per epoch at most, for a trial; ``None`` for all.
    """

    epochs: Count = 90
    learning_rate: Positive = 0.03
    weight_decay: NotNegative = 1e-4
    precision: Precision = "auto"
    seed: int = 3
    ties: Literal["first", "later"] = "later"
    batch_size: Count = 256
    area: tuple[float, float] = (0.1, 1.0)
    aspect: tuple[float, float] = (0.8, 1.25)
    size: int = 224
    workers: Annotated[int, Limits(0)] = 8
    steps: Count | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            CamlucidaError: one is out of range.
        """
        super().__post_init__()
        for name in ("area", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "area" and high > 1):
                raise CamlucidaError(
                    f"{name} must be an ascending pair of positive numbers (the area's up to 1), "
                    f"got {low}, {high}"
                )
