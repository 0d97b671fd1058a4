"""A small network for small images: it is trained in a minute and can be given a wall."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.common.limits import Limits, check_fields
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import CLASSES
from camlucida.models.cache import cache_folder
from camlucida.models.checkpoint import read_state_dict
from camlucida.models.loaded import LoadedModel

Stage: TypeAlias = int | Literal["pool"]

RECORD = "digits.json"
"""The record of the trained digits model in the cache; it names the file with the weights."""

_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class SmallConfig:
    """What a :class:`SmallCNN` is made of.

    Attributes:
        stages: a number is a 3 x 3 convolution with that many channels, batch norm and ReLU; ``"pool"`` is max
            pooling by 2.
        classes: outputs.
        size: height and width of the input; must be divisible by two for every pooling.
        head: ``"gap"``: mean over the map and one linear layer; ``"flatten"``: all cells go into fully
            connected layers.
        hidden: widths of the fully connected layers before the last one.
        seen_rows: how many rows of the map, from the top, the head sees; the rest are behind a wall. All of
            them unless told.
        residual: each convolution and its norm have a 1 x 1 convolution beside them, so that cells see as far.
    """

    stages: tuple[Stage, ...] = (16, "pool", 32, "pool", 64, 64, "pool", 80)
    classes: Annotated[int, Limits(2)] = 10
    size: int = 64
    head: Literal["gap", "flatten"] = "gap"
    hidden: tuple[int, ...] = ()
    seen_rows: int | None = None
    residual: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__  # lists from JSON become tuples
        put(self, "stages", tuple(self.stages))
        put(self, "hidden", tuple(self.hidden))
        pools = self.stages.count("pool")
        widths = [stage for stage in self.stages if stage != "pool"]
        if not widths or any(not isinstance(w, int) or w < 1 for w in (*widths, *self.hidden)):
            raise ModelError(
                f"stages {self.stages} and hidden {self.hidden} must be widths of at least 1 "
                "(stages also 'pool'), and hold one convolution or more"
            )
        if self.size < 2**pools or self.size % 2**pools:
            raise ModelError(
                f"size {self.size} must be divisible by {2**pools}: stages has {pools} poolings"
            )
        check_fields(self, ModelError)
        if self.seen_rows is not None and not 1 <= self.seen_rows <= self.map_size:
            raise ModelError(f"seen_rows must be 1 to {self.map_size}, got {self.seen_rows}")

    @property
    def map_size(self) -> int:
        """Height and width of the last feature map."""
        return self.size >> self.stages.count("pool")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SmallConfig:
        """From a JSON record.

        Raises:
            ModelError: it is none of this class.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"this is no configuration of a small network: {error}") from error


class SmallCNN(nn.Module):
    """Convolutions and a head; the map to explain is the output of ``features``."""

    def __init__(self, config: SmallConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SmallConfig()
        self.num_classes = config.classes
        layers: list[nn.Module] = []
        width = 3
        for stage in config.stages:
            if stage == "pool":
                layers.append(nn.MaxPool2d(2))
                continue
            if config.residual:
                layers.append(_Residual(width, stage))
            else:
                layers += [
                    nn.Conv2d(width, stage, 3, padding=1, bias=False),
                    nn.BatchNorm2d(stage),
                    nn.ReLU(),
                ]
            width = stage
        self.features = nn.Sequential(*layers)
        rows = config.seen_rows or config.map_size
        if config.head == "gap":
            self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        else:
            self.pool = nn.Identity()
            width *= rows * config.map_size
        head: list[nn.Module] = []
        for hidden in config.hidden:
            head += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.classifier = nn.Sequential(*head, nn.Linear(width, config.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, 3, size, size)``."""
        maps = self.features(images)
        if self.config.seen_rows is not None:
            maps = maps[:, :, : self.config.seen_rows]
        logits: Tensor = self.classifier(self.pool(maps).flatten(1))
        return logits


class _Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.skip = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rectified: Tensor = (self.norm(self.conv(x)) + self.skip(x)).relu()
        return rectified


def small_preprocess(size: int) -> Preprocess:
    """How digits on photos become the input of a small network: pixels in [-2, 2]."""
    return Preprocess(size=(size, size), resize=(size, size), mean=(0.5,) * 3, std=(0.25,) * 3)


def load_digits(*, pretrained: bool = True, folder: Path | None = None) -> LoadedModel:
    """The network that ``camlucida train digits`` trained.

    Args:
        pretrained: False gives random weights.
        folder: where its record lies; the cache unless told.

    Raises:
        ModelError: there is none, or its files are damaged or belong to another version.
    """
    if not pretrained:
        return _loaded(SmallCNN())
    place = folder or cache_folder()
    record = read_record(place)
    if record is None:
        raise ModelError(
            "the model 'digits' has not been trained on this machine; run: camlucida train digits "
            "(a minute or two)"
        )
    again = "run again: camlucida train digits"
    weights = place / Path(str(record.get("weights"))).name
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the weights {str(weights)!r} cannot be read ({error.strerror or error}); {again}"
        ) from error
    if hashlib.sha256(content).hexdigest() != record.get("sha256"):
        raise ModelError(
            f"{str(weights)!r} is not the file that was trained (its hash differs); {again}"
        )
    config = record.get("config")
    module = SmallCNN(SmallConfig.from_dict(config if isinstance(config, dict) else {"config": 0}))
    try:
        module.load_state_dict(read_state_dict(weights))
    except RuntimeError as error:
        raise ModelError(f"{str(weights)!r} does not fit this version; {again}") from error
    return _loaded(module)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the trained digits model; ``None`` where there is none.

    Raises:
        ModelError: it is damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{str(path)!r} cannot be read ({error}); run again: camlucida train digits"
        ) from error
    if not isinstance(record, dict):
        raise ModelError(f"{str(path)!r} is no record; run again: camlucida train digits")
    return record


def count_parameters(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def as_input(images: Tensor) -> Tensor:
    """Images ``(N, 3, S, S)`` uint8 as :func:`small_preprocess` makes them, without a detour over photos."""
    return (images.to(torch.float32) / 255 - 0.5) / 0.25


def _loaded(module: SmallCNN) -> LoadedModel:
    names = _NAMES if module.num_classes == len(_NAMES) else None
    preprocess = small_preprocess(module.config.size)
    return LoadedModel(module.eval(), "digits", preprocess, names, CLASSES)
