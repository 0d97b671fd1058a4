"""One plain training loop: SGD or Adam, a falling learning rate, mixed precision, resume, the best epoch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import plain
from camlucida.common.limits import Count, NotNegative, Positive, check_fields
from camlucida.common.optional import first_line, require
from camlucida.common.store import check_plan, write_torch

Precision: TypeAlias = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
Loss: TypeAlias = Callable[[nn.Module, Any], Tensor | tuple[Tensor, Mapping[str, float | Tensor]]]
"""``loss(model, batch)``: the scalar to go down, or it and numbers to log, such as the accuracy."""
Score: TypeAlias = Callable[[nn.Module], float | Mapping[str, float]]
"""``score(model)``: how good it is, higher is better; or several numbers to log, of which the first is the score."""
Told: TypeAlias = Callable[[int, int, Mapping[str, float]], object]


@dataclass(frozen=True)
class FitOptions:
    """How to train.

    Attributes:
        epochs: how often to go through the batches.
        optimizer: ``"sgd"`` or ``"adam"`` (with decoupled weight decay).
        learning_rate: at the start; with a cosine the highest.
        momentum: of SGD.
        weight_decay: of all parameters.
        schedule: ``"step"``: times ``gamma`` after every ``step_size`` epochs; ``"cosine"``: falls to zero
            along a cosine, step by step; ``"constant"``.
        step_size: epochs.
        gamma: factor.
        warmup: steps in which a cosine first rises from zero.
        clip: the largest norm of the gradient; ``None`` for no limit.
        precision: of the forward pass; ``"auto"`` is mixed half precision on a GPU and single on a CPU.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        seed: of everything random inside the network, such as dropout: each epoch starts from it anew, so that
            a resumed training is the same as an uninterrupted one.
        ties: which of two epochs with the same score is kept, the ``"first"`` or the ``"later"``.
        enough: a score with which the training ends early; ``None`` for all epochs.
        score_every: epochs from one validation to the next.

    Example:
        >>> options = camlucida.training.FitOptions(epochs=3, schedule="cosine")
        >>> options.optimizer, options.learning_rate
        ('sgd', 0.01)
    """

    epochs: Count = 10
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 0.01
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Literal["step", "cosine", "constant"] = "step"
    step_size: Count = 30
    gamma: NotNegative = 0.1
    warmup: int = 0
    clip: Positive | None = None
    precision: Precision = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    seed: int = 0
    ties: Literal["first", "later"] = "first"
    enough: float | None = None
    score_every: Count = 1

    def __post_init__(self) -> None:
        """Check the words and numbers."""
        check_fields(self)


@dataclass
class Fitted:
    """What a training gave; the model holds the best epoch's weights.

    Attributes:
        curves: one row per epoch: ``epoch, learning_rate, loss, seconds``, what the loss logged, and ``score``
            where there is a validation.
        best_epoch: the epoch (from 0) with the highest score, of equals as ``ties`` says; the last without
            validation.
        best_score: its score; NaN without validation.
        steps: batches that were learned from.
        resumed_from: how many epochs were done when this run started; 0 for a fresh one.
        options: how it was trained.
    """

    curves: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = math.nan
    steps: int = 0
    resumed_from: int = 0
    options: FitOptions = field(default_factory=FitOptions)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]] | Iterable[Any],
    loss: Loss,
    *,
    validate: Score | None = None,
    options: FitOptions | None = None,
    steps_per_epoch: int | None = None,
    checkpoint: Path | None = None,
    plan: Mapping[str, Any] | None = None,
    fabric: Any = None,
    after_step: Callable[[nn.Module], object] | None = None,
    after_epoch: Callable[[Fitted], object] | None = None,
    progress: Told | None = None,
) -> Fitted:
    """Train a model in place.

    Args:
        model: left on the device it was trained on, in eval mode, with the weights of the best epoch. Torch's
            global random state is left as it was.
        batches: the batches of every epoch, a list or a ``DataLoader``; or a function from an epoch's number to its
            batches, the same ones whenever it is asked for the same epoch. Tensors in tuples, lists and dictionaries
            are moved to the device.
        loss: called with the model and a batch; returns the loss, a scalar tensor, alone or with numbers to log by
            name.
        validate: called with the model in eval mode, without gradients; returns the score, or numbers by name, the
            first of which is the score. The highest is the best; NaN never is.
        options: learning rate, epochs and all else that decides how it is trained.
        steps_per_epoch: needed by a cosine; else only tells the progress what is to come in the first epoch.
        checkpoint: written after every epoch, atomically; a run that finds it goes on there. Its options must
            be the same, up to the number of epochs where the learning rate does not depend on it.
        plan: what else must be the same for a run to go on, ready for JSON; it overrules the options.
        fabric: a launched ``lightning_fabric.Fabric``, for several devices or machines; its batches are those of one
            process. By default one on one device is made from the options.
        after_step: called with the model after each step.
        after_epoch: called on the first process after each epoch, before the checkpoint is written.
        progress: called on the first process after each batch with done steps, all steps (0 while not known) and the
            latest numbers.

    Returns:
        Curves, and which epoch was the best.

    Raises:
        CamlucidaError: the loss is not finite, the checkpoint belongs to another plan or is damaged, there is no
            such device, or this is one of several processes (``torchrun``) without a Fabric of theirs, which would
            all train the same.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> options = camlucida.training.FitOptions(epochs=1, accelerator="cpu")
        >>> batches = lambda epoch: [(images, torch.tensor([0, 1]))]
        >>> found = camlucida.training.fit(model, batches, lambda m, b: cross_entropy(m(b[0]), b[1]), options=options)
        >>> found.steps
        1
    """
    if isinstance(batches, Iterator):
        raise CamlucidaError(
            "batches can be gone through once only; give a list, a DataLoader or a function of the epoch's number"
        )
    asked = batches if callable(batches) else lambda _: batches
    options = options or FitOptions()
    if options.schedule == "cosine" and not steps_per_epoch:
        raise CamlucidaError("a cosine schedule needs steps_per_epoch")
    if fabric is None:
        check_alone()
        fabric = make_fabric(options.accelerator, options.precision, devices=1)
    drawn = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=drawn):
        run = _Run(model, fabric, options, plan or {}, steps_per_epoch or 0)
        run.after_step = after_step
        run.progress = progress if fabric.is_global_zero else None
        if checkpoint is not None:
            run.resume(checkpoint)
        while not run.done:
            epoch = len(run.fitted.curves)
            run.epoch(epoch, asked(epoch), loss, validate)
            if fabric.is_global_zero:
                if after_epoch is not None:
                    after_epoch(run.fitted)
                if checkpoint is not None:
                    run.save(checkpoint)
            fabric.barrier()
    model.load_state_dict(run.best)
    model.eval()
    return run.fitted


def check_alone() -> None:
    """Refuse to be one of several processes, which would all train the same and write the same files.

    Raises:
        CamlucidaError: this process was started with others, such as by ``torchrun``.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise CamlucidaError(
            f"this training runs in one process on one device, but {os.environ['WORLD_SIZE']} were started, which "
            "would all do the same; start it once, without torchrun. Several devices can train several seeds"
        )


