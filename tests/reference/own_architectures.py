"""Models as people write them, of kinds that shapes and names are no help with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[int, int]]
D = 32


class Recurrent(nn.Module):
    """A convolutional network, then an LSTM over the columns of its map."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, D, 3, 2, 1), nn.ReLU()
        )
        self.rnn = nn.LSTM(D * 8, D, batch_first=True)
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.cnn(x)
        return self.head(self.rnn(z.permute(0, 3, 1, 2).flatten(2))[0][:, -1])


class Queries(nn.Module):
    """Learned queries look at a map, as many as some grid has cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, D, 3, 4, 1), nn.ReLU()
        )
        self.queries = nn.Parameter(torch.randn(1, 16, D))
        self.decoder = nn.TransformerDecoderLayer(D, 2, 64, batch_first=True)
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(
            self.decoder(self.queries.expand(len(x), -1, -1), self.cnn(x).flatten(2).mT)
        ).mean(1)


class Mixing(nn.Module):
    """Attention that is not called so."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.drop, self.proj = nn.Linear(D, 3 * D), nn.Dropout(0.0), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        weights = self.drop((q @ k.mT / (d // 4) ** 0.5).softmax(-1))
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, d))


class OwnViT(nn.Module):
    """A transformer with tokens in front of, or behind, the grid, and the grid in an order of its own."""

    def __init__(
        self, front: int = 1, behind: int = 0, order: str = "rows", depth: int = 2
    ) -> None:
        super().__init__()
        self.order = order
        self.patch = nn.Conv2d(3, D, 8, 8)
        self.front = nn.Parameter(torch.randn(1, front, D))
        self.behind = nn.Parameter(torch.randn(1, behind, D))
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(depth))
        self.mixers = nn.ModuleList(Mixing() for _ in range(depth))
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x)
        if self.order == "columns":
            z = z.mT.flatten(2).mT
        elif self.order == "blocks":
            n, d, h, w = z.shape
            z = z.view(n, d, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(n, h * w, d)
        elif self.order == "shuffled":
            order = torch.randperm(z[0, 0].numel(), generator=torch.Generator().manual_seed(0))
            z = z.flatten(2).mT[:, order]
        else:
            z = z.flatten(2).mT
        z = torch.cat([self.front.expand(len(x), -1, -1), z, self.behind.expand(len(x), -1, -1)], 1)
        for norm, mix in zip(self.norms, self.mixers, strict=True):
            z = z + mix(norm(z))
        if self.order == "shuffled":
            return self.head(z.mean(1))
        return self.head(z[:, 0] if self.front.shape[1] else z[:, -1])


class Scan(nn.Module):
    """A selective scan, forwards and backwards over the sequence of patches, as in Vision Mamba."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner, self.out = nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.Linear(D, D)
        self.conv = nn.Conv1d(D, D, 3, padding=1, groups=D)

    def forward(self, z: Tensor) -> Tensor:
        a, gate = self.inner(self.norm(z)).chunk(2, -1)
        a = self.conv(a.mT).mT

        def scan(s: Tensor) -> Tensor:
            state, found = torch.zeros_like(s[:, 0]), []
            for t in range(s.shape[1]):
                state = 0.8 * state + s[:, t]
                found.append(state)
            return torch.stack(found, 1)

        both = scan(a) + scan(a.flip(1)).flip(1)
        return z + self.out(both * torch.nn.functional.silu(gate))


class Mamba(nn.Module):
    """Patches, scans, and the token in the middle read."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, D, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, D))
        self.blocks = nn.Sequential(Scan(), Scan(), Scan())
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).flatten(2).mT
        half = z.shape[1] // 2
        z = torch.cat([z[:, :half], self.token.expand(len(x), -1, -1), z[:, half:]], 1)
        return self.head(self.blocks(z)[:, half])


class Turned(nn.Module):
    """Looks at the image upside down, mirrored or lying on its side."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT if self.how == "lying" else x.flip(-1) if self.how == "mirrored" else x.flip(-2)
        return self.head(self.cnn(x).mean((2, 3)))


class Warped(nn.Module):
    """A spatial transformer in front of a network."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        turn = torch.deg2rad(torch.tensor(degrees))
        cos, sin, none = turn.cos(), turn.sin(), torch.zeros(())
        self.register_buffer("theta", torch.stack([cos, -sin, none, sin, cos, none]).view(1, 2, 3))
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        grid = nn.functional.affine_grid(
            self.theta.expand(len(x), -1, -1), list(x.shape), align_corners=False
        )
        return self.head(
            self.cnn(nn.functional.grid_sample(x, grid, align_corners=False)).mean((2, 3))
        )


class Fourier(nn.Module):
    """A global filter between convolutions, as in GFNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = (
            nn.Conv2d(3, 16, 4, 4),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Linear(16, 5),
        )
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(16, 16, 9, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        z = self.stem(x)
        z = torch.fft.irfft2(torch.fft.rfft2(z) * self.weight, s=z.shape[-2:])
        return self.head(self.last(z).relu().mean((2, 3)))


class Rows(nn.Module):
    """One row of cells: a network for spectrograms that pools frequency away."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 16, (8, 4), (8, 4)), nn.ReLU(), nn.Conv2d(16, D, (4, 3), padding=(0, 1))
        )
        self.act = nn.ReLU()
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.cnn(x)).mean((2, 3)))


class Depth(nn.Module):
    """One map ``(N, H, W)`` comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(8, 1, 1), nn.Flatten(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Dense(nn.Module):
    """A network that flattens everything: no map at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 64 * 64, 64), nn.ReLU(), nn.Linear(64, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


_SQUARE = (64, 64)
BUILDERS = {
    "LSTM over columns": lambda: (Recurrent(), (32, 128)),
    "learned queries": lambda: (Queries(), _SQUARE),
    "ViT with attention of its own": lambda: (OwnViT(), _SQUARE),
    "ViT with 30 prompts": lambda: (OwnViT(front=31), (112, 112)),
    "ViT with its class token behind": lambda: (OwnViT(front=0, behind=1), _SQUARE),
    "ViT with tokens on both sides": lambda: (OwnViT(front=3, behind=5), (64, 96)),
    "ViT column by column": lambda: (OwnViT(order="columns"), (64, 96)),
    "ViT block by block": lambda: (OwnViT(order="blocks"), (64, 96)),
    "ViT with shuffled tokens": lambda: (OwnViT(order="shuffled"), _SQUARE),
    "Vision Mamba": lambda: (Mamba(), _SQUARE),
    "lying on its side": lambda: (Turned("lying"), _SQUARE),
    "mirrored": lambda: (Turned("mirrored"), _SQUARE),
    "upside down": lambda: (Turned("down"), _SQUARE),
    "spatial transformer, 10 degrees": lambda: (Warped(10.0), _SQUARE),
    "spatial transformer, 180 degrees": lambda: (Warped(180.0), _SQUARE),
    "global Fourier filter": lambda: (Fourier(), _SQUARE),
    "one row of cells": lambda: (Rows(), (32, 128)),
    "one map comes out": lambda: (Depth(), _SQUARE),
    "fully connected": lambda: (Dense(), _SQUARE),
}
