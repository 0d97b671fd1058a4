"""Small networks with a wall, trained in minutes on digits on photos: the stand-ins of the dead-zone audit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count
from camlucida.common.progress import Say, part
from camlucida.common.store import Store
from camlucida.data.digits import Digits
from camlucida.models.small import (
    SmallConfig,
    Stage,
    as_input,
    count_parameters,
    small_preprocess,
)
from camlucida.training.classifier import (
    SmallPlan,
    accuracy,
    keep_trained,
    small_net,
    train_classifier,
)

NetKind: TypeAlias = Literal["masked", "unmasked", "residual"]

NETS: dict[NetKind, str] = {
    "masked": "masked net",
    "unmasked": "its unmasked twin",
    "residual": "masked residual net",
}
LAYER = "features"
"""The explained layer of all of them: the last feature map."""

SIZE, SEEN_ROWS = 64, 3
_WIDTHS = (12, 24, 48, 64)


def build_net(kind: NetKind, seed: int = 0) -> nn.Module:
    """An untrained stand-in, in eval mode.

    Args:
        kind: ``"masked"``, ``"unmasked"`` (the same weights, no mask) or ``"residual"`` (masked; the authors of the
            walls paper leave residual networks to future work).
        seed: of the weights.
    """
    if kind not in NETS:
        raise CamlucidaError(f"a stand-in is one of {', '.join(NETS)}, got {kind!r}")
    first, *others = _WIDTHS
    stages: tuple[Stage, ...] = (first, *(stage for width in others for stage in ("pool", width)))
    seen = None if kind == "unmasked" else SEEN_ROWS
    config = SmallConfig(
        stages=stages, size=SIZE, head="flatten", seen_rows=seen, residual=kind == "residual"
    )
    return small_net(config, seed).eval()


@dataclass(frozen=True)
class WallPlan(SmallPlan):
    """How the stand-ins are trained; half of the training images have the digit anywhere, half in the seen part.

    Attributes:
        validation: images that choose the best epoch.
    """

    warmup: int = 1_000_000  # a whole epoch, however long it is
    train: Count = 6000
    validation: Count = 300

    @classmethod
    def of(cls, *, quick: bool, seed: int) -> WallPlan:
        """The plan of a quick audit, or of a full one."""
        return (
            cls(seed=seed)
            if quick
            else cls(train=20_000, validation=500, test=1000, epochs=12, seed=seed)
        )


@dataclass(frozen=True)
class WalledNet:
    """A trained stand-in.

    Attributes:
        kind: which.
        model: in eval mode.
        zone: its dead pixels, proved before it was trained.
        record: curves, accuracies, options and seconds, ready for JSON.
    """

    kind: NetKind
    model: nn.Module
    zone: DeadZone
    record: dict[str, Any]


def stacked(dead_from: int, count: int, seed: int = 0) -> Digits:
    """Images with the labelled digit in the seen rows and one of another class in the dead rows."""
    return Digits(
        "test",
        count=count,
        size=SIZE,
        seed=seed,
        second=True,
        object_rows=(0, dead_from),
        second_rows=(dead_from, SIZE),
    )


class WalledNets:
    """Trains the stand-ins, and draws their images once."""

    def __init__(self, plan: WallPlan, store: Store, say: Say | None = None) -> None:
        self.plan, self.store = plan, store
        self.say = say or (lambda *_: None)
        # The wall is where the masked net's is, also for its twin.
        self.zone = dead_zone(build_net("masked", plan.seed), (SIZE, SIZE), draws=2, seed=plan.seed)
        if self.zone.rows is None or self.zone.rows[1] != SIZE - 1:
            raise CamlucidaError(f"the stand-in has no dead rows at its lower edge: {self.zone}")
        self.dead_from = self.zone.rows[0]

    def get(self, kind: NetKind) -> WalledNet:
        """A trained stand-in, from the store or trained now."""
        model = build_net(kind, self.plan.seed)
        zone = dead_zone(model, (SIZE, SIZE), draws=2, seed=self.plan.seed)
        record = keep_trained(self.store, kind, model, partial(self._train, kind, model))
        if "accuracy" not in record:  # the record is lost; what can be measured again is
            record = {"seconds": None, "curve": [], "accuracy": self._accuracies(model)}
        known = {
            "net": NETS[kind],
            "parameters": count_parameters(model),
            "plan": asdict(self.plan),
        }
        return WalledNet(kind, model, zone, {**known, **record})

    def _train(self, kind: NetKind, model: nn.Module, checkpoint: Path | None) -> dict[str, Any]:
        plan = self.plan
        chosen = stacked(self.dead_from, plan.validation, seed=plan.seed + 1).tensors()
        inputs = as_input(chosen.images)
        fitted = train_classifier(
            model,
            self._training,
            plan,
            batch=plan.batch,
            prepare=as_input,
            validate=lambda net: accuracy(net, inputs, chosen.labels),
            checkpoint=checkpoint,
            progress=part(self.say, f"training the {kind} net"),
        )
        return {
            "resumed_from": fitted.resumed_from,
            "curve": [{k: r[k] for k in ("epoch", "loss", "score")} for r in fitted.curves],
            "best_epoch": fitted.best_epoch,
            "accuracy": self._accuracies(model),
        }

    def _accuracies(self, model: nn.Module) -> dict[str, float]:
        plan = self.plan
        digits = partial(Digits, "test", count=plan.test, size=SIZE, seed=plan.seed)
        both = stacked(self.dead_from, plan.test, seed=plan.seed).tensors()
        anywhere, seen = digits().tensors(), digits(object_rows=(0, self.dead_from)).tensors()
        assert both.second_labels is not None  # noqa: S101
        measured = {
            "digit anywhere": (anywhere.images, anywhere.labels),
            "digit in the seen part": (seen.images, seen.labels),
            "two digits, names the seen one": (both.images, both.labels),
            "two digits, names the other one": (both.images, both.second_labels),
        }
        return {k: accuracy(model, as_input(x), y) for k, (x, y) in measured.items()}

    @cached_property
    def _training(self) -> tuple[Tensor, Tensor]:
        """Images and labels: half of the digits anywhere, half in the seen part."""
        half, seed = self.plan.train // 2, self.plan.seed
        first = Digits("train", count=half, size=SIZE, seed=seed).tensors(say=self.say)
        rest = Digits(
            "train",
            count=self.plan.train - half,
            size=SIZE,
            seed=seed + 1,
            object_rows=(0, self.dead_from),
        ).tensors(say=self.say)
        return torch.cat([first.images, rest.images]), torch.cat([first.labels, rest.labels])


def audit_images(dead_from: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, the labels of their seen digits, and those of their dead digits."""
    drawn = stacked(dead_from, count, seed).tensors()
    assert drawn.second_labels is not None  # noqa: S101
    return as_input(drawn.images), drawn.labels, drawn.second_labels


PREPROCESS = small_preprocess(SIZE)
"""How a photo becomes the stand-ins' input."""
