"""The masked VGG of "CAM-Based Methods Can See Through Walls": its head sees the upper rows of a map."""

from __future__ import annotations

import json
import math
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import CLASSES
from camlucida.models.checkpoint import read_state_dict
from camlucida.models.loaded import LoadedModel
from camlucida.models.torchvision_models import describe_torchvision

SEEN_ROWS = 5
"""Rows of the 14 x 14 map that the paper's head sees (B6: ``W[:, :, -9:, :] = 0``)."""

TARGET_LAYER = "features.29"
"""The last ReLU, which the paper explains."""

Initialisation: TypeAlias = Literal["torchvision", "authors"]

RECORD = "record.json"
"""What a training writes beside the weights: curves, options and class names."""

_IMAGENET = 1000
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 256))


class MaskedLinear(nn.Linear):
    """A dense layer over a flattened map ``(K, h, w)`` that ignores some of its cells, always.

    The ignored weights are exactly zero from the start, get a gradient of exactly zero (their inputs are
    replaced by zeros), and so stay zero under momentum and weight decay; :meth:`remask` sets them to zero
    again after an optimiser that adds noise, and happens by itself when weights are loaded.

    Args:
        shape: ``(K, h, w)`` of the map before it was flattened.
        out_features: outputs.
        hidden: boolean ``(h, w)``, true in the cells that are ignored; none by default.
        bias: whether there is a bias.
    """

    seen: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        out_features: int,
        hidden: Tensor | None = None,
        bias: bool = True,
    ) -> None:
        channels, height, width = shape
        super().__init__(channels * height * width, out_features, bias=bias)
        if hidden is None:
            hidden = torch.zeros(height, width, dtype=torch.bool)
        if tuple(hidden.shape) != (height, width) or hidden.dtype != torch.bool:
            raise ModelError(
                f"hidden must be a boolean map of {height} x {width} cells, got {hidden.dtype} of shape "
                f"{tuple(hidden.shape)}"
            )
        self.shape = shape
        seen = (~hidden).expand(channels, height, width).reshape(-1)
        self.register_buffer("seen", seen.clone(), persistent=False)
        self.remask()

    @torch.no_grad()
    def remask(self) -> None:
        """Set the ignored weights to exactly zero, also where they are infinite or NaN."""
        self.weight.masked_fill_(~self.seen, 0)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, K * h * w)`` to ``(N, out_features)``."""
        return F.linear(torch.where(self.seen, x, torch.zeros_like(x)), self.weight, self.bias)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.remask()

    def extra_repr(self) -> str:
        """The layer's numbers, with how many inputs it sees."""
        return f"{super().extra_repr()}, seen={int(self.seen.sum())}"


def remask(model: nn.Module) -> None:
    """Set the ignored weights of every :class:`MaskedLinear` to zero; the paper does so after each step."""
    for module in model.modules():
        if isinstance(module, MaskedLinear):
            module.remask()


