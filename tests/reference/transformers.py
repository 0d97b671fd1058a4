"""Small vision transformers whose attention can be had from outside, in double precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from reference import networks


class Block(nn.Module):
    """Attention in the open, fused or not; a mixing layer stands for the rest."""

    def __init__(self, width, heads, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Linear(width, width)

    def parts(self, z):
        n, t, d = z.shape
        return (
            self.qkv(self.norm(z)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        )

    def weights(self, z):
        q, k, _ = self.parts(z)
        return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)

    def rest(self, z, weights):
        return self.after(z, weights @ self.parts(z)[2])

    def after(self, z, mixed):
        z = z + self.out(mixed.transpose(1, 2).flatten(2))
        return z + torch.tanh(self.mlp(z))

    def forward(self, z):
        if self.fused:
            return self.after(z, F.scaled_dot_product_attention(*self.parts(z)))
        return self.rest(z, self.weights(z))


class TinyViT(nn.Module):
    def __init__(self, *, fused=True, pool="class", depth=3, width=8, heads=2):
        super().__init__()
        self.pool = pool
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads, fused) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def embed(self, x):
        z = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(z), -1, -1), z], 1) if self.pool == "class" else z

    def tail(self, z):
        z = self.norm(z)
        return self.head(z[:, 0] if self.pool == "class" else z.mean(1))

    def forward(self, x):
        return self.tail(self.blocks(self.embed(x)))


def tiny(seed=0, **options):
    return networks.randomise(TinyViT(**options).double().eval(), seed)
