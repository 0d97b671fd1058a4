"""Sensitivity and infidelity, slowly: one image, one perturbation at a time (Yeh et al. 2019)."""

import numpy as np
import torch

EMPTY = torch.empty(0)


def sensitivity(explained, x, radius, samples, g):
    """x (1, C, H, W); explained gives any array; g the image's random stream."""
    before = explained(x).numpy().ravel()
    most = 0.0
    for _ in range(samples):
        y = x + radius * (2 * g.rand(x.shape[1:], x) - 1)
        after = explained(y).numpy().ravel()
        most = max(most, sum((a - b) ** 2 for a, b in zip(after, before, strict=True)) ** 0.5)
    return most / sum(b**2 for b in before) ** 0.5


def squares(x, g):
    """(indicator (H, W), image without it)."""
    height, width = x.shape[2:]
    u = [float(v) for v in g.rand((3,), EMPTY)[0]]
    largest = max(1, round(min(height, width) * 10 / 28))
    side = int(u[0] * largest) + 1
    top, left = int(u[1] * (height - side + 1)), int(u[2] * (width - side + 1))
    indicator, y = np.zeros((height, width)), x.clone()
    for r in range(top, top + side):
        for c in range(left, left + side):
            indicator[r, c] = 1
            y[0, :, r, c] = 0
    return indicator, y


def noisy(x, g):
    """(x - z0 (C, H, W), z0)."""
    z = 0.2 * g.randn(x.shape[1:], x)
    return (x - z)[0].numpy(), z


def infidelity(f, x, attribution, perturbation, samples, g, scale):
    """f from (1, C, H, W) to a float; attribution (H, W); g the image's random stream."""
    guesses, drops = [], []
    for _ in range(samples):
        change, y = (squares if perturbation == "square" else noisy)(x, g)
        guesses.append(float((change * attribution).sum()))
        drops.append(f(x) - f(y))
    if scale:
        beta = np.mean(np.multiply(guesses, drops)) / np.mean(np.square(guesses))
        guesses = [beta * v for v in guesses]
    return float(np.mean([(p - d) ** 2 for p, d in zip(guesses, drops, strict=True)]))
