"""Salience-guided training: people's maps against a mask that lies, over several seeds."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import plain, to_json
from camlucida.common.progress import Say
from camlucida.common.store import PLAN, holds_plan, read_plan
from camlucida.common.version import __version__
from camlucida.training.cam_loss import TrainableCAM
from camlucida.training.classifier import Shuffled
from camlucida.training.loop import check_alone, fit
from camlucida.training.salience.data import Batch, DigitSet
from camlucida.training.salience.measure import Measurement, accuracy, measure
from camlucida.training.salience.models import RECORD, Start, save_weights
from camlucida.training.salience.recipe import (
    ARMS,
    PUBLISHED,
    Arm,
    ImageSets,
    SalienceRecipe,
    loss_of,
)
from camlucida.training.sham import sham_mask

CHECKPOINT = "checkpoint.pt"

_BEFORE = 500  # images that the untrained maps are measured on


@dataclass(frozen=True)
class TrainedArm:
    """One training, done.

    Attributes:
        arm: what it was guided by.
        seed: of head, order and dropout.
        folder: with the weights.
        record: everything measured, ready for JSON.
    """

    arm: Arm
    seed: int
    folder: Path
    record: Mapping[str, Any]

    def number(self, *names: str) -> float:
        """A measured number of the record; NaN where it is not known."""
        value: Any = self.record
        for name in names:
            value = value[name]
        return math.nan if value is None else float(value)

    @property
    def accuracy(self) -> float:
        """On the test images."""
        return self.number("accuracy")

    @property
    def guess(self) -> float:
        """The accuracy of always answering the most frequent class of the test images; 0 where it was not kept."""
        return float(self.record.get("guess", 0.0))

    @property
    def correct(self) -> list[bool]:
        """Of each test image."""
        return [c == "1" for c in self.record["correct"]]


def train_arm(
    recipe: SalienceRecipe,
    arm: Arm,
    seed: int,
    sets: ImageSets,
    out: Path,
    *,
    say: Say | None = None,
) -> TrainedArm:
    """One training: from the store where it is done, else resumed or begun.

    All arms of a seed start from the same weights and see the same batches. The training is kept in
    ``out/ARM/seed-SEED``; :func:`camlucida.training.salience.models.load_trained` loads its network.

    Raises:
        CamlucidaError: the folder holds another training, the arm needs a salience that the images have not, the
            network has no head for a class-weight map, or several processes were started.
    """
    if arm not in get_args(Arm):
        raise CamlucidaError(f"guided by one of {', '.join(ARMS)}, got {arm!r}")
    if arm in {"human", "mask"} and not sets.train.has_salience:
        raise CamlucidaError(f"the images have no salience of their own, which {ARMS[arm]!r} needs")
    check_alone()
    folder = out / arm / f"seed-{seed}"
    plan = plain({
        "camlucida": __version__, "arm": arm, "seed": seed, **recipe.describe(),
        "weights": _hash(Path(recipe.model)), "data": sets.describe(),
    })  # fmt: skip
    if done := _kept(folder, plan):
        return TrainedArm(arm, seed, folder, done)
    write_bytes(folder / PLAN, to_json(plan).encode())
    record = _train(recipe, arm, seed, sets, folder, say or (lambda *_: None))
    write_bytes(folder / RECORD, to_json(record).encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return TrainedArm(arm, seed, folder, json.loads(to_json(record)))


# ---- one training -------------------------------------------------------------------------------


def _train(
    recipe: SalienceRecipe, arm: Arm, seed: int, sets: ImageSets, folder: Path, say: Say
) -> dict[str, Any]:
    clock, cpu = time.perf_counter(), time.process_time()
    title = f"{ARMS[arm]}, seed {seed}"
    names = sets.train.class_names
    start = recipe.start(len(names), seed)
    module = start.module.to(memory_format=torch.channels_last)
    probe = sets.train.inputs(torch.arange(1))
    cam = TrainableCAM(module, probe, replace(recipe.cam, cam_layer=start.layer))
    sham = sham_mask(cam.size, recipe.layout)
    before = measure(module, cam, sets.test, sham, limit=_BEFORE)
    places = Shuffled(len(sets.train), recipe.batch_size, seed)

    def batches(epoch: int) -> Iterator[Batch]:
        size = cam.size if arm in {"human", "mask"} else None
        for images, *rest in sets.train.batches(places(epoch), size):
            # The memory order in which convolutions are quick.
            yield (images.contiguous(memory_format=torch.channels_last), *rest)

    def progress(done: int, total: int, _: Mapping[str, float]) -> None:
        say(title, done, total)

    fitted = fit(
        module,
        batches,
        loss_of(recipe, arm, cam, sham),
        validate=lambda net: accuracy(net, sets.validation),
        options=replace(recipe, seed=seed),
        steps_per_epoch=places.steps,
        checkpoint=folder / CHECKPOINT,
        progress=progress,
    )
    measuring = f"{title}: measuring"
    found = measure(
        module, cam, sets.test, sham, progress=lambda done, total: say(measuring, done, total)
    )
    curves = [{"score": math.nan, **row} for row in fitted.curves]
    record = {
        "arm": arm,
        "seed": seed,
        "class_names": list(names),
        "accuracy": found.accuracy,
        "guess": float(sets.test.labels.bincount().max()) / len(sets.test),
        "maps": _numbers(found),
        "maps_before": _numbers(before),
        "correct": "".join("01"[c] for c in found.correct),
        "best_epoch": fitted.best_epoch,
        "validation_accuracy": curves[fitted.best_epoch]["score"],
        "curves": curves,
        "resumed_from": fitted.resumed_from,
        "layer": cam.layer,
        "grid": list(cam.size),
        "sham_entropy": math.log(float(sham.sum())),
        "architecture": start.architecture,
        "preprocess": start.preprocess.to_dict(),
        "parameters": sum(p.numel() for p in module.parameters()),
        "device": str(next(module.parameters()).device),
        "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
    }
    return {**record, "weights": _weights(folder, module, start, record).name}


def _weights(folder: Path, module: nn.Module, start: Start, record: Mapping[str, Any]) -> Path:
    kept = {k: v for k, v in record.items() if k not in {"correct", "curves"}}
    return save_weights(folder, module, start, kept)


def _numbers(found: Measurement) -> dict[str, Any]:
    values = {k: v for k, v in vars(found).items() if k != "correct"}
    return {"accuracy": found.accuracy, **values}


def _kept(folder: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished training of this plan; ``None`` where it is to be begun or to go on.

    Raises:
        CamlucidaError: the folder holds a training of another plan.
    """
    finished = (folder / RECORD).is_file()
    wanted = plan
    if not finished and (kept := read_plan(folder)):
        # Other test images, such as without a broken one, do not spoil a training under way.
        data = {**plan["data"], "test": kept.get("data", {}).get("test")}
        wanted = {**plan, "data": data}
    holds_plan(folder, wanted, results=finished or (folder / CHECKPOINT).is_file())
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None  # not finished, or damaged: the checkpoint goes on


