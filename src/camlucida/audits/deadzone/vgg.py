"""The masked VGG on VGG16's ImageNet convolutions, its head trained on the labelled photos: nearer to the paper's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.limits import Count, Positive
from camlucida.common.progress import Say, part
from camlucida.common.store import Store
from camlucida.data.open import open_data
from camlucida.data.preprocess import Preprocess
from camlucida.data.stack_mix import stack_mix
from camlucida.data.train_val import Part
from camlucida.models.loaded import LoadedModel
from camlucida.models.masked_vgg import MaskedVGG
from camlucida.models.vgg16_convolutions import vgg16_convolutions
from camlucida.training.classifier import SmallPlan, accuracy, keep_trained, train_classifier
from camlucida.training.masked import MaskedRecipe, Photos

SIZE = 224
PREPROCESS = Preprocess.imagenet(SIZE, resize=SIZE)

_TRAINED_FROM = 28
"""The convolution that the paper replaces, with all behind it; what stands before is left as it is on ImageNet."""


@dataclass(frozen=True)
class VGGPlan(SmallPlan):
    """How the head is trained: to tell the labelled photos apart, by random crops of them.

    Attributes:
        train: crops of each photo that it learns from.
        test: other crops of each photo, which accuracy is measured on.
    """

    epochs: Count = 6
    learning_rate: Positive = 5e-5
    warmup: int = 5
    train: Count = 12
    test: Count = 2
    batch: Count = 42


def walled_vgg(
    plan: VGGPlan, store: Store, say: Say = lambda *_: None
) -> tuple[LoadedModel, dict[str, Any]]:
    """The network, trained now or from the store, and its record with accuracies on images that it has not seen.

    Raises:
        ModelError: the package with the convolutions is not installed.
    """
    names = _photos()[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = MaskedVGG(len(names), initialisation="authors").eval()
    kept = {
        k: v
        for k, v in vgg16_convolutions().items()
        if not k.startswith(f"features.{_TRAINED_FROM}.")
    }
    model.load_state_dict({**model.state_dict(), **kept})
    tail = nn.Sequential(*model.features[_TRAINED_FROM:], nn.Flatten(1), *model.classifier)
    record = keep_trained(store, "vgg-head", tail, lambda _: _train(model, tail, plan, say))
    loaded = LoadedModel(
        model.eval(),
        "the masked VGG on ImageNet's convolutions, its head trained on a few photos",
        PREPROCESS,
        names,
    )
    return loaded, {"plan": asdict(plan), **record}


def stacked_photos(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs with one photo in the seen rows and another one in the dead rows, and the classes of both.

    There are no more of them than labelled photos.
    """
    whole, labels = _crops(None, seed)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    first, second = order[:count], order.roll(1)[:count]
    return stack_mix(whole[first], whole[second]), labels[first], labels[second]


def _photos() -> tuple[Part, tuple[str, ...]]:
    """The labelled photos, and their classes."""
    found = open_data("photos")
    part = Part(Path(), [s.file for s in found], [s.label_name for s in found])
    return part, tuple(sorted(set(part.names)))


def _crops(number: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """The crop of that number of each photo, or all of it, and their classes."""
    part, names = _photos()
    recipe = MaskedRecipe(size=SIZE, area=(0.25, 1.0), seed=seed)
    photos = Photos(
        part, {name: i for i, name in enumerate(names)}, recipe, crop=number is not None
    )
    photos.epoch = number or 0
    crops, labels = zip(*(photos[i] for i in range(len(photos))), strict=True)
    return torch.stack(crops), torch.tensor(labels)


def _train(model: MaskedVGG, tail: nn.Module, plan: VGGPlan, say: Say) -> dict[str, Any]:
    drawn = [_crops(number, plan.seed) for number in range(plan.train + plan.test)]
    both, seen, other = stacked_photos(len(drawn[0][0]), plan.seed)
    found = []
    for done, (inputs, labels) in enumerate((*drawn, (both, seen)), 1):
        with torch.no_grad():
            maps = [model.features[:_TRAINED_FROM](some) for some in torch.split(inputs, 7)]
        found.append((torch.cat(maps), labels))
        say("features of crops of photos", done, len(drawn) + 1)
    train, test = (
        tuple(torch.cat(some) for some in zip(*part, strict=True))
        for part in (found[: plan.train], found[plan.train : -1])
    )
    fitted = train_classifier(
        tail,
        train,
        plan,
        batch=plan.batch,
        progress=part(say, "training the head of the masked VGG"),
    )
    return {
        "curve": [{k: r[k] for k in ("epoch", "loss")} for r in fitted.curves],
        "accuracy": {
            "other crops": accuracy(tail, test[0], test[1]),
            "two photos, names the seen one": accuracy(tail, found[-1][0], seen),
            "two photos, names the other one": accuracy(tail, found[-1][0], other),
        },
    }
