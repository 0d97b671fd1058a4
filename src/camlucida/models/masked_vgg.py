"""The masked VGG of "CAM-Based Methods Can See Through Walls": its head sees the upper rows of a map."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.errors import ModelError
from camlucida.models.checkpoint import read_state_dict
from camlucida.models.loaded import LoadedModel
from camlucida.preprocess import Preprocess

SEEN_ROWS = 5
"""Rows of the 14 x 14 map that the paper's head sees (B6: ``W[:, :, -9:, :] = 0``)."""

TARGET_LAYER = "features.29"
"""The last ReLU, which the paper explains."""

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
        """Set the ignored weights to exactly zero."""
        self.weight.mul_(self.seen)
        # Zero times infinity or NaN is not zero.
        self.weight[:, ~self.seen] = 0

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
        dropout: of the two dropout layers.

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
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
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
        """Load weights of this layout, also with ``module.`` before each name; the mask is applied.

        Raises:
            ModelError: names or shapes do not fit.
        """
        plain = OrderedDict((name.removeprefix("module."), value) for name, value in state.items())
        try:
            self.load_state_dict(plain)
        except RuntimeError as error:
            first = str(error).splitlines()
            reason = first[1].strip() if len(first) > 1 else first[0]
            raise ModelError(f"the weights do not fit this MaskedVGG: {reason}") from error


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def load_masked_vgg(path: str | os.PathLike[str], *, seen_rows: int = SEEN_ROWS) -> LoadedModel:
    """A trained masked VGG, as :func:`camlucida.training.masked.train_masked_vgg` writes it.

    Width and number of classes are read off the file; weights that were trained elsewhere are masked, too.

    Args:
        path: a state dict; nothing in the file is run.
        seen_rows: rows of the last map that the head sees.

    Raises:
        ModelError: the file cannot be read or holds another network.
    """
    state = {k.removeprefix("module."): v for k, v in read_state_dict(Path(path)).items()}
    first, dense, last = (
        state.get(f"{name}.weight") for name in ("features.0", "classifier.0", "classifier.6")
    )
    if first is None or dense is None or last is None:
        raise ModelError(
            f"{str(path)!r} holds no MaskedVGG: features.0, classifier.0 and classifier.6 are expected"
        )
    side = round((dense.shape[1] / state["features.28.weight"].shape[0]) ** 0.5)
    model = MaskedVGG(last.shape[0], width=first.shape[0] / 64, size=16 * side, seen_rows=seen_rows)
    model.load_masked(state)
    size = 16 * side
    return LoadedModel(model.eval(), "masked-vgg", Preprocess.imagenet(size, resize=size), None)
