"""The masked VGG on VGG16's ImageNet convolutions, its head trained on digits on photos: nearer to the paper's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.nets import stacked
from camlucida.common.limits import Count, Positive
from camlucida.common.progress import Say, part
from camlucida.common.store import Store
from camlucida.data.digits import Digits
from camlucida.data.preprocess import Preprocess
from camlucida.data.stack_mix import DEAD_ROWS
from camlucida.models.loaded import LoadedModel
from camlucida.models.masked_vgg import MaskedVGG
from camlucida.models.vgg16_convolutions import vgg16_convolutions
from camlucida.training.classifier import SmallPlan, accuracy, keep_trained, train_classifier

SIZE = 224
PREPROCESS = Preprocess.imagenet(SIZE, resize=SIZE)

_TRAINED_FROM = 28
"""The convolution that the paper replaces, with all behind it; what stands before is left as it is on ImageNet."""


@dataclass(frozen=True)
class VGGPlan(SmallPlan):
    """How the head is trained: half of the images have the digit anywhere, half in the seen part."""

    epochs: Count = 6
    learning_rate: Positive = 1e-4
    warmup: int = 5
    train: Count = 500
    test: Count = 60


def walled_vgg(
    plan: VGGPlan, store: Store, say: Say = lambda *_: None
) -> tuple[LoadedModel, dict[str, Any]]:
    """The network, trained now or from the store, and its record with accuracies on images that it has not seen.

    Raises:
        ModelError: the package with the convolutions is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = MaskedVGG(10, initialisation="authors").eval()
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
        "the masked VGG on ImageNet's convolutions, its head trained on digits on photos",
        PREPROCESS,
        tuple("0123456789"),
    )
    return loaded, {"plan": asdict(plan), **record}


def two_digits(count: int, seed: int) -> Tensor:
    """Inputs with a digit in the seen rows and one of another class in the dead rows."""
    return _input(stacked(DEAD_ROWS.top, count, seed, size=SIZE).tensors().images)


def _input(images: Tensor) -> Tensor:
    """Images of bytes as the network takes them."""
    return PREPROCESS.normalise(images.float().div(255))


def _train(model: MaskedVGG, tail: nn.Module, plan: VGGPlan, say: Say) -> dict[str, Any]:
    half, seen = plan.train // 2, (0, DEAD_ROWS.top)
    drawn = partial(Digits, size=SIZE)
    sets = {
        "anywhere": drawn("train", count=half, seed=plan.seed),
        "seen": drawn("train", count=plan.train - half, seed=plan.seed + 1, object_rows=seen),
        "test": drawn("test", count=plan.test, seed=plan.seed, object_rows=seen),
        "two": stacked(DEAD_ROWS.top, plan.test, plan.seed, size=SIZE),
    }
    total, done = sum(map(len, sets.values())), 0
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, data in sets.items():
        made = data.tensors()
        maps = []
        for some in torch.split(made.images, 10):
            with torch.no_grad():
                maps.append(model.features[:_TRAINED_FROM](_input(some)))
            done += len(some)
            say("features of digits on photos", done, total)
        found[name] = (torch.cat(maps), made.labels)
        if made.second_labels is not None:
            found["other"] = (found[name][0], made.second_labels)
    fitted = train_classifier(
        tail,
        tuple(torch.cat(both) for both in zip(found["anywhere"], found["seen"], strict=True)),
        plan,
        batch=plan.batch,
        progress=part(say, "training the head of the masked VGG"),
    )
    measured = {
        "digit in the seen part": "test",
        "two digits, names the seen one": "two",
        "two digits, names the other one": "other",
    }
    return {
        "curve": [{k: r[k] for k in ("epoch", "loss")} for r in fitted.curves],
        "accuracy": {k: accuracy(tail, *found[name]) for k, name in measured.items()},
    }
