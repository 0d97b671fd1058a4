"""Planted networks put to the proof: they decide as their world says, and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image

from camlucida.data.planted import Planted, truth
from camlucida.models.planted import planted_network


@dataclass(frozen=True)
class PlantedProof:
    """What was found about the network of a planted world.

    Attributes:
        accuracy: share of the images whose label it names.
        unmoved: largest change of the label's logit when everything that does not matter to it is taken away, as a
            share of the largest logit.
        images: how many.

    Example:
        >>> camlucida.training.prove_planted("wall", images=4).accuracy
        1.0
    """

    accuracy: float
    unmoved: float
    images: int


def prove_planted(name: str, *, images: int = 100, seed: int = 0) -> PlantedProof:
    """Build the network of a world, and try it on images with and without what does not matter.

    Args:
        name: as in ``planted:NAME``, with ``@1`` for other channels.
        images: how many.
        seed: of the images.

    Raises:
        ModelError: there is no such world.

    Example:
        >>> camlucida.training.prove_planted("watermark", images=8).accuracy
        1.0
    """
    loaded = planted_network(name)
    data = Planted(name.partition("@")[0], count=images, seed=seed)
    assert loaded.preprocess is not None  # noqa: S101
    whole: list[torch.Tensor] = []
    bare: list[torch.Tensor] = []
    labels = []
    for i in range(len(data)):
        label = data.label(i)
        things = data.things(i)
        matters = truth(data.world, things, label).own != 0
        idle = [n for n, thing in enumerate(things) if not (thing.mask & matters).any()]
        labels.append(label)
        for found, without in ((whole, ()), (bare, idle)):
            found.append(loaded.preprocess(Image.fromarray(data.draw(i, without))))
    with torch.no_grad():
        before, after = (loaded.module(torch.stack(some)) for some in (whole, bare))
    known = torch.tensor(labels)
    moved = (before - after).gather(1, known[:, None]).abs().max() / before.abs().max()
    return PlantedProof(float((before.argmax(1) == known).float().mean()), float(moved), images)
