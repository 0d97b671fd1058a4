"""Small networks with a wall, trained in minutes on digits on photos: the stand-ins of the dead-zone audit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.data.digits import Digits
from camlucida.models.small import (
    SmallCNN,
    SmallConfig,
    as_input,
    count_parameters,
    small_preprocess,
)
from camlucida.training.classifier import (
    SMALL_FIT,
    Shuffled,
    accuracy,
    keep_trained,
    train_classifier,
)

Kind: TypeAlias = Literal["masked", "unmasked", "residual"]

NETS: dict[Kind, str] = {
    "masked": "masked net",
    "unmasked": "its unmasked twin",
    "residual": "masked residual net",
}
LAYER = "features"
"""The explained layer of all of them: the last feature map."""

SIZE, SEEN_ROWS = 64, 3
_WIDTHS = (12, 24, 48, 64)


class ResidualNet(nn.Module):
    """Four residual blocks with poolings between them, and a head that sees the upper rows of the last map.

    Each block is one 3 x 3 convolution with batch norm beside a 1 x 1 one, so that cells see as far as those of
    the plain net. The authors of the walls paper leave residual networks to future work.

    Args:
        widths: channels of the blocks.
        seen_rows: rows of the last map that the head sees.
        size: height and width of the images.
        classes: outputs.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = _WIDTHS,
        seen_rows: int = SEEN_ROWS,
        size: int = SIZE,
        classes: int = 10,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for index, width in enumerate(widths):
            if index:
                layers.append(nn.MaxPool2d(2))
            layers.append(_Block(before, width))
            before = width
        self.features = nn.Sequential(*layers)
        self.seen_rows = seen_rows
        columns = size // 2 ** (len(widths) - 1)
        self.classifier = nn.Linear(before * seen_rows * columns, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to logits ``(N, classes)``."""
        logits: Tensor = self.classifier(self.features(x)[:, :, : self.seen_rows].flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rectified: Tensor = (self.norm(self.conv(x)) + self.skip(x)).relu()
        return rectified


def build_net(kind: Kind, seed: int = 0) -> nn.Module:
    """An untrained stand-in, in eval mode.

    Args:
        kind: ``"masked"``, ``"unmasked"`` (the same weights, no mask) or ``"residual"`` (masked).
        seed: of the weights.
    """
    if kind not in NETS:
        raise CamlucidaError(f"a stand-in is one of {', '.join(NETS)}, got {kind!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "residual":
            return ResidualNet().eval()
        stages: list[int | Literal["pool"]] = []
        for index, width in enumerate(_WIDTHS):
            stages += ["pool", width] if index else [width]
        seen = SEEN_ROWS if kind == "masked" else None
        config = SmallConfig(stages=tuple(stages), size=SIZE, head="flatten", seen_rows=seen)
        return SmallCNN(config).eval()


@dataclass(frozen=True)
class Plan:
    """How the stand-ins are trained.

    Attributes:
        train: training images: half of them with the digit anywhere, half with it in the seen part.
        validation: images that choose the best epoch.
        test: images of each kind that accuracies are measured on.
        epochs: passes over the training images.
        learning_rate: the highest of a cosine.
        batch: images per step.
        seed: of weights, data and order.
    """

    train: int = 6000
    validation: int = 300
    test: int = 500
    epochs: int = 8
    learning_rate: float = 4e-3
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class StandIn:
    """A trained stand-in.

    Attributes:
        kind: which.
        model: in eval mode.
        zone: its dead pixels, proved before it was trained.
        record: curves, accuracies, options and seconds, ready for JSON.
    """

    kind: Kind
    model: nn.Module
    zone: DeadZone
    record: dict[str, Any]


def stacked(
    dead_from: int, count: int, seed: int = 0, split: Literal["train", "test"] = "test"
) -> Digits:
    """Images with the labelled digit in the seen rows and one of another class in the dead rows."""
    return Digits(
        split,
        count=count,
        size=SIZE,
        seed=seed,
        second=True,
        object_rows=(0, dead_from),
        second_rows=(dead_from, SIZE),
    )


class StandIns:
    """Trains the stand-ins, and draws their images once.

    Args:
        plan: how.
        store: where finished nets are kept, and a training that was stopped goes on.
        say: told about the progress.
    """

    def __init__(self, plan: Plan, store: Store, say: Say | None = None) -> None:
        self.plan, self.store = plan, store
        self.say = say or (lambda *_: None)
        # The wall is where the masked net's is, also for its twin.
        self.zone = dead_zone(build_net("masked", plan.seed), (SIZE, SIZE), draws=2, seed=plan.seed)
        if self.zone.rows is None or self.zone.rows[1] != SIZE - 1:
            raise CamlucidaError(f"the stand-in has no dead rows at its lower edge: {self.zone}")
        self.dead_from = self.zone.rows[0]

    def get(self, kind: Kind) -> StandIn:
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
        return StandIn(kind, model, zone, {**known, **record})

    def _train(self, kind: Kind, model: nn.Module, checkpoint: Path | None) -> dict[str, Any]:
        plan = self.plan
        chosen = stacked(self.dead_from, plan.validation, seed=plan.seed + 1).tensors()
        inputs = as_input(chosen.images)
        batches = Shuffled(plan.train, plan.batch, plan.seed)
        options = replace(
            SMALL_FIT, epochs=plan.epochs, learning_rate=plan.learning_rate, seed=plan.seed
        )
        fitted = train_classifier(
            model,
            batches,
            self._training,
            replace(options, warmup=batches.steps),
            prepare=as_input,
            validate=lambda net: accuracy(net, inputs, chosen.labels),
            checkpoint=checkpoint,
            progress=lambda done, total, _: self.say(f"training the {kind} net", done, total),
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
