"""A small random face embedder, and pictures for it."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from camlucida import Preprocess
from camlucida.faces.embedder import Embedder
from reference import networks

SIDE = 20


class Small(nn.Module):
    def __init__(self, dimensions=6):
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1, stride=2)
        self.last = nn.Conv2d(5, 7, 3, padding=1)
        self.fc = nn.Linear(7 * (SIDE // 2) ** 2, dimensions)

    def forward(self, x):
        x = torch.tanh(self.last(torch.tanh(self.first(x))))
        return self.fc(x.flatten(1))


def small(compare="cosine", threshold=0.2, seed=0, layer="last"):
    module = networks.randomise(Small().double(), seed, scale=0.3).eval()
    preprocess = Preprocess(
        size=(SIDE, SIDE), resize=(SIDE, SIDE), crop=False, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return Embedder(
        module=module, name="small", preprocess=preprocess, compare=compare,
        threshold=threshold, layer=layer,
    )  # fmt: skip


def picture(seed, side=SIDE):
    levels = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
    return Image.fromarray(levels.astype(np.uint8))
