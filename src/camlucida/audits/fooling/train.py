"""SHAM fine-tuning as a training of its own: any number of photos, several devices, stopped and gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from camlucida.audits.fooling.tune import Attack, Begun
from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import plain, to_json
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.store import write_torch
from camlucida.data.draws import draw
from camlucida.data.open import open_data
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet
from camlucida.explanation.subject import ModelLike, Subject, prepare
from camlucida.training.classifier import Shuffled
from camlucida.training.loop import Fitted, fit, make_fabric

CHECKPOINT, WEIGHTS, RECORD = "last.ckpt", "fooled.pt", "sham.json"
"""Files of a training: where it goes on, the weights of the fooled model, and how they were made."""


class _Labelled(Dataset[tuple[Tensor, int]]):
    """Inputs and classes, read when they are asked for."""

    def __init__(self, data: DataSet, preprocess: Preprocess) -> None:
        self.data, self.preprocess = data, preprocess

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        sample = self.data[place]
        assert sample.label is not None  # noqa: S101 - others are refused before
        return self.preprocess(sample.picture()), sample.label


def train_sham(
    model: ModelLike,
    data: str | DataSet,
    out: str | Path,
    *,
    attack: Attack | None = None,
    layer: str | None = None,
    per_class: int | None = None,
    count: int | None = None,
    keep_every: int = 1000,
    accelerator: str = "auto",
    devices: int | str = 1,
    nodes: int = 1,
    strategy: str = "auto",
    workers: int = 0,
    say: Say | None = None,
    note: Callable[[str], object] = lambda _: None,
    **known: Any,
) -> dict[str, Any]:
    """Fine-tune a copy of a model so that its maps lie, and write its weights: the head stays as it is.

    As published one epoch of SGD with learning rate 0.002, 20 images per step, half of the loss for the distance of
    the class-weight map from the SHAM mask; photos are prepared as the model takes them. The same call goes on where a
    stopped one ended, at most ``keep_every`` steps back. On several devices it is started as Lightning Fabric is.

    Args:
        model: a classifier, or what :func:`camlucida.load_model` takes; left as it is.
        data: photos whose classes are the model's, as ``camlucida evaluate`` takes them.
        out: gets the weights ``fooled.pt``, the record ``sham.json`` and the checkpoint.
        attack: which map is attacked, and how; ``Attack(kind="none")`` is the same training without an attack.
        layer: whose map is attacked; by default the last feature map, of DenseNet before its last ReLU.
        per_class: so many photos of each class.
        count: so many photos at most, spread evenly.
        keep_every: steps from one checkpoint to the next.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        devices: of each machine.
        nodes: machines.
        strategy: of Fabric.
        workers: processes that read photos for each device.
        say: told about the progress, on the first process.
        note: told what was left out.
        **known: what else is known of the model, see :class:`camlucida.audits.Request`: preprocess, class_names,
            outputs, architecture.

    Returns:
        The record.

    Raises:
        CamlucidaError: the photos have no classes, or others than the model; the model does not allow the attack; the
            loss is not finite; or the checkpoint is of another training.

    Example:
        >>> record = camlucida.audits.train_sham("timm:densenet121", "ILSVRC2012/train", "run")  # doctest: +SKIP
        >>> camlucida.audits.train_sham("embedded", "no-such-folder", "run")
        Traceback (most recent call last):
        camlucida.common.errors.CamlucidaError: 'no-such-folder' is neither a path ...
    """
    attack = attack or Attack()
    subject = Subject.of(model, **known)
    photos = _photos(subject, data, note)
    photos = draw(photos, per_class=per_class, count=count, seed=attack.seed)
    if subject.preprocess is None:
        raise CamlucidaError(
            f"it is not known how photos become inputs of {subject.name}; say it with preprocess (--size, --mean, ...)"
        )
    labels = torch.tensor([sample.label for sample in photos])
    module, first, _, _ = prepare(subject.loaded, [photos[0].picture()])
    begun = Begun.of(module, first, labels, attack, layer)
    begun.model.to(memory_format=torch.channels_last)
    fabric = make_fabric(
        accelerator, attack.precision, devices=devices, num_nodes=nodes, strategy=strategy
    )
    fabric.launch()
    rank, world = fabric.global_rank, fabric.world_size
    if attack.batch % world:
        raise CamlucidaError(
            f"a batch of {attack.batch} photos cannot be shared by {world} devices"
        )
    places = Shuffled(len(photos), attack.batch, attack.seed, whole=world > 1)
    parts = -(-places.steps // keep_every)
    size = -(-places.steps // parts)
    read = _Labelled(photos, subject.preprocess)

    def batches(part: int) -> Any:
        chunks = places(part // parts)[part % parts * size :][:size]
        own = [chunk[rank::world].tolist() for chunk in chunks]
        loader: DataLoader[Any] = DataLoader(
            read, batch_sampler=own, num_workers=workers, pin_memory=fabric.device.type == "cuda"
        )
        loader = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        # The memory order in which convolutions are quick.
        return ((x.contiguous(memory_format=torch.channels_last), y) for x, y in loader)

    start, folder, total = time.perf_counter(), Path(out), places.steps * attack.epochs
    plan = {
        "attack": {**begun.attack.describe(), "epochs": None},
        "model": fingerprint(module),
        "photos": photos.describe(),
        "part": size,
    }

    fitted = fit(
        begun.model,
        batches,
        begun.loss,
        # A part of an epoch is one of the loop's, after which it can be stopped.
        options=replace(
            begun.attack, epochs=parts * attack.epochs, step_size=parts * attack.step_size
        ),
        steps_per_epoch=size,
        checkpoint=folder / CHECKPOINT,
        plan=plain(plan),
        fabric=fabric,
        progress=None if say is None else lambda done, *_: say("fine-tuning", done, total),
    )
    begun.done(module)
    record = _record(subject, begun, fitted, photos, epochs=attack.epochs)
    record["seconds"], record["devices"] = time.perf_counter() - start, world
    if fabric.is_global_zero:
        write_torch(folder / WEIGHTS, {k: v.cpu() for k, v in begun.model.state_dict().items()})
        write_bytes(folder / RECORD, to_json(record).encode())
    return record


def _record(
    subject: Subject, begun: Begun, fitted: Fitted, photos: DataSet, *, epochs: int
) -> dict[str, Any]:
    return dict(
        plain(
            {
                "model": subject.name,
                "layer": begun.layer,
                "attack": begun.attack.describe(),
                "mask": begun.mask.tolist(),
                "data": photos.describe(),
                "epochs": epochs,
                "steps": fitted.steps,
                "curves": fitted.curves,
                "resumed_from": fitted.resumed_from,
            }
        )
    )


def _photos(subject: Subject, data: str | DataSet, note: Callable[[str], object]) -> DataSet:
    """Photos with the model's own classes."""
    opened = data if isinstance(data, DataSet) else open_data(data, class_names=subject.class_names)
    for path, reason in opened.skipped[:1]:
        note(f"{len(opened.skipped)} left out, such as {str(path)!r}: {reason}")
    without = next((sample.key for sample in opened if sample.label is None), None)
    if without is not None:
        raise CamlucidaError(
            f"{without!r} has no class of {subject.name}; the fine-tuning keeps the model's head, so that all photos "
            "need its classes. A network gets a new head for other classes with camlucida train salience DATA --sham"
        )
    return opened
