"""Planted truth: drawn scenes of which it is known what decides, what counts against, and what does not matter.

:func:`camlucida.models.planted.planted_network` builds the network that decides as the world says, so that for every
image the pixels that matter, and those that do not, are known without asking any explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import digest
from camlucida.data.planted_worlds import (
    ACROSS,
    DOWN,
    SIZE,
    SLOTS,
    WORLDS,
    Mask,
    Thing,
    World,
    class_names,
    hues,
)
from camlucida.data.samples import Box, DataSet, Sample

Amount: TypeAlias = npt.NDArray[np.float64]

_STD = 63.75  # grey levels that are 1 for the network


@dataclass(frozen=True)
class Truth:
    """How much each pixel matters for one class of an image, ``(SIZE, SIZE)`` each; 0 where it does not matter.

    Attributes:
        own: for its logit; negative where it counts against the class.
        margin: for that logit less the mean of the others.
        things: where something was drawn, whether it matters or not.
    """

    own: Amount
    margin: Amount
    things: Mask

    @property
    def evidence(self) -> Mask:
        """The pixels that speak for the class."""
        found: Mask = self.own > 0
        return found


@dataclass(frozen=True)
class PlantedSample(Sample):
    """One image, drawn when it is asked for; its mask holds the evidence for its class."""

    data: Planted | None = field(default=None, repr=False, compare=False)
    index: int = 0

    def picture(self) -> Image.Image:
        """The RGB image."""
        return Image.fromarray(self._data.draw(self.index))

    def mask(self) -> Mask:
        """The pixels that speak for the label."""
        return self.truth().evidence

    def truth(self, label: int | None = None) -> Truth:
        """What matters for a class, the sample's own by default."""
        own = self.label if label is None else label
        return truth(self._data.world, self._data.things(self.index), int(own or 0))

    @property
    def _data(self) -> Planted:
        if self.data is None:
            raise CamlucidaError("this sample was made by hand; take it from Planted")
        return self.data


class Planted(DataSet):
    """Images of a planted world; image ``i`` depends on ``seed`` and ``i`` alone, and classes take turns.

    Args:
        world: its name, see ``WORLDS``.
        count: how many images.
        seed: another seed gives other images.
    """

    def __init__(self, world: str, *, count: int = 100, seed: int = 0) -> None:
        if count < 1:
            raise CamlucidaError(f"count must be at least 1, got {count}")
        self.world = WORLDS[world]
        self._many, self.seed = count, seed
        self.name = f"planted:{self.world.name}"

    def __len__(self) -> int:
        return self._many

    def sample(self, index: int) -> PlantedSample:
        """The image at a position."""
        label = self.label(index)
        boxes = tuple(
            _box(thing.mask)
            for thing in self.things(index)
            if truth(self.world, [thing], label).evidence.any()
        )
        name = self.class_names[label]
        return PlantedSample(f"{index:05d}.png", label, name, None, boxes, self, index)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the network that belongs to it."""
        return class_names(self.world)

    def label(self, index: int) -> int:
        """The class of an image; in the quarters, each quarter has its turn."""
        return (
            index
            * (len(self.world.speaks) + 1 if self.world.region == "quarters" else 1)
            % self.world.classes
        )

    def things(self, index: int) -> tuple[Thing, ...]:
        """What an image holds."""
        return _things(self.world.name, self.label(index), self.seed, index)

    def draw(self, index: int, without: Sequence[int] = ()) -> npt.NDArray[np.uint8]:
        """The image ``(SIZE, SIZE, 3)``; the things of some numbers in :meth:`things` lose their look if told."""
        rng = _stream(self.seed, index, "ground")
        coarse = rng.normal(0, 0.35, (SLOTS, SLOTS))
        ground = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        ground = ground.clip(-0.7, 0.7)
        pixels = np.repeat((ground + rng.uniform(-0.06, 0.06, (SIZE, SIZE)))[..., None], 3, 2)
        for number, thing in enumerate(self.things(index)):
            strength, light = rng.uniform(1.2, 1.3), rng.uniform(-0.5, 0.5)
            if thing.look in (ACROSS, DOWN):
                along = np.tile(np.arange(SIZE) % 2 * 1.6 - 0.8, (SIZE, 1))
                grey = along.T if thing.look == ACROSS else along
                paint = pixels if number in without else np.repeat(grey[..., None], 3, 2)
            else:  # without its colour its luminance stays, so that nothing else about the image changes
                colour = (number not in without) * strength * hues()[thing.look]
                paint = light + colour + np.zeros_like(pixels)
            pixels = np.where(thing.mask[..., None], paint, pixels)
        return np.clip(np.round(pixels * _STD + 127.5), 0, 255).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        """Name, size, seed and fingerprint, ready for JSON."""
        return {**super().describe(), "seed": self.seed}


def truth(world: World, things: Sequence[Thing], label: int) -> Truth:
    """What matters for a class, given what an image holds; what is painted over does not."""
    weights = world.weights()
    amounts, drawn = np.zeros((2, SIZE, SIZE)), np.zeros((SIZE, SIZE), bool)
    for thing, mask in zip(things, _visible(things), strict=True):
        adds = np.array([
            weights[other % len(world.speaks), thing.look] * world.seen(other)[thing.slot]
            for other in range(world.classes)
        ])  # fmt: skip
        if world.logic == "and":  # a look without its partner does nothing
            there = {t.look for t in things}
            for other, looks in enumerate(world.speaks):
                if thing.look in looks and not set(looks) <= there:
                    adds[other] = 0
        amounts[0][mask] = adds[label]
        amounts[1][mask] = adds[label] - np.delete(adds, label).mean()
        drawn |= mask
    return Truth(
        np.where(np.abs(amounts[0]) > 1e-9, amounts[0], 0),
        np.where(np.abs(amounts[1]) > 1e-9, amounts[1], 0),
        drawn,
    )


@lru_cache(maxsize=4096)
def _things(name: str, label: int, seed: int, index: int) -> tuple[Thing, ...]:
    world, rng = WORLDS[name], _stream(seed, index, name)
    return tuple(world.make(world, label, rng))


def _stream(seed: int, index: int, what: str) -> np.random.Generator:
    return np.random.default_rng(int(digest([seed, index, what])[:15], 16))


def _visible(things: Sequence[Thing]) -> list[Mask]:
    """What is left of each thing under those that were drawn later."""
    over = np.zeros((SIZE, SIZE), bool)
    found: list[Mask] = []
    for thing in reversed(things):
        found.append(thing.mask & ~over)
        over = over | thing.mask
    return found[::-1]


def _box(mask: Mask) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def open_planted(
    path: str,
    class_names: Sequence[str] | None,  # noqa: ARG001 - the labels are those of the world's own network
    *,
    count: int = 100,
    seed: int = 0,
) -> Planted:
    """Scenes whose truth is planted: wall, mosaic, watermark, texture, and, or, creatures, objects, scenes.

    Args:
        path: the name of the world.
        class_names: the model's; not needed.
        count: how many images.
        seed: another seed gives other images.
    """
    return Planted(path, count=count, seed=seed)
