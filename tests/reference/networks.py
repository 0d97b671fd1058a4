"""Small random networks in double precision, taken apart so that a reference needs no hooks."""

from __future__ import annotations

import torch
from torch import nn


class Split(nn.Module):
    """``features`` ``(N, K, h, w)``, then ``head`` ``(N, M)``."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x):
        return self.head(self.features(x))


class Gap(nn.Module):
    def forward(self, a):
        return a.mean((2, 3))


def randomise(model, seed, scale=0.7):
    """Fill parameters and statistics from a seed, away from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            )
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def small(classes=3):
    """Two convolutions with ReLUs, pooling and a linear layer, in single precision."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes),
    ).eval()  # fmt: skip


def build(
    *, channels=3, k=4, m=3, size=(5, 6), head="gap", signed=True, seed=0, bias=True, smooth=False
):
    """A network and nothing trained: ``head`` is ``"gap"``, ``"dense"`` or ``"deep"``."""
    last = nn.Tanh() if smooth else nn.ReLU()
    features = nn.Sequential(
        nn.Conv2d(channels, k, 3, padding=1), nn.Identity() if signed else last
    )
    heads = {
        "gap": lambda: nn.Sequential(Gap(), nn.Linear(k, m, bias=bias)),
        "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(k * size[0] * size[1], m)),
        "deep": lambda: nn.Sequential(
            nn.Conv2d(k, 5, 3, padding=1),
            nn.Tanh() if smooth else nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * size[0] * size[1], m),
        ),
    }
    model = Split(features, heads[head]()).double().eval()
    return randomise(model, seed)


def images(n, channels, size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, *size, generator=generator, dtype=torch.float64)


def parts(model, x, target):
    """Activations and gradients of ``features`` by differentiating the head itself, no hooks."""
    a = model.features(x).detach().requires_grad_()
    values = target(model.head(a))
    (g,) = torch.autograd.grad(values.sum(), a)
    return a.detach(), g, values.detach()
