"""Train the masked VGG on ImageNet as its authors did, on any number of GPUs and machines."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import digest, to_json
from camlucida.common.optional import first_line, require
from camlucida.common.progress import Say
from camlucida.common.store import check_plan, write_torch
from camlucida.data.train_val import Part, named, photos_of
from camlucida.models.masked_vgg import RECORD, MaskedVGG, remask
from camlucida.training.masked_photos import Order, Photos, Recipe

CHECKPOINT, WEIGHTS = "last.ckpt", "best.pt"
"""Files of a training, beside the record of curves and options: where it goes on, the best epoch's weights."""


def is_first_process() -> bool:
    """Whether this is the process that talks and writes, of those that train together."""
    return (
        not (distributed.is_available() and distributed.is_initialized())
        or not distributed.get_rank()
    )


def train_masked_vgg(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    masked: bool = True,
    recipe: Recipe | None = None,
    width: float = 1.0,
    seen_rows: int = 5,
    accelerator: str = "auto",
    devices: int | str = "auto",
    nodes: int = 1,
    strategy: str = "auto",
    say: Say | None = None,
) -> dict[str, Any]:
    """Train the paper's [VGG], or its unmasked twin.

    On several devices it is started as Lightning Fabric is: once on each machine, which starts a process for
    each device. After every step the mask is applied again. A run that finds its checkpoint in ``out`` goes on
    after the last finished epoch, with the same images in the same order as if it had never stopped.

    Args:
        data: a folder as :func:`camlucida.data.train_val.photos_of` reads it; classes are numbered in the order of
            their names.
        out: where checkpoint, weights and record go.
        masked: ``False`` trains the twin that sees everything.
        recipe: how.
        width: of the network; see :class:`MaskedVGG`.
        seen_rows: rows of the last map that the head sees.
        accelerator: such as ``"gpu"`` or ``"cpu"``.
        devices: of each machine.
        nodes: machines.
        strategy: of Fabric, ``"ddp"`` and its kin; those that split weights (FSDP, DeepSpeed) are refused, since
            the mask needs the layer in one piece.
        say: told about the progress, on the first process.

    Returns:
        The record: curves with top-1 and top-5 accuracy of every epoch, options, number of steps.

    Raises:
        CamlucidaError: the folders do not fit, the loss is not finite, or the checkpoint is of another training.
        ModelError: a package is missing.
    """
    recipe = recipe or Recipe()
    photos = photos_of(data)
    classes = sorted(set(photos["train"].names))
    if unknown := sorted(set(photos["val"].names) - set(classes)):
        raise CamlucidaError(
            f"{str(photos['val'].root)!r} has classes that train has not: {', '.join(unknown[:3])}"
        )
    if strategy.startswith(("fsdp", "deepspeed")):
        raise CamlucidaError(
            f"strategy={strategy!r} splits the weights, but the mask needs the first dense layer in one piece; use "
            "'ddp'"
        )
    package = require("lightning_fabric", "train")
    options: dict[str, Any] = {"devices": devices, "num_nodes": nodes, "strategy": strategy}
    try:
        fabric = package.Fabric(
            accelerator=accelerator, precision=_precision(recipe, accelerator), **options
        )
    except Exception as error:  # Fabric raises many kinds
        raise CamlucidaError(
            f"cannot train on accelerator={accelerator!r}, devices={devices!r}, strategy={strategy!r}: "
            f"{first_line(error)}"
        ) from error
    fabric.launch()
    run = _Run(fabric, recipe, classes, Path(out), say or (lambda *_: None))
    plan = {
        **asdict(replace(recipe, workers=0)),
        "masked": masked,
        "width": width,
        "seen_rows": seen_rows,
        "classes": len(classes),
        "photos": len(photos["train"].paths),
        "photo_list": digest(named(part) for part in photos.values()),
    }
    drawn = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=drawn):
        torch.manual_seed(recipe.seed)
        model = MaskedVGG(
            len(classes), masked=masked, seen_rows=seen_rows, size=recipe.size, width=width
        )
        return run.train(model, photos, plan)


