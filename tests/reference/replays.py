"""A model with every kind of skip, and both paths of a replay held against each other."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from camlucida.engine.replay.replay import replay
from reference.state import differences, snapshot

INDEX = torch.tensor([1, 0, 0, 1, 1])


def altered(activation, index=INDEX):
    """A different feature map for every copy."""
    generator = torch.Generator().manual_seed(4)
    factor = torch.rand(len(index), activation.shape[1], 1, 1, generator=generator)
    return activation[index] * factor.to(activation)


def outputs(model, x, layer, path, target=0, index=INDEX, **options):
    with replay(model, x, layer, target, path=path, **options) as again:
        (name,) = again.tapped.activations
        found = again.run(name, altered(again.tapped.activations[name], index), index)
        assert again.paths == {name: path}
        return found


def compare(model, x, layer, target=0, path="traced", **options):
    """Both paths agree, on copies and on the images themselves, and the copies differ."""
    before = snapshot(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = outputs(model, x, layer, path, target, **options)
        full = outputs(model, x, layer, "full", target, **options)
        with replay(model, x, layer, target, **options) as again:
            (name,) = again.tapped.activations
            same = again.run(name, again.tapped.activations[name], torch.arange(len(x)))
            whole = again.tapped.outputs
    scale = float(full.abs().amax())
    torch.testing.assert_close(traced, full, rtol=1e-5, atol=1e-6 * scale)
    torch.testing.assert_close(same, whole.to(same), rtol=1e-5, atol=1e-5 * scale)
    assert not torch.allclose(full[0], full[3], rtol=0, atol=1e-7 * scale)
    assert differences(before, snapshot(model)) == []


X = torch.randn(2, 3, 6, 8)


class Skips(nn.Module):
    """Values of every kind go around ``block``: a map, a number, a parameter, a buffer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.again = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("offset", torch.randn(4, 1, 1))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        n, c = x.shape[0], self.stem.out_channels
        skip = self.again(self.stem(x))
        scale = self.scale.exp() + self.offset
        a = self.again(self.block(skip))
        a += skip * scale
        a = torch.cat([a, skip.mul_(2)], 1).reshape(n, 2 * c, -1).mean(2)
        return {"hidden": [a], "logits": self.head(a)}
