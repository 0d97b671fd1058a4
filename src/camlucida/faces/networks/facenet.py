"""FaceNet: Inception-ResNet-v1 in the layout of the usual PyTorch checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.models.checkpoint import load_state, read_state_dict

SIZE = 160
MEAN = (127.5 / 255,) * 3
STD = (128 / 255,) * 3
"""The fixed standardisation: 127.5 taken off, divided by 128, in 0 to 255."""

_Size = int | tuple[int, int]


class _Conv(nn.Module):
    """Convolution, batch normalisation, ReLU; a kernel that is not square keeps the size."""

    def __init__(
        self, inside: int, out: int, size: _Size, stride: int = 1, padding: _Size = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, out, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Residual(nn.Module):
    """Branches side by side, joined, projected back, scaled and added to the input."""

    def __init__(self, width: int, scale: float, *branches: nn.Module, relu: bool = True) -> None:
        super().__init__()
        self.scale, self.relu = scale, relu
        joined = 0
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)
            joined += [m.out_channels for m in branch.modules() if isinstance(m, nn.Conv2d)][-1]
        self.count = len(branches)
        self.conv2d = nn.Conv2d(joined, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.get_submodule(f"branch{i}")(x) for i in range(self.count)]
        out: Tensor = x + self.scale * self.conv2d(torch.cat(found, 1))
        return F.relu(out) if self.relu else out


class _Reduction(nn.Module):
    """Branches that halve the map side by side, and a max pool."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.count = len(branches) + 1
        for index, branch in enumerate((*branches, nn.MaxPool2d(3, 2))):
            self.add_module(f"branch{index}", branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self.count)], 1)


def _block35() -> nn.Module:
    return _Residual(
        256,
        0.17,
        _Conv(256, 32, 1),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, padding=1)),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, padding=1), _Conv(32, 32, 3, padding=1)),
    )


def _block17() -> nn.Module:
    across, down = _Conv(128, 128, (1, 7), padding=(0, 3)), _Conv(128, 128, (7, 1), padding=(3, 0))
    tall = nn.Sequential(_Conv(896, 128, 1), across, down)
    return _Residual(896, 0.10, _Conv(896, 128, 1), tall)


def _block8(scale: float = 0.20, *, relu: bool = True) -> nn.Module:
    across, down = _Conv(192, 192, (1, 3), padding=(0, 1)), _Conv(192, 192, (3, 1), padding=(1, 0))
    tall = nn.Sequential(_Conv(1792, 192, 1), across, down)
    return _Residual(1792, scale, _Conv(1792, 192, 1), tall, relu=relu)


class InceptionResNetV1(nn.Module):
    """Inception-ResNet-v1 of FaceNet: RGB ``(N, 3, 160, 160)`` to embeddings ``(N, 512)`` of length 1.

    The last feature map, ``block8``, has 3 x 3 cells; ``repeat_2`` has 8 x 8.

    Source: Szegedy et al. 2017, Figures 10 to 14; Schroff et al. 2015 (FaceNet).
    """

    embeds = True

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _Conv(3, 32, 3, 2)
        self.conv2d_2a = _Conv(32, 32, 3)
        self.conv2d_2b = _Conv(32, 64, 3, padding=1)
        self.conv2d_3b = _Conv(64, 80, 1)
        self.conv2d_4a = _Conv(80, 192, 3)
        self.conv2d_4b = _Conv(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _Reduction(
            _Conv(256, 384, 3, 2),
            nn.Sequential(_Conv(256, 192, 1), _Conv(192, 192, 3, padding=1), _Conv(192, 256, 3, 2)),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _Reduction(
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 384, 3, 2)),
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, 2)),
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, padding=1), _Conv(256, 256, 3, 2)),
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(1.0, relu=False)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised faces ``(N, 3, 160, 160)`` to ``(N, 512)``."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4a(self.conv2d_3b(F.max_pool2d(x, 3, 2)))
        x = self.repeat_1(self.conv2d_4b(x))
        x = self.repeat_2(self.mixed_6a(x))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        return F.normalize(self.last_bn(self.last_linear(x.mean(dim=(2, 3)))))


def load_facenet(file: str | Path) -> InceptionResNetV1:
    """FaceNet with the weights of a checkpoint, on the CPU, in eval mode.

    Args:
        file: a state dict in the layout of the usual PyTorch checkpoints
            (``repeat_1.0.branch0.conv.weight``); its classifier ``logits`` is left out.

    Raises:
        ModelError: the file is missing, damaged, or holds another network.
    """
    path = Path(file)
    state = {k: v for k, v in read_state_dict(path).items() if not k.startswith("logits.")}
    net = InceptionResNetV1()
    load_state(net, state, f"{path.name!r} does not fit Inception-ResNet-v1", finite=True)
    return net.eval().requires_grad_(requires_grad=False)
