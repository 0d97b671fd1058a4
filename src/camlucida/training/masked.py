"""Train the masked VGG on ImageNet as its authors did, on any number of GPUs and machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import digest, to_json
from camlucida.common.limits import Count, Limits, NotNegative, Positive
from camlucida.common.optional import require
from camlucida.common.progress import Say
from camlucida.common.store import write_torch
from camlucida.data.images import read_image
from camlucida.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from camlucida.data.train_val import Part, named, photos_of
from camlucida.models.masked_vgg import RECORD, SEEN_ROWS, Initialisation, MaskedVGG, remask
from camlucida.training.loop import FitOptions, Fitted, Precision, fit, make_fabric


class Photos(Dataset[tuple[Tensor, int]]):
    """Labelled photos; each crop depends on seed, epoch and photo alone."""

    def __init__(
        self,
        part: Part,
        index: dict[str, int],
        recipe: MaskedRecipe,
        *,
        crop: bool,
    ) -> None:
        self.paths = part.paths
        self.labels = [index[name] for name in part.names]
        self.recipe, self.epoch = recipe, 0
        self.whole = Preprocess(size=(recipe.size, recipe.size), resize=recipe.size)
        self.crop: Any = None
        if crop:
            transforms = require("torchvision", "models").transforms
            self.crop = transforms.Compose(
                [
                    transforms.RandomResizedCrop(
                        recipe.size, scale=recipe.area, ratio=recipe.aspect
                    ),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                ]
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        photo = read_image(self.paths[place])
        if self.crop is None:
            return self.whole(photo), self.labels[place]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the dropout of a GPU with every photo.
            torch.default_generator.manual_seed(
                hash((self.recipe.seed, self.epoch, place)) & 0x7FFFFFFF
            )
            return self.crop(photo), self.labels[place]


class Order(Sampler[int]):
    """This process's share of a permutation, or of all in order."""

    def __init__(
        self, length: int, rank: int, world: int, *, seed: int | None, count: int | None
    ) -> None:
        self.length, self.rank, self.world, self.seed, self.count = length, rank, world, seed, count

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self.length)
        if self.seed is not None:
            order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.seed))
        return iter(order[self.rank :: self.world][: self.count].tolist())

    def __len__(self) -> int:
        own = len(range(self.rank, self.length, self.world))
        return own if self.count is None else min(own, self.count)


@dataclass(frozen=True)
class MaskedRecipe(FitOptions):
    """The authors' training.

    SGD, learning rate times 0.1 every 30 epochs, cross-entropy, random crops of a tenth to all of the area and
    a little out of square, flips; photos are validated at 224 pixels of the shorter side, cut about the centre.

    Attributes:
        batch_size: images per step, over all devices together.
        area: share of the photo that a crop takes.
        aspect: width over height of a crop.
        size: height and width of the images.
        workers: how many processes read photos for each device.
        steps: steps per epoch at most, for a trial; ``None`` for all.
        initialisation: of the weights, see :class:`camlucida.models.masked_vgg.MaskedVGG`.
        keep: whose weights are written: of the ``"best"`` epoch on the validation photos, or of the ``"last"``
            one, as the authors do.
    """

    epochs: Count = 90
    learning_rate: Positive = 0.03
    weight_decay: NotNegative = 1e-4
    precision: Precision = "auto"
    seed: int = 3
    ties: Literal["first", "later"] = "later"
    batch_size: Count = 256
    area: tuple[float, float] = (0.1, 1.0)
    aspect: tuple[float, float] = (0.8, 1.25)
    size: int = 224
    workers: Annotated[int, Limits(0)] = 8
    steps: Count | None = None
    initialisation: Initialisation = "torchvision"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        for name in ("area", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "area" and high > 1):
                raise CamlucidaError(
                    f"{name} must be an ascending pair of positive numbers (the area's up to 1), "
                    f"got {low}, {high}"
                )


CHECKPOINT, WEIGHTS = "last.ckpt", {"best": "best.pt", "last": "last.pt"}
"""Files of a training, beside the record of curves and options: where it goes on, the weights that are kept."""

