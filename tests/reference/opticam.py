"""Opti-CAM, slowly: one image, torch's own Adam, enlarging by an explicit matrix (spec 2.9)."""

import numpy as np
import torch


def enlarging(small, large):
    """The matrix (large, small) of bilinear interpolation with half-pixel centres."""
    matrix = np.zeros((large, small))
    for i in range(large):
        at = min(max((i + 0.5) * small / large - 0.5, 0), small - 1)
        low = int(np.floor(at))
        high = min(low + 1, small - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, high] += at - low
    return torch.tensor(matrix)


def mask(u, activation, size, how="minmax"):
    weights = torch.exp(u) / torch.exp(u).sum()
    mixed = 0
    for k in range(len(weights)):
        mixed = mixed + weights[k] * activation[k].clamp(min=0)
    h, w = activation.shape[1:]
    big = enlarging(h, size[0]) @ mixed @ enlarging(w, size[1]).T
    if how == "sigmoid":
        return 1 / (1 + torch.exp(-big))
    low = big.min() if how == "minmax" else torch.zeros(())
    if big.max() - low <= 0:
        return torch.zeros_like(big)
    return (big - low) / (big.max() - low)


def optimise(score, activation, size, iterations, rate, loss="plain", how="minmax", early=True):
    """``score`` from a mask (H, W) to Y; returns the mask and the losses of the steps taken."""
    u = torch.full((len(activation),), 0.5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([u], lr=rate)
    whole = float(score(torch.ones(size, dtype=torch.float64), True))
    before, losses = 1e10, []
    for step in range(iterations):
        now = mask(u, activation, size, how)
        gap = whole - score(now, False)
        value = gap.abs() if loss == "norm" else gap
        losses.append(float(value.detach()))
        if early and step % max(1, iterations // 10) == 0:
            if losses[-1] > before:
                return now.detach(), losses
            before = losses[-1]
        adam.zero_grad()
        value.backward()
        adam.step()
    return mask(u, activation, size, how).detach(), losses