def _hash(file: Path) -> str | None:
    """Of the weights that a training starts from, where they are in a file."""
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# ---- all of them --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """All trainings that are done.

    Attributes:
        recipe: how they were trained.
        arms: what was asked for, in order.
        seeds: the repetitions that were asked for.
        trained: those that are done.
        data: what identifies the images, ready for JSON.
        stand_in: whether the images are digits on photos.
        own_test: whether the test images did not choose the epochs.
        complete: whether all are done; ``False`` after Ctrl-C.
    """

    recipe: SalienceRecipe
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    trained: tuple[TrainedArm, ...]
    data: Mapping[str, Any]
    stand_in: bool
    own_test: bool
    complete: bool

    def of(self, arm: Arm) -> list[TrainedArm]:
        """The trainings of an arm, by seed."""
        return [t for t in self.trained if t.arm == arm]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single images, ready for JSON."""
        return dict(
            plain(
                {
                    "camlucida": __version__,
                    "torch": str(torch.__version__),
                    "complete": self.complete,
                    "stand_in": self.stand_in,
                    "arms": list(self.arms),
                    "seeds": list(self.seeds),
                    "recipe": self.recipe.describe(),
                    "data": self.data,
                    "published": {k: list(v) for k, v in PUBLISHED.items()},
                    "trained": [
                        {k: v for k, v in t.record.items() if k != "correct"} for t in self.trained
                    ],
                }
            )
        )


def train_arms(
    recipe: SalienceRecipe,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    sets: ImageSets,
    out: str | Path,
    *,
    say: Say | None = None,
) -> Experiment:
    """Train every arm with every seed; what is done is kept, and found again by the next call.

    The result is not complete where it was stopped by Ctrl-C. Errors are those of :func:`train_arm`.
    """
    if not arms or not seeds:
        raise CamlucidaError("at least one arm and one seed are needed")
    done: list[TrainedArm] = []
    complete = True
    try:
        # Seed by seed, so that whatever is done when it is stopped can be compared.
        for seed in seeds:
            for arm in arms:
                done.append(train_arm(recipe, arm, seed, sets, Path(out), say=say))  # noqa: PERF401
    except KeyboardInterrupt:
        complete = False
    order = {arm: i for i, arm in enumerate(arms)}
    done.sort(key=lambda t: (order[t.arm], t.seed))
    return Experiment(
        recipe,
        tuple(arms),
        tuple(seeds),
        tuple(done),
        sets.describe(),
        stand_in=isinstance(sets.test, DigitSet),
        own_test=sets.own_test,
        complete=complete,
    )