class MaskedVGG(nn.Module):
    """The paper's [VGG]: VGG16 without batch norm and last pooling, 256 channels last, and a masked head.

    At 224 pixels the last map is 256 x 14 x 14 and the head sees rows 0 to 4 of it, so that image rows 170 to
    223 (54 of 224) are dead. The names are torchvision's: ``features.0`` ... ``features.29``,
    ``classifier.0`` ... ``classifier.6``, so that weights trained with them load.

    Args:
        num_classes: outputs.
        masked: ``False`` is the unmasked twin, the same network that sees everything.
        seen_rows: rows of the last map that the head sees.
        size: (H, W) of the images, multiples of 16.
        width: multiplies all channels and the width of the dense layers; thin ones are for tests.
        dropout: probability of the two dropout layers.
        initialisation: ``"torchvision"`` gives all layers VGG's; ``"authors"`` leaves the two layers that they
            replace, ``features.28`` and ``classifier.0``, biases included, with PyTorch's own.

    Source: Taimeskhanov, Sicre and Garreau (ECML 2024), section 3.1 and figure 4.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        masked: bool = True,
        seen_rows: int = SEEN_ROWS,
        size: int | Sequence[int] = 224,
        width: float = 1.0,
        dropout: float = 0.5,
        initialisation: Initialisation = "torchvision",
    ) -> None:
        super().__init__()
        height, breadth = (size, size) if isinstance(size, int) else tuple(size)
        if height % 16 or breadth % 16 or not 0 < seen_rows <= height // 16:
            raise ModelError(
                f"MaskedVGG needs a size that 16 divides and 1 to {max(1, height // 16)} seen rows, got size "
                f"{height} x {breadth} and seen_rows={seen_rows}"
            )
        self.num_classes = num_classes
        layers: list[nn.Module] = []
        channels = 3
        for index, block in enumerate(_BLOCKS):
            for wanted in block:
                out = _scaled(wanted, width)
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
            if index < len(_BLOCKS) - 1:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        cells = (height // 16, breadth // 16)
        hidden = torch.zeros(cells, dtype=torch.bool)
        if masked:
            hidden[seen_rows:] = True
        dense = _scaled(4096, width)
        self.classifier = nn.Sequential(
            MaskedLinear((channels, *cells), dense, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(dense, dense),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(dense, num_classes),
        )
        self._initialise(
            () if initialisation == "torchvision" else (self.features[-2], self.classifier[0])
        )

    def _initialise(self, replaced: Sequence[nn.Module]) -> None:
        for module in self.modules():
            if module in replaced:
                continue
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                nn.init.zeros_(bias)
        remask(self)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to logits ``(N, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits

    def load_masked(self, state: Mapping[str, Tensor]) -> None:
        """Load weights of this layout, under its names or those of the authors' files; the mask is applied.

        Raises:
            ModelError: names or shapes do not fit.
        """
        try:
            self.load_state_dict(_named(state))
        except RuntimeError as error:
            first = str(error).splitlines()
            reason = first[1].strip() if len(first) > 1 else first[0]
            raise ModelError(f"the weights do not fit this MaskedVGG: {reason}") from error


def _named(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Weights under our names: without ``module.``, and those of the authors' plain ``Sequential`` renamed.

    Theirs holds the features, a ``Flatten`` at 30 and the classifier at 31: ``0.weight`` ... ``31.6.weight``.
    """
    plain = OrderedDict((name.removeprefix("module."), value) for name, value in state.items())
    if "31.0.weight" not in plain:
        return plain
    parts = ((name.partition(".")[::2], value) for name, value in plain.items())
    return OrderedDict(
        (f"classifier.{rest}" if first == "31" else f"features.{first}.{rest}", value)
        for (first, rest), value in parts
    )


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def load_masked_vgg(path: str | os.PathLike[str], *, seen_rows: int | None = None) -> LoadedModel:
    """A trained masked VGG: the authors' file, or one that :func:`camlucida.training.masked.train_masked_vgg` writes.

    Width, size and number of classes are read off the file. So is the mask: the last rows of the first dense
    layer's map whose weights are all exactly zero. Weights without such rows are the unmasked twin's.

    Args:
        path: a state dict; nothing in the file is run. Class names come from the training's record beside it,
            or are ImageNet's for 1000 classes.
        seen_rows: rows of the last map that the head is to see, whatever the file says; the other weights are
            set to zero.

    Raises:
        ModelError: the file cannot be read or holds another network.
    """
    path = Path(path)
    state = _named(read_state_dict(path))
    names = [
        f"{part}.weight" for part in ("features.0", "features.28", "classifier.0", "classifier.6")
    ]
    if any(name not in state or state[name].ndim < 2 for name in names):
        raise ModelError(
            f"{str(path)!r} holds no MaskedVGG: features.0, features.28, classifier.0 and classifier.6 are expected"
        )
    dense, classes = state["classifier.0.weight"], len(state["classifier.6.weight"])
    channels = len(state["features.28.weight"])
    side = math.isqrt(dense.shape[1] // channels)
    if side < 1 or dense.shape[1] != channels * side**2:
        raise ModelError(
            f"{str(path)!r} holds no MaskedVGG for square images: its first dense layer has {dense.shape[1]} "
            f"inputs for {channels} channels"
        )
    if seen_rows is None:
        lit = dense.reshape(-1, channels, side, side).ne(0).flatten(0, 1).any(0).any(1)
        seen_rows = int(lit.nonzero().max()) + 1 if bool(lit.any()) else side
    size = 16 * side
    model = MaskedVGG(
        classes, masked=seen_rows < side, seen_rows=seen_rows, width=_width_of(state), size=size
    )
    model.load_masked(state)
    return LoadedModel(
        model.eval(),
        "masked-vgg" if seen_rows < side else "unmasked-vgg",
        Preprocess.imagenet(size, resize=size),
        _class_names(path.with_name(RECORD), classes),
        CLASSES,
    )


def _width_of(state: Mapping[str, Tensor]) -> float:
    """The width from which these numbers of channels come; each one was rounded."""
    found = [(4096, "classifier.0.weight")]
    for name, wanted in zip(_CONVOLUTIONS, (c for block in _BLOCKS for c in block), strict=True):
        found.append((wanted, f"features.{name}.weight"))
    spans = [
        ((len(state[name]) - 0.5) / wanted, (len(state[name]) + 0.5) / wanted)
        for wanted, name in found
        if name in state and len(state[name]) > 1  # fewer than one channel are one, too
    ]
    if not spans:
        return 1 / 4096
    return (max(low for low, _ in spans) + min(high for _, high in spans)) / 2


def _class_names(record: Path, classes: int) -> tuple[str, ...] | None:
    names: list[str] = []
    with suppress(
        OSError, ValueError, KeyError, TypeError
    ):  # weights from elsewhere have no record
        names = [str(n) for n in json.loads(record.read_text(encoding="utf-8"))["class_names"]]
    synsets = all(re.fullmatch(r"n\d{8}", name) for name in names)
    if len(names) == classes and not (classes == _IMAGENET and synsets):
        return tuple(names)
    if classes != _IMAGENET:
        return None
    try:
        return describe_torchvision("vgg16")[1]
    except ModelError:
        return None  # torchvision, which lists the names, is not installed