class _Run:
    def __init__(
        self, fabric: Any, recipe: Recipe, classes: list[str], out: Path, say: Say
    ) -> None:
        self.fabric, self.recipe, self.out, self.say = fabric, recipe, out, say
        self.classes = classes
        self.index = {name: i for i, name in enumerate(classes)}
        self.curve: list[dict[str, float]] = []
        self.steps = 0

    def train(
        self,
        model: MaskedVGG,
        photos: dict[str, Part],
        plan: dict[str, Any],
    ) -> dict[str, Any]:
        recipe, fabric = self.recipe, self.fabric
        optimizer = torch.optim.SGD(
            model.parameters(),
            recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        wrapped, fitted = fabric.setup(model, optimizer)
        self._resume(model, optimizer, plan)
        resumed = len(self.curve)
        training = Photos(photos["train"], self.index, recipe, crop=True)
        validation = Photos(photos["val"], self.index, recipe, crop=False)
        for epoch in range(resumed, recipe.epochs):
            start = time.perf_counter()
            rate = recipe.learning_rate * recipe.gamma ** (epoch // recipe.step_size)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = self._epoch(wrapped, model, fitted, self._loader(training, epoch), epoch)
            top1, top5 = self._validate(model, self._loader(validation, None))
            self.curve.append(
                {
                    "epoch": float(epoch),
                    "learning_rate": rate,
                    "loss": loss,
                    "top1": top1,
                    "top5": top5,
                    "seconds": time.perf_counter() - start,
                }
            )
            self._save(model, optimizer, plan, resumed)
        return self._record(plan, resumed)

    def _epoch(
        self, wrapped: nn.Module, model: MaskedVGG, optimizer: Any, loader: Any, epoch: int
    ) -> float:
        wrapped.train()
        # Dropout: its own draws in each process, the same after a resume.
        own = (self.recipe.seed * 1000 + epoch) * 1000 + self.fabric.global_rank
        torch.manual_seed(own % 2**63)
        total, count = 0.0, 0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(wrapped(images), labels)
            self.fabric.backward(loss)
            optimizer.step()
            remask(model)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise CamlucidaError(
                    f"the loss became {value} in epoch {epoch}; try a smaller learning rate, or "
                    "precision='32-true'"
                )
            total, count = total + value, count + 1
            self.steps += 1
            if self.fabric.is_global_zero:
                self.say(f"epoch {epoch + 1} of {self.recipe.epochs}", count, len(loader))
        return self._mean(total, count)

    @torch.no_grad()
    def _validate(self, model: nn.Module, loader: Any) -> tuple[float, float]:
        # Not the wrapped model, whose processes wait for each other: one may have nothing to validate.
        model.eval()
        right = torch.zeros(3, dtype=torch.float64)
        for images, labels in loader:
            with self.fabric.autocast():
                logits = model(images)
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            right += torch.tensor(
                [float(best[:, 0].sum()), float(best.any(1).sum()), float(len(labels))],
                dtype=torch.float64,
            )
        total = self.fabric.all_reduce(right.to(self.fabric.device, torch.float32), reduce_op="sum")
        return float(total[0] / total[2]), float(total[1] / total[2])

    def _mean(self, total: float, count: int) -> float:
        both = torch.tensor([total, float(count)], device=self.fabric.device)
        both = self.fabric.all_reduce(both, reduce_op="sum")
        return float(both[0] / both[1])

    def _loader(self, photos: Photos, epoch: int | None) -> Any:
        photos.epoch = epoch or 0
        recipe, world = self.recipe, self.fabric.world_size
        batch = max(1, recipe.batch_size // world)
        steps = None
        if epoch is not None:
            steps = len(photos) // (batch * world)
            if steps == 0:
                raise CamlucidaError(
                    f"{len(photos)} training images are less than one batch of {recipe.batch_size}; set a smaller "
                    "batch_size"
                )
            steps = min(steps, recipe.steps or steps)
        order = Order(
            len(photos), self.fabric.global_rank, world,
            seed=None if epoch is None else (recipe.seed * 1000 + epoch) % 2**63,
            count=None if steps is None else steps * batch,
        )  # fmt: skip
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            photos, batch_size=batch, sampler=order, num_workers=recipe.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )  # fmt: skip
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    # ---- files ----------------------------------------------------------------------------------

    def _save(
        self, model: MaskedVGG, optimizer: torch.optim.Optimizer, plan: dict[str, Any], resumed: int
    ) -> None:
        if self.fabric.is_global_zero:
            state = model.state_dict()
            if self.curve[-1]["top1"] >= max(row["top1"] for row in self.curve):
                write_torch(self.out / WEIGHTS, state)
            content = {
                "plan": to_json(plan),
                "model": state,
                "optimizer": optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "curve": self.curve,
                "steps": self.steps,
            }
            write_torch(self.out / CHECKPOINT, content)
            write_bytes(self.out / RECORD, to_json(self._record(plan, resumed)).encode())
        self.fabric.barrier()

    def _resume(
        self, model: MaskedVGG, optimizer: torch.optim.Optimizer, plan: dict[str, Any]
    ) -> None:
        path = self.out / CHECKPOINT
        # The mean over the processes: 1 where each one finds it, 0 where none does.
        found = self._mean(float(path.is_file()), 1)
        if 0 < found < 1:
            raise CamlucidaError(
                f"only some processes find the checkpoint {str(path)!r}; put it on a disk that all machines share"
            )
        if not found:
            return
        again = "delete it to start anew"
        try:
            content = torch.load(path, map_location=self.fabric.device, weights_only=True)
            kept = json.loads(content["plan"])
        except Exception as error:
            raise CamlucidaError(
                f"the checkpoint {str(path)!r} is damaged ({first_line(error)}); {again}"
            ) from error
        # A longer training goes on from a shorter one; the rest must be the same.
        check_plan(path, kept, {**json.loads(to_json(plan)), "epochs": kept.get("epochs")})
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        if scaling := content["precision"]:  # of half-precision gradients
            self.fabric.strategy.precision.load_state_dict(scaling)
        self.curve, self.steps = content["curve"], content["steps"]

    def _record(self, plan: dict[str, Any], resumed: int) -> dict[str, Any]:
        best = max(self.curve, key=lambda row: row["top1"], default=None)
        return {
            "plan": plan,
            "class_names": self.classes,
            "devices": self.fabric.world_size,
            "curve": self.curve,
            "best": best,
            "steps": self.steps,
            "resumed_from": resumed,
            "published": {
                "masked": {"top1": 0.665, "top5": 0.870},
                "unmasked": {"top1": 0.715, "top5": 0.904},
            },
        }


def _precision(recipe: Recipe, accelerator: str) -> str:
    if recipe.precision != "auto":
        return recipe.precision
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    return "16-mixed" if gpu else "32-true"