def make_fabric(accelerator: str, precision: str, **options: Any) -> Any:
    """Lightning Fabric.

    Precisions are named as Fabric does, or ``"auto"``; the options are its devices, num_nodes and strategy.

    Raises:
        CamlucidaError: there is no such device, or it knows no such precision.
        ModelError: Fabric is not installed.
    """
    package = require("lightning_fabric", "train")
    if precision == "auto":
        gpu = accelerator != "cpu" and torch.cuda.is_available()
        precision = "16-mixed" if gpu else "32-true"
    try:
        return package.Fabric(accelerator=accelerator, precision=precision, **options)
    except Exception as error:  # Fabric raises many kinds
        given = {"accelerator": accelerator, "precision": precision, **options}
        raise CamlucidaError(
            f"cannot train on {', '.join(f'{k}={v!r}' for k, v in given.items())}: {first_line(error)}"
        ) from error


class _Run:
    """The state of a training that a checkpoint holds."""

    after_step: Callable[[nn.Module], object] | None = None
    progress: Told | None = None

    def __init__(
        self,
        model: nn.Module,
        fabric: Any,
        options: FitOptions,
        plan: Mapping[str, Any],
        steps: int,
    ) -> None:
        self.wrapped, self.optimizer = fabric.setup(model, _optimizer(model, options))
        self.model, self.fabric, self.options, self.steps = model, fabric, options, steps
        self.fitted = Fitted(options=options)
        self.best = _copied(model)
        # What must be the same when a run is resumed; where it runs may change.
        own = {f.name: getattr(options, f.name) for f in fields(FitOptions)}
        self.plan = plain({**own, "accelerator": None, **plan})

    @property
    def done(self) -> bool:
        """Whether there is nothing more to train."""
        enough = self.options.enough is not None and self.fitted.best_score >= self.options.enough
        return enough or len(self.fitted.curves) >= self.options.epochs

    def epoch(self, epoch: int, batches: Iterable[Any], loss: Loss, validate: Score | None) -> None:
        # Dropout has its own draws in each process, and the same after a resume.
        seed = self.options.seed * 1_000_003 + epoch + 1009 * self.fabric.global_rank
        torch.manual_seed(seed % 2**63)
        self.wrapped.train()
        start, step, rate = time.perf_counter(), 0, 0.0
        sums: dict[str, float] = {}
        for step, batch in enumerate(batches, 1):
            rate = self._set_rate(epoch, step - 1)
            logged = self._learn(batch, loss, epoch)
            for name, value in logged.items():
                sums[name] = sums.get(name, 0.0) + value
            if self.progress is not None:
                done = self.fitted.steps + step
                self.progress(done, self.steps * self.options.epochs, {"epoch": epoch, **logged})
        if step == 0:
            raise CamlucidaError(f"epoch {epoch} has no batches to learn from")
        self.steps = self.steps or step
        self.fitted.steps += step
        row = {"epoch": float(epoch), "learning_rate": rate}
        row |= {name: self._mean(value, step) for name, value in sums.items()}
        self._judge(epoch, row, validate)
        row["seconds"] = time.perf_counter() - start
        self.fitted.curves.append(row)

    def _learn(self, batch: Any, loss: Loss, epoch: int) -> dict[str, float]:
        self.optimizer.zero_grad()
        found = loss(self.wrapped, self.fabric.to_device(batch))
        value, logged = found if isinstance(found, tuple) else (found, {})
        number = float(value.detach())
        if not math.isfinite(number):
            raise CamlucidaError(
                f"the loss became {number} in epoch {epoch}; try a smaller learning rate, or precision='32-true'"
            )
        self.fabric.backward(value)
        if self.options.clip is not None:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=self.options.clip)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        return {"loss": number, **{name: float(v) for name, v in logged.items()}}

    def _mean(self, total: float, count: float) -> float:
        """The mean over all processes."""
        if self.fabric.world_size == 1:
            return total / count
        both = torch.tensor([total, count], device=self.fabric.device)
        both = self.fabric.all_reduce(both, reduce_op="sum")
        return float(both[0] / both[1])

    def _judge(self, epoch: int, row: dict[str, float], validate: Score | None) -> None:
        """Keep the weights if they are the best so far."""
        if validate is not None and (epoch + 1) % self.options.score_every == 0:
            self.model.eval()
            # Not the wrapped model, whose processes wait for each other: one may have nothing to validate.
            with torch.no_grad(), self.fabric.autocast():
                found = validate(self.model)
            numbers = dict(found) if isinstance(found, Mapping) else {"score": found}
            row |= {"score": float(next(iter(numbers.values()))), **numbers}
        score = row.get("score", math.nan)
        best = self.fitted.best_score
        tied = score == best and self.options.ties == "later"
        if (
            tied or score > best or math.isnan(best)
        ):  # also the first one, and any without validation
            self.fitted.best_epoch, self.fitted.best_score = epoch, score
            self.best = _copied(self.model)

    def _set_rate(self, epoch: int, step: int) -> float:
        options = self.options
        rate = options.learning_rate
        if options.schedule == "step":
            rate *= options.gamma ** (epoch // options.step_size)
        elif options.schedule == "cosine":
            total, done = self.steps * options.epochs, self.steps * epoch + step
            rising = min(1.0, (done + 1) / (options.warmup + 1))
            rate *= rising * (1 + math.cos(math.pi * min(1.0, done / total))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    # ---- checkpoints ----------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        fitted = self.fitted
        content = {
            "plan": self.plan,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "curves": fitted.curves,
            "best_epoch": fitted.best_epoch,
            "best_score": fitted.best_score,
            "steps": fitted.steps,
            "steps_per_epoch": self.steps,
        }
        write_torch(path, content)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
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
            plan = dict(content["plan"])
        except Exception as error:
            raise CamlucidaError(
                f"the checkpoint {str(path)!r} is damaged ({first_line(error)}); {again}"
            ) from error
        if self.options.schedule != "cosine":  # a longer training goes on from a shorter one
            plan["epochs"] = self.plan["epochs"]
        check_plan(path, plan, self.plan)
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if scaling := content.get("precision"):  # of half-precision gradients
                self.fabric.strategy.precision.load_state_dict(scaling)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CamlucidaError(
                f"the checkpoint {str(path)!r} does not fit this model ({first_line(error)}); {again}"
            ) from error
        fitted = self.fitted
        self.best, self.steps = content["best"], content["steps_per_epoch"]
        fitted.curves, fitted.steps = content["curves"], content["steps"]
        fitted.best_epoch, fitted.best_score = content["best_epoch"], content["best_score"]
        fitted.resumed_from = len(fitted.curves)


def _optimizer(model: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if options.optimizer == "adam":
        return torch.optim.AdamW(trained, options.learning_rate, weight_decay=options.weight_decay)
    return torch.optim.SGD(
        trained,
        options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
