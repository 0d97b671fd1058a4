"""Planted worlds: what decides, and what is drawn.

A world says which *looks* (colours and stripes) speak for which class, how they add up, and in which part of the
image they count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from camlucida.common.registry import Registry, Row

Mask: TypeAlias = npt.NDArray[np.bool_]
Slot: TypeAlias = tuple[int, int]

SIZE = 64
"""Height and width of the images."""
SLOTS = 4
"""So many things fit beside and above each other."""
LOOKS = 10
"""Eight hues of the luminance of the background, and grey stripes across and down, which have no hue."""
ACROSS, DOWN = 8, 9
AGAINST = -0.4
"""What a thing of another class adds to a class's logit, where one of its own adds 1."""
SHARED = 1.2
"""What a thing adds that speaks for all classes alike: what classes share is often louder than what sets them apart."""

_SIDE = SIZE // SLOTS


@dataclass(frozen=True)
class World(Row["list[Thing]"]):
    """What decides in the images of one kind, and where; ``make`` puts the things of an image in their places.

    Attributes:
        about: what is planted, for people.
        speaks: for each class, the looks that speak for it; together they speak against the others.
        logic: whether the looks of a class add up, must all be there (``"and"``), or one of them is enough (``"or"``).
        shared: looks that raise all classes alike.
        unused: looks that no class depends on.
        region: where things count: everywhere, in the ``"upper"`` three quarters, in the ``"strip"`` along the lower
            edge, or, each for classes of its own, in one of four ``"quarters"``.
        spread: whether neighbouring cells of the feature map share what they see.
        unit: so many pixels of a look add about 1 to a logit.
    """

    what: ClassVar[str] = "planted world"

    about: str = ""
    speaks: tuple[tuple[int, ...], ...] = ()
    logic: Literal["sum", "and", "or"] = "sum"
    shared: tuple[int, ...] = ()
    unused: tuple[int, ...] = ()
    region: Literal["everywhere", "upper", "strip", "quarters"] = "everywhere"
    spread: bool = True
    unit: float = 100.0

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.speaks) * (4 if self.region == "quarters" else 1)

    def weights(self) -> npt.NDArray[np.float64]:
        """What each look adds to each class, ``(classes of one region, LOOKS)``."""
        found = np.zeros((len(self.speaks), LOOKS))
        for label, looks in enumerate(self.speaks):
            for look in looks:
                found[:, look] = AGAINST if self.logic == "sum" else 0.0
                found[label, look] = _ADDS[self.logic]
        if self.logic != "sum":
            found[0, _OF_LOGIC[0]] = found[1, _OF_LOGIC[1]] = AGAINST
        found[:, list(self.shared)] = SHARED
        return found

    def seen(self, label: int) -> Mask:
        """The slots that count for a class, ``(SLOTS, SLOTS)``."""
        found = np.zeros((SLOTS, SLOTS), bool)
        half = SLOTS // 2
        if self.region == "quarters":
            row, column = divmod(label // len(self.speaks), 2)
            found[row * half : (row + 1) * half, column * half : (column + 1) * half] = True
        elif self.region == "upper":
            found[: SLOTS - 1] = True
        else:
            found[SLOTS - 1 if self.region == "strip" else 0 :] = True
        return found


_ADDS = {"sum": 1.0, "and": 2.5, "or": 0.5}
"""What a look of a class adds to it, as the mean of hiding it and of showing it alone."""
_OF_LOGIC = (4, 5)
"""What counts against the two classes of the worlds with logic."""


@dataclass(frozen=True)
class Thing:
    """Something in an image: its look, its pixels, and the slot of its middle."""

    look: int
    mask: Mask = field(repr=False)
    slot: Slot


def class_names(world: World) -> tuple[str, ...]:
    """Of the network of a world."""
    return tuple(f"{world.name} {label}" for label in range(world.classes))


@lru_cache(maxsize=1)
def hues() -> npt.NDArray[np.float64]:
    """Eight colours ``(8, 3)`` of length 1 that add nothing to the luminance, 45 degrees apart."""
    angles = np.arange(8) * np.pi / 4
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.array([[2], [6]]) ** 0.5
    found: npt.NDArray[np.float64] = np.stack([np.cos(angles), np.sin(angles)], 1) @ plane
    return found


# ------------------------------------------------------------------------------------------- what is drawn


def _figure(side: int, kind: int) -> Mask:
    """A disc, square, triangle, or a thin cross or frame, ``(side, side)``."""
    at = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(at, at, indexing="ij")
    reach = side / 2
    shapes = (
        y**2 + x**2 <= reach**2,
        np.ones((side, side), bool),
        np.abs(x) <= (y + reach) / 2,
        (np.abs(x) < 1.1) | (np.abs(y) < 1.1),
        (np.abs(x) > reach - 2) | (np.abs(y) > reach - 2),
    )
    found: Mask = shapes[kind]
    return found


def _placed(
    wanted: Iterable[tuple[int, int]],
    slots: Iterable[Slot],
    rng: np.random.Generator,
    kind: int | None = None,
) -> list[Thing]:
    """Looks of so many pixels across, each within a slot, with a pixel or two between it and the next one."""
    found = []
    for (look, side), slot in zip(wanted, slots, strict=False):
        figure = _figure(side, int(rng.integers(2)) if kind is None else kind)
        top, left = (int(_SIDE * at + 1 + rng.integers(_SIDE - 1 - side)) for at in slot)
        found.append(Thing(look, _at(figure, top, left), slot))
    return found


def _at(figure: Mask, top: int, left: int) -> Mask:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + figure.shape[0], left : left + figure.shape[1]] = figure
    return mask


