"""IResNet, the backbone of ArcFace and AdaFace, and the layouts of their checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.models.checkpoint import load_state, read_state_dict

Shortcut = Literal["conv", "pool"]

SIZE = 112
MEAN = (0.5,) * 3
STD = (0.5,) * 3

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
DEPTHS = (*_BLOCKS, 101)
"""AdaFace counts the layers of IResNet-100 as 101; it is the same network."""

_STEM = {"0": "conv1", "1": "bn1", "2": "prelu"}
_HEAD = {"0": "bn2", "3": "fc", "4": "features"}
_RESIDUAL = {"0": "bn1", "1": "conv1", "2": "bn2", "3": "prelu", "4": "conv2", "5": "bn3"}


class _Block(nn.Module):
    """BN, conv, BN, PReLU, conv, BN, plus a shortcut; the last convolution has the stride."""

    def __init__(self, inside: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if inside != width or (stride > 1 and shortcut == "conv"):
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        elif stride > 1:
            self.downsample = nn.MaxPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv1(self.bn1(x)))
        out: Tensor = self.bn3(self.conv2(self.prelu(y))) + self.downsample(x)
        return out


class IResNet(nn.Module):
    """The improved ResNet of face recognition: ``(N, 3, 112, 112)`` to embeddings ``(N, 512)``, not normalised.

    The last feature map, ``layer4``, has 7 x 7 cells.

    Args:
        depth: 18, 34, 50, or 100 (also called 101).
        shortcut: the first block's way past its convolutions: a 1x1 convolution (``"conv"``, ArcFace), or every
            other pixel (``"pool"``, AdaFace).
        dimensions: the dimensions of the embedding.

    Source: Duta et al. 2021; Deng et al. 2019 (ArcFace), section 3.2; Kim et al. 2022 (AdaFace).

    Raises:
        ModelError: an unknown depth.
    """

    embeds = True

    def __init__(self, depth: int, shortcut: Shortcut = "conv", dimensions: int = 512) -> None:
        super().__init__()
        counts = _BLOCKS.get(100 if depth == 101 else depth)
        if counts is None:
            raise ModelError(
                f"there is no IResNet-{depth}; there are {', '.join(map(str, DEPTHS))}"
            )
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        inside = 64
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), 1):
            blocks = []
            for index in range(count):
                blocks.append(_Block(inside, width, 2 if index == 0 else 1, shortcut))
                inside = width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, dimensions)
        self.features = nn.BatchNorm1d(dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised faces ``(N, 3, 112, 112)`` to ``(N, D)``."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        out: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return out


def load_iresnet(file: str | Path, depth: int | None = None) -> tuple[IResNet, str]:
    """An IResNet with the weights of an ArcFace or AdaFace checkpoint, on the CPU, in eval mode.

    Args:
        file: a state dict in the layout of insightface's ArcFace (``layer1.0.conv1.weight``) or of AdaFace
            (``body.0.res_layer.1.weight``, also inside a training checkpoint).
        depth: 18, 34, 50, 100 or 101; by default read from the checkpoint.

    Returns:
        The network, and the layout that was found: ``"arcface"`` or ``"adaface"``.

    Raises:
        ModelError: the file is missing, damaged, or holds another network or depth.
    """
    path = Path(file)
    state = read_state_dict(path)
    layout = "arcface"
    if any(re.match(r"(\w+\.)*body\.0\.res_layer", key) for key in state):
        layout, state = "adaface", _from_adaface(state)
    state = {
        key: value
        for key, value in state.items()
        # The classifier of the training.
        if not re.match(r"(head|kernel|margin_softmax|partial_fc)\b", key)
    }
    found = _depth(state)
    if found is None:
        raise ModelError(
            f"{path.name!r} holds no IResNet in the layout of ArcFace or AdaFace; its first names are "
            f"{', '.join(list(state)[:3]) or 'none'}"
        )
    if depth is not None and found != (100 if depth == 101 else depth):
        raise ModelError(f"{path.name!r} holds an IResNet-{found}, not IResNet-{depth}")
    fc = state.get("fc.weight")
    dimensions = 512 if fc is None else len(fc)
    net = IResNet(found, "conv" if "layer1.0.downsample.0.weight" in state else "pool", dimensions)
    # Their last normalisation may have no scale and shift of its own.
    state = {
        "features.weight": torch.ones(dimensions),
        "features.bias": torch.zeros(dimensions),
        **state,
    }
    load_state(net, state, f"{path.name!r} does not fit IResNet-{found}", finite=True)
    return net.eval().requires_grad_(requires_grad=False), layout


def _depth(state: Mapping[str, Tensor]) -> int | None:
    """The depth whose stages have as many blocks as the checkpoint."""
    counts = []
    for stage in (1, 2, 3, 4):
        matches = (re.match(rf"layer{stage}\.(\d+)\.", key) for key in state)
        counts.append(1 + max((int(m[1]) for m in matches if m), default=-1))
    return next((depth for depth, blocks in _BLOCKS.items() if blocks == tuple(counts)), None)


def _from_adaface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AdaFace's names turned into those of ArcFace."""
    prefix = next(k for k in state if "body.0.res_layer" in k).partition("body.0.")[0]
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    widths = {
        int(match[1]): len(value)
        for key, value in inner.items()
        if (match := re.match(r"body\.(\d+)\.res_layer\.4\.weight$", key)) and value.ndim == 4
    }
    stages = {width: stage for stage, width in enumerate(sorted(set(widths.values())), 1)}
    places: dict[str, str] = {}
    seen: dict[int, int] = {}
    for index in sorted(widths):
        stage = stages[widths[index]]
        places[f"body.{index}."] = f"layer{stage}.{seen.get(stage, 0)}."
        seen[stage] = seen.get(stage, 0) + 1
    names = {
        **{f"input_layer.{k}.": f"{name}." for k, name in _STEM.items()},
        **{f"output_layer.{k}.": f"{name}." for k, name in _HEAD.items()},
        **{f"{body}res_layer.{k}.": f"{ours}{n}." for body, ours in places.items() for k, n in _RESIDUAL.items()},
        **{f"{body}shortcut_layer.": f"{ours}downsample." for body, ours in places.items()},
    }  # fmt: skip
    renamed: dict[str, Tensor] = {}
    for key, value in inner.items():
        theirs = next((name for name in names if key.startswith(name)), "")
        renamed[names.get(theirs, "") + key.removeprefix(theirs)] = value
    return renamed
