"""Small networks with a wall, trained in minutes on digits on photos: the stand-ins of the dead-zone audit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.data.digits import Digits
from camlucida.models.small import SmallCNN, SmallConfig, as_input, small_preprocess
from camlucida.training.loop import FitOptions, fit

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
        store: where finished nets are kept.
        folder: where a training that was stopped goes on; ``None`` starts anew.
        say: told about the progress.
    """

    def __init__(
        self, plan: Plan, store: Store, folder: Path | None = None, say: Say | None = None
    ) -> None:
        self.plan, self.store, self.folder = plan, store, folder
        self.say = say or (lambda *_: None)
        self._images: tuple[Tensor, Tensor] | None = None
        self._records: dict[Kind, dict[str, Any]] = {}
        # The wall is where the masked net's is, also for its twin.
        self.zone = dead_zone(build_net("masked", plan.seed), (SIZE, SIZE), draws=2, seed=plan.seed)
        if self.zone.rows is None or self.zone.rows[1] != SIZE - 1:
            raise CamlucidaError(f"the stand-in has no dead rows at its lower edge: {self.zone}")
        self.dead_from = self.zone.rows[0]

    def get(self, kind: Kind) -> StandIn:
        """A trained stand-in, from the store or trained now."""
        model = build_net(kind, self.plan.seed)
        zone = dead_zone(model, (SIZE, SIZE), draws=2, seed=self.plan.seed)
        weights = self.store.tensors(f"{kind}-weights", lambda: self._train(kind, model))
        model.load_state_dict(weights)
        model.eval()
        if (checkpoint := self._checkpoint(kind)) is not None:
            checkpoint.unlink(missing_ok=True)
        record = self.store.value(f"{kind}-training", lambda: self._record(kind, model))
        return StandIn(kind, model, zone, record)

    def _checkpoint(self, kind: Kind) -> Path | None:
        return None if self.folder is None else self.folder / f"{kind}-{self.store.key}.ckpt"

    def _record(self, kind: Kind, model: nn.Module) -> dict[str, Any]:
        """What was noted down in the training; where that is lost, what can be measured again."""
        known = {
            "net": NETS[kind],
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": None,
            "curve": [],
            "plan": asdict(self.plan),
        }
        if kind in self._records:
            return known | self._records[kind]
        return known | {"accuracy": self._accuracies(model)}

    def _train(self, kind: Kind, model: nn.Module) -> dict[str, Tensor]:
        plan = self.plan
        images, labels = self._training()
        chosen = stacked(self.dead_from, plan.validation, seed=plan.seed + 1).tensors()
        steps = -(-plan.train // plan.batch)
        title = f"training the {kind} net"

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            generator = torch.Generator().manual_seed((plan.seed * 1000 + epoch) % 2**63)
            order = torch.randperm(plan.train, generator=generator)
            for some in torch.split(order, plan.batch):
                yield as_input(images[some]), labels[some]

        def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(net(batch[0]), batch[1])

        start = time.perf_counter()
        fitted = fit(
            model,
            batches,
            loss,
            validate=lambda net: _accuracy(net, chosen.images, chosen.labels),
            options=FitOptions(
                epochs=plan.epochs,
                optimizer="adam",
                learning_rate=plan.learning_rate,
                weight_decay=0.01,
                schedule="cosine",
                warmup=steps,
                accelerator="cpu",
                seed=plan.seed,
            ),
            steps_per_epoch=steps,
            checkpoint=self._checkpoint(kind),
            progress=lambda done, total, _: self.say(title, done, total),
        )
        seconds = time.perf_counter() - start
        self._records[kind] = {
            "seconds": seconds,
            "resumed_from": fitted.resumed_from,
            "curve": [{k: r[k] for k in ("epoch", "loss", "score")} for r in fitted.curves],
            "best_epoch": fitted.best_epoch,
            "accuracy": self._accuracies(model),
        }
        # Before the weights: who finds those finds the curve too.
        self.store.value(f"{kind}-training", lambda: self._record(kind, model))
        return dict(model.state_dict())

    def _accuracies(self, model: nn.Module) -> dict[str, float]:
        plan = self.plan
        both = stacked(self.dead_from, plan.test, seed=plan.seed).tensors()
        seen = Digits(
            "test", count=plan.test, size=SIZE, seed=plan.seed, object_rows=(0, self.dead_from)
        ).tensors()
        anywhere = Digits("test", count=plan.test, size=SIZE, seed=plan.seed).tensors()
        assert both.second_labels is not None  # noqa: S101
        return {
            "digit anywhere": _accuracy(model, anywhere.images, anywhere.labels),
            "digit in the seen part": _accuracy(model, seen.images, seen.labels),
            "two digits, names the seen one": _accuracy(model, both.images, both.labels),
            "two digits, names the other one": _accuracy(model, both.images, both.second_labels),
        }

    def _training(self) -> tuple[Tensor, Tensor]:
        if self._images is None:
            half = self.plan.train // 2
            seed = self.plan.seed
            self.say("drawing digits", 0, 2)
            first = Digits("train", count=half, size=SIZE, seed=seed).tensors()
            self.say("drawing digits", 1, 2)
            rest = Digits(
                "train",
                count=self.plan.train - half,
                size=SIZE,
                seed=seed + 1,
                object_rows=(0, self.dead_from),
            ).tensors()
            self.say("drawing digits", 2, 2)
            self._images = (
                torch.cat([first.images, rest.images]),
                torch.cat([first.labels, rest.labels]),
            )
        return self._images


@torch.no_grad()
def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    was = model.training
    model.eval()
    right = 0
    for x, y in zip(torch.split(images, 100), torch.split(labels, 100), strict=True):
        right += int((model(as_input(x)).argmax(1) == y).sum())
    model.train(was)
    return right / len(labels)


def audit_images(dead_from: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, the labels of their seen digits, and those of their dead digits."""
    drawn = stacked(dead_from, count, seed).tensors()
    assert drawn.second_labels is not None  # noqa: S101
    return as_input(drawn.images), drawn.labels, drawn.second_labels


PREPROCESS = small_preprocess(SIZE)
"""How a photo becomes the stand-ins' input."""
