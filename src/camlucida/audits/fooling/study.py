"""One model under several attacks, whose finished parts are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.measure import measure_variant
from camlucida.audits.fooling.tune import Attack, attack_key, fool
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.training.cam_loss import CAMOptions, TrainableCAM
from camlucida.training.classifier import accuracy

_REFERENCE = Candidate("gradcam")  # for similarity scores


@dataclass(frozen=True)
class FoolingCase:
    """A model that is fooled, and its images.

    Attributes:
        trial: the model, which is left as it is, and the images that are explained, each by its class.
        images: to fool it with, ready for ``prepare``.
        labels: their classes.
        test: inputs that accuracy is measured on.
        test_labels: their classes.
        prepare: makes inputs of images.
    """

    trial: Trial
    images: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    prepare: Callable[[Tensor], Tensor] = lambda images: images

    @property
    def layer(self) -> str:
        """Whose map is attacked and explained."""
        assert self.trial.layer is not None  # noqa: S101
        return self.trial.layer

    @property
    def classes(self) -> Tensor:
        """What is explained of each image."""
        assert self.trial.classes is not None  # noqa: S101
        return self.trial.classes


@dataclass
class Study:
    """Attacks on one case; everything finished is kept.

    Attributes:
        case: model and images.
        store: where parts are kept, and a stopped attack goes on.
        say: told about the progress.
    """

    case: FoolingCase
    store: Store
    say: Say
    name: str = ""
    records: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    _kept: dict[str, nn.Module] = field(default_factory=dict)
    _maps: dict[str, Tensor] = field(default_factory=dict)

    def attacked(self, attack: Attack) -> tuple[str, nn.Module, Tensor]:
        """Key, attacked copy and mask of an attack."""
        case = self.case
        key = self.name + attack_key(attack, len(case.images))
        if key not in self._kept:
            title = f"{self.name}fine-tuning: {described(attack)}"
            model = copy.deepcopy(case.trial.model)
            fresh: dict[str, Any] = {}

            def run() -> dict[str, Tensor]:
                found = fool(
                    case.trial.model,
                    case.images,
                    case.labels,
                    attack,
                    layer=case.layer,
                    prepare=case.prepare,
                    checkpoint=self.store.checkpoint(key),
                    say=lambda _, done, total: self.say(title, done, total),
                )
                fresh.update(found.record)
                self.store.value(f"{key}-record", lambda: fresh)
                return {**found.model.state_dict(), "mask": found.mask}

            weights = self.store.tensors(f"{key}-weights", run)
            self.masks[key] = weights.pop("mask")
            model.load_state_dict(weights)
            self._kept[key] = model.eval()
            self.records[key] = self.store.value(f"{key}-record", lambda: fresh)
        return key, self._kept[key], self.masks[key]

    def measured(self, attack: Attack, methods: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
        """What an attack does to the maps of each method."""
        key, model, mask = self.attacked(attack)
        found = {}
        title = f"{self.name}measuring: {described(attack)}"
        for i, one in enumerate(methods):
            self.say(title, i, len(methods))
            found[one.label] = self.store.value(
                f"{key}-on-{one.key}",
                lambda one=one: measure_variant(  # type: ignore[misc]
                    self.case.trial, model, one, mask, self.clean_maps(one), self.clean_maps(_REFERENCE)
                ),
            )  # fmt: skip
        self.say(title, len(methods), len(methods))
        return found

    def clean_maps(self, one: Candidate) -> Tensor | None:
        """A method's maps of the clean model; ``None`` where they cannot be made."""
        if one.key not in self._maps:
            try:
                self._maps[one.key] = self.case.trial.raw(one)
            except CamlucidaError:
                return None
        return self._maps[one.key]

    def accuracy(self, attack: Attack | None) -> float:
        """On the test images; ``None`` for the clean model."""
        case = self.case
        if attack is None:
            model, key = case.trial.model, f"{self.name}clean"
        else:
            key, model, _ = self.attacked(attack)
        found: float = self.store.value(
            f"{key}-accuracy", lambda: accuracy(model, case.test, case.test_labels)
        )
        return found

    def aimed(self, attack: Attack) -> tuple[float, float]:
        """Distance of the attacked map, as shown, from the mask, before and after; mean over explained images."""
        key, model, mask = self.attacked(attack)
        case = self.case
        options = replace(attack.shown, cam_layer=case.layer, mode="eval")

        def measure() -> list[float]:
            return [self.distance(net, options, mask) for net in (case.trial.model, model)]

        before, after = self.store.value(f"{key}-aimed", measure)
        return before, after

    def distance(self, model: nn.Module, options: CAMOptions, mask: Tensor) -> float:
        """Mean squared distance of a model's maps of the explained images from a mask."""
        maps = self.trained_maps(model, options)
        return float((maps - mask.to(maps)).square().mean())

    def trained_maps(self, model: nn.Module, options: CAMOptions) -> Tensor:
        """Maps as a loss sees them, of the explained images."""
        trial = self.case.trial
        cam = TrainableCAM(model, trial.inputs[:1], options)
        return cam.observe(model, trial.inputs, self.case.classes, trial.batch_size)[1]

    def hit(self, attack: Attack) -> float:
        """By which share an attack shortened the distance of its map from the mask."""
        before, after = self.aimed(attack)
        return 1 - after / before if before > 0 else 0.0


def described(attack: Attack) -> str:
    """An attack in few words."""
    if attack.kind == "none":
        what = "no attack"
    elif attack.kind == "holes":
        what = "holes in the images"
    elif attack.kind == "location":
        what = "location fooling"
    else:
        margin = f", {attack.cam.aggregator} margin" if attack.cam.aggregator else ""
        what = "SHAM" if attack.cam.cam == "weights" else f"{attack.cam.cam}{margin}"
    return f"{what}, {attack.trainable}, {attack.epochs} epoch{'s' if attack.epochs > 1 else ''}"
