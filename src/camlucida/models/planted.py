"""Networks built, not trained, so that they decide exactly as a planted world says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.data.planted_worlds import (
    ACROSS,
    DOWN,
    LOOKS,
    SIZE,
    SLOTS,
    WORLDS,
    World,
    class_names,
    hues,
)
from camlucida.engine.reading import CLASSES
from camlucida.models.loaded import LoadedModel
from camlucida.models.small import small_preprocess

CHANNELS = 16
"""Of the feature map, which mixes the looks."""
CELLS = 8
"""Height and width of the feature map."""

_HUE, _STRIPE = 0.95, 1.6  # above what any other look, or the background, reaches
_LOUD, _BOTH = (
    1.6,
    1.7,
)  # so much a look brings where logic follows, and so much two bring together, but none alone


class PlantedNet(nn.Module):
    """Finds the looks of a world, and adds up what speaks for each class.

    ``features`` ends in a map of ``CHANNELS`` random mixtures of all looks on ``CELLS`` by ``CELLS`` cells, from which
    the head takes them apart again: no channel is a look, as in a trained network.

    Args:
        world: what decides.
        seed: of the mixtures.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        super().__init__()
        self.num_classes = world.classes
        rng = np.random.default_rng(seed)
        mixed = rng.uniform(0, 0.5, (CHANNELS, LOOKS)) * (rng.uniform(size=(CHANNELS, LOOKS)) < 0.4)
        mixed[np.arange(LOOKS), np.arange(LOOKS)] += 1
        kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16 if world.spread else np.pad([[1.0]], 1)
        self.features = nn.Sequential(
            _conv(_detectors(world), -np.array([_HUE] * 8 + [_STRIPE] * 2)),
            nn.ReLU(),
            nn.AvgPool2d(SIZE // CELLS // 2),
            _conv(mixed[:, :, None, None] * kernel, np.zeros(CHANNELS)),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        # What a pixel of each look brings: a hue .3 on the average, every other line of stripes its peak.
        gain = np.array([1 / 0.3] * 8 + [2 / 1.6] * 2) * (SIZE // CELLS) ** 2 / world.unit
        apart = gain[:, None] * np.linalg.pinv(mixed)  # (LOOKS, CHANNELS)
        pooled = world.region == "everywhere" and world.logic == "sum"
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        self.classifier = _head(world, apart, pooled=pooled)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, 3, SIZE, SIZE)``."""
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


def planted_network(name: str) -> LoadedModel:
    """The network of a planted world, with the images' preprocessing; ``wall@1`` mixes its channels otherwise.

    Raises:
        ModelError: there is no such world; the nearest ones are named.
    """
    name, _, seed = name.partition("@")
    if seed and not seed.isdigit():
        raise ModelError(f"what follows @ is a seed, a whole number; got {seed!r}")
    try:
        world = WORLDS[name]
    except CamlucidaError as error:
        raise ModelError(str(error)) from error
    net = PlantedNet(world, int(seed or 0))
    return LoadedModel(
        net, f"planted:{world.name}", small_preprocess(SIZE), class_names(world), CLASSES
    )


def _conv(weight: np.ndarray, bias: np.ndarray) -> nn.Conv2d:
    found = nn.Conv2d(
        weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2
    )
    _put(found, weight, bias)
    return found


def _put(layer: nn.Conv2d | nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        assert layer.bias is not None  # noqa: S101
        layer.bias.copy_(torch.from_numpy(bias))


def _detectors(world: World) -> np.ndarray:
    """Each hue by its own direction, stripes by how much a line differs from its neighbours, ``(LOOKS, 3, 3, 3)``.

    What never appears is not looked for.
    """
    found = np.zeros((LOOKS, 3, 3, 3))
    found[:ACROSS, :, 1, 1] = hues()
    line = np.array([-1.0, 2.0, -1.0])[:, None] * np.ones(3) / 9
    found[ACROSS], found[DOWN] = line, line.T
    known = {look for looks in (*world.speaks, world.shared, world.unused) for look in looks}
    found[[look for look in range(ACROSS, LOOKS) if look not in known]] = 0
    return found


def _head(world: World, apart: np.ndarray, *, pooled: bool) -> nn.Sequential:
    """What the classes make of the feature map; one or two linear layers."""
    weights = world.weights() @ apart  # (classes of one region, CHANNELS)
    if pooled:
        last = nn.Linear(CHANNELS, world.classes)
        _put(last, weights * CELLS**2, np.zeros(world.classes))
        return nn.Sequential(last)
    side = CELLS // SLOTS
    seen = [np.kron(world.seen(label), np.ones((side, side))) for label in range(world.classes)]
    if world.logic == "sum":
        rows = [
            np.multiply.outer(weights[i % len(world.speaks)], cells) for i, cells in enumerate(seen)
        ]
        last = nn.Linear(CHANNELS * CELLS**2, world.classes)
        _put(last, np.stack([row.ravel() for row in rows]), np.zeros(world.classes))
        return nn.Sequential(last)
    return _logic(world, apart)


def _logic(world: World, apart: np.ndarray) -> nn.Sequential:
    """Both or either of two looks, out of sums and ReLUs: ``relu(a + b - 1)``, and ``a + b`` less that."""
    own, weights = world.speaks, world.weights()
    rest = weights.copy()
    for looks in own:
        rest[:, list(looks)] = 0
    units = np.zeros((2 * len(own) + LOOKS, LOOKS))
    bias = np.zeros(len(units))
    for label, looks in enumerate(own):
        units[2 * label, list(looks)] = units[2 * label + 1, list(looks)] = _LOUD
        bias[2 * label] = -_BOTH if world.logic == "and" else -1
    units[2 * len(own) :] = np.eye(LOOKS)
    final = np.zeros((world.classes, len(units)))
    for label in range(len(own)):
        final[label, 2 * label] = 2.0 if world.logic == "and" else -1.0
        final[label, 2 * label + 1] = 0.0 if world.logic == "and" else 1.0
    final[:, 2 * len(own) :] = rest
    first = nn.Linear(CHANNELS * CELLS**2, len(units))
    spread = np.repeat((units @ apart)[:, :, None], CELLS**2, 2)
    _put(first, spread.reshape(len(units), -1), bias)
    last = nn.Linear(len(units), world.classes)
    _put(last, final, np.zeros(world.classes))
    return nn.Sequential(first, nn.ReLU(), last)