PUBLISHED = {"masked": {"top1": 0.665, "top5": 0.870}, "unmasked": {"top1": 0.715, "top5": 0.904}}
"""Accuracies on ImageNet."""


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
    recipe: MaskedRecipe | None = None,
    width: float = 1.0,
    seen_rows: int | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    nodes: int = 1,
    strategy: str = "auto",
    say: Say | None = None,
    note: Callable[[str], object] = lambda _: None,
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
        seen_rows: rows of the last map that the head sees; 5 by default.
        accelerator: such as ``"gpu"`` or ``"cpu"``.
        devices: of each machine.
        nodes: machines.
        strategy: of Fabric, such as ``"ddp"``; those that split weights (FSDP, DeepSpeed) are refused, since
            the mask needs the layer in one piece.
        say: told about the progress, on the first process.
        note: told where only cells of the map are masked, and no pixel.

    Returns:
        The record: curves with top-1 and top-5 accuracy of every epoch, options, number of steps.

    Raises:
        CamlucidaError: the folders do not fit, the loss is not finite, or the checkpoint is of another training.
        ModelError: a package is missing.

    Example:
        >>> record = camlucida.training.train_masked_vgg("ILSVRC2012", "run")  # doctest: +SKIP
        >>> camlucida.training.train_masked_vgg("no-such-folder", "run")
        Traceback (most recent call last):
        camlucida.common.errors.ImageError: ...
    """
    recipe = recipe or MaskedRecipe()
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
    fabric = make_fabric(
        accelerator, recipe.precision, devices=devices, num_nodes=nodes, strategy=strategy
    )
    cells = recipe.size // 16
    rows = seen_rows or (SEEN_ROWS if masked else min(SEEN_ROWS, cells))
    if masked and rows >= cells:
        raise CamlucidaError(
            f"a head that sees {rows} of the {cells} rows of the last map of {recipe.size} pixels is not masked; give "
            "a smaller --seen-rows or a larger --size, or --unmasked for the twin"
        )
    # Row r of the map sees the image's rows up to 16 r + 105.
    if masked and recipe.size % 16 == 0 and recipe.size <= 16 * (rows - 1) + 106:
        note(
            f"of images of {recipe.size} pixels the first {rows} rows of the map see everything; only cells of the "
            "map will be dead"
        )
    fabric.launch()
    plan = {
        **asdict(replace(recipe, workers=0)),
        "masked": masked,
        "width": width,
        "seen_rows": rows,
        "classes": len(classes),
        "photos": len(photos["train"].paths),
        "photo_list": digest(named(part) for part in photos.values()),
    }
    folder = Path(out)
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        model = MaskedVGG(
            len(classes), masked=masked, seen_rows=rows, size=recipe.size, width=width,
            initialisation=recipe.initialisation,
        )  # fmt: skip
    loaders = _Loaders(fabric, recipe, photos, {name: i for i, name in enumerate(classes)})

    def record(fitted: Fitted) -> dict[str, Any]:
        return {
            "plan": plan,
            "class_names": classes,
            "devices": fabric.world_size,
            "curve": fitted.curves,
            "kept": fitted.curves[fitted.best_epoch if recipe.keep == "best" else -1],
            "steps": fitted.steps,
            "resumed_from": fitted.resumed_from,
            "published": PUBLISHED,
        }

    def keep(fitted: Fitted) -> None:
        if recipe.keep == "last" or fitted.best_epoch == len(fitted.curves) - 1:
            write_torch(folder / WEIGHTS[recipe.keep], model.state_dict())
        write_bytes(folder / RECORD, to_json(record(fitted)).encode())

    def told(done: int, _: int, numbers: Mapping[str, float]) -> None:
        epoch = int(numbers["epoch"])
        if say is not None:
            say(
                f"epoch {epoch + 1} of {recipe.epochs}", done - epoch * loaders.steps, loaders.steps
            )

    fitted = fit(
        model,
        loaders.training,
        lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
        validate=loaders.accuracies,
        options=recipe,
        steps_per_epoch=loaders.steps,
        checkpoint=folder / CHECKPOINT,
        plan=plan,
        fabric=fabric,
        after_step=lambda _: remask(model),
        after_epoch=keep,
        progress=told,
    )
    return record(fitted)


class _Loaders:
    """This process's share of the photos."""

    def __init__(
        self, fabric: Any, recipe: MaskedRecipe, photos: dict[str, Part], index: dict[str, int]
    ) -> None:
        self.fabric, self.recipe = fabric, recipe
        self.train = Photos(photos["train"], index, recipe, crop=True)
        self.val = Photos(photos["val"], index, recipe, crop=False)
        self.batch = max(1, recipe.batch_size // fabric.world_size)
        steps = len(self.train) // (self.batch * fabric.world_size)
        if steps == 0:
            raise CamlucidaError(
                f"{len(self.train)} training images are less than one batch of {recipe.batch_size}; set a smaller "
                "batch_size"
            )
        self.steps = min(steps, recipe.steps or steps)

    def training(self, epoch: int) -> Any:
        """The batches of an epoch."""
        self.train.epoch = epoch
        seed = (self.recipe.seed * 1000 + epoch) % 2**63
        return self._loader(self.train, seed, self.steps * self.batch)

    @torch.no_grad()
    def accuracies(self, model: nn.Module) -> dict[str, float]:
        """Top-1 and top-5 accuracy on the validation photos of all processes."""
        right = torch.zeros(3, dtype=torch.float64)
        for images, labels in self._loader(self.val, None, None):
            logits = model(images)
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            right += torch.tensor(
                [float(best[:, 0].sum()), float(best.any(1).sum()), float(len(labels))],
                dtype=torch.float64,
            )
        total = self.fabric.all_reduce(right.to(self.fabric.device, torch.float32), reduce_op="sum")
        return {"top1": float(total[0] / total[2]), "top5": float(total[1] / total[2])}

    def _loader(self, photos: Photos, seed: int | None, count: int | None) -> Any:
        order = Order(
            len(photos), self.fabric.global_rank, self.fabric.world_size, seed=seed, count=count
        )
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            photos, batch_size=self.batch, sampler=order, num_workers=self.recipe.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )  # fmt: skip
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