def _mixed(slots: Iterable[Slot], rng: np.random.Generator) -> list[Slot]:
    every = list(slots)
    return [every[int(i)] for i in rng.permutation(len(every))]


def _pair(
    world: World, label: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The looks of a class, and those of one that comes second."""
    count = len(world.speaks)
    return world.speaks[label % count], world.speaks[
        int((label % count + 1 + rng.integers(count - 1)) % count)
    ]


def _apart(world: World, label: int, rng: np.random.Generator) -> list[Thing]:
    """Things of the class, of a rival, of both and of none, each in a slot of its own; decoys where nothing counts."""
    seen = world.seen(label)
    inside, outside = (
        _mixed([(int(r), int(c)) for r, c in np.argwhere(mask)], rng) for mask in (seen, ~seen)
    )
    own, other = _pair(world, label, rng)
    wanted = [(look, 12) for look in own]
    if world.logic == "sum":
        wanted += [(own[0], 10)] * (len(inside) > 4) + [(other[0], 8)]
    else:
        wanted += [(_OF_LOGIC[label], 9)] + [(other[0], 10)] * (world.logic == "and")
    wanted += [(look, 11) for look in (*world.shared, *world.unused)]
    found = _placed(wanted, inside, rng)
    if world.region == "quarters":
        for quarter in range(4):
            slots = [s for s in outside if (s[0] // 2, s[1] // 2) == divmod(quarter, 2)]
            others = rng.permutation([looks[0] for looks in world.speaks])[:2]
            found += _placed([(int(look), 8) for look in others], slots, rng)
        return found
    return found + _placed([(look, 11) for look in (own[0], other[0], *world.unused)], outside, rng)


def _mark(world: World, label: int, rng: np.random.Generator) -> list[Thing]:
    """A thin mark in the strip decides; a large object, and marks elsewhere, do not."""
    own, other = _pair(world, label, rng)
    kind = 3 + int(rng.integers(2))
    strip = _mixed([(SLOTS - 1, c) for c in range(SLOTS)], rng)
    found = _placed([(own[0], 12), (other[0], 6), (world.shared[0], 8)], strip, rng, kind)
    figure = _figure(26, int(rng.integers(3)))
    top, left = (2 + int(rng.integers(n)) * _SIDE // 2 for n in (2, 3))
    large = Thing(int(rng.choice(world.unused)), _at(figure, top, left), (1, 1))
    above = _mixed([(SLOTS - 2, c) for c in range(SLOTS)], rng)
    return [large, *found, *_placed([(own[0], 12), (other[0], 12)], above, rng, kind)]


def _creature(world: World, label: int, rng: np.random.Generator) -> list[Thing]:
    """A body and a head that all creatures have, and parts at its sides; behind it things that no creature has."""
    own, other = _pair(world, label, rng)
    body = Thing(world.shared[0], _at(_figure(28, 0)[3:25], 22, 18), (1, 1))
    around = _mixed([(0, 1), (0, 2), (3, 1), (3, 2), (1, 0), (2, 0), (1, 3), (2, 3)], rng)
    wanted = [(own[0], 13), (own[0], 10), (other[0], 9), (world.shared[1], 10)]
    return [body, *_placed([*wanted, *((look, 11) for look in world.unused)], around, rng)]


def _scene(world: World, label: int, rng: np.random.Generator) -> list[Thing]:
    """Stripes over most of the image, a patch of the other stripes, and objects: one of the two decides."""
    by_scene = ACROSS in world.speaks[0]
    own, other = (looks[0] for looks in _pair(world, label, rng))
    scene = own if by_scene else int(rng.integers(ACROSS, DOWN + 1))
    thing, rival = (int(i) for i in rng.permutation(2)) if by_scene else (own, other)
    edge = int(rng.integers(20, 28))
    most = Thing(scene, _at(np.ones((SIZE - edge, SIZE), bool), 0, 0), (1, 1))
    patch = np.ones((edge - 6, 16 + int(rng.integers(8))), bool)
    rest = Thing(ACROSS + DOWN - scene, _at(patch, SIZE - edge + 3, 4), (3, 0))
    slots = _mixed([(r, c) for r in range(2) for c in range(SLOTS)], rng)
    objects = _placed([(thing, 13), (thing, 11), (rival, 9)], slots, rng)
    return [most, rest, *objects, *_placed([(world.shared[0], 11)], [(3, 3)], rng)]


WORLDS = Registry(World)


def _add(
    name: str, about: str, speaks: tuple[tuple[int, ...], ...], make: Any = _apart, **facts: Any
) -> None:
    WORLDS.add(World(name, make, about, speaks, **facts))


_THREE = ((0,), (2,), (4,))
_add("wall", "The lower quarter of the image does not reach the head.", _THREE, shared=(6,), unused=(7,),
     region="upper", spread=False)  # fmt: skip
_add("mosaic", "Four pictures in one; each class has one quarter, and its head gets nothing of the others.", _THREE,
     unused=(7,), region="quarters", spread=False)  # fmt: skip
_add("watermark", "A thin mark along the lower edge decides, and not the large object.", ((0,), (2,), (4,)),
     shared=(6,), unused=(1, 3, 5), region="strip", make=_mark, spread=False, unit=40.0)  # fmt: skip
_add("texture", "Stripes decide, whatever the shape; coloured shapes do not.", ((ACROSS,), (DOWN,)), shared=(6,),
     unused=(1, 3))  # fmt: skip
_add("and", "Two objects decide together; one alone does nothing.", ((0, 1), (2, 3)), logic="and", shared=(6,),
     unused=(7, ACROSS))  # fmt: skip
_add(
    "or",
    "Either of two objects is enough.",
    ((0, 1), (2, 3)),
    logic="or",
    shared=(6,),
    unused=(7, ACROSS),
)
_add("creatures", "A part decides which creature it is; body and head are common to all.", ((2,), (3,), (4,), (5,)),
     shared=(0, 1), unused=(7, ACROSS), make=_creature)  # fmt: skip
_add("objects", "An object on a scene; the object is the label.", ((0,), (1,)), shared=(6,), unused=(ACROSS, DOWN),
     make=_scene)  # fmt: skip
_add("scenes", "An object on a scene; the scene is the label.", ((ACROSS,), (DOWN,)), shared=(6,), unused=(0, 1),
     make=_scene, unit=600.0)  # fmt: skip
