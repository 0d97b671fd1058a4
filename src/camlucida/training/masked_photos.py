"""The photos of a training of the masked VGG: crops and order that seed, epoch and photo alone decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from camlucida.data.images import read_image
from camlucida.data.train_val import Part
from camlucida.models.loaded import require
from camlucida.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

if TYPE_CHECKING:
    from camlucida.training.masked import Recipe


class Photos(Dataset[tuple[Tensor, int]]):
    """Labelled photos; each crop depends on seed, epoch and photo alone."""

    def __init__(
        self,
        part: Part,
        index: dict[str, int],
        recipe: Recipe,
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
