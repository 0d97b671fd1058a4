"""Score-CAM, its kin and AblationCAM, slowly: one pass per channel, loops, specification 2.8 and 2.10.

``A`` is a numpy array ``(K, h, w)``; ``score`` a function from an image ``(C, H, W)`` (or from an activation)
to a number. Everything is in double precision.
"""

from __future__ import annotations

import math

import numpy as np


def enlarge(picture, size):
    """Bilinear with half-pixel centres, clamped at the border."""
    h, w = picture.shape
    height, width = size
    out = np.zeros(size)
    for r in range(height):
        for c in range(width):
            y = max((r + 0.5) * h / height - 0.5, 0.0)
            x = max((c + 0.5) * w / width - 0.5, 0.0)
            top, left = min(int(y), h - 1), min(int(x), w - 1)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            dy, dx = y - top, x - left
            out[r, c] = (
                (1 - dy) * (1 - dx) * picture[top, left]
                + (1 - dy) * dx * picture[top, right]
                + dy * (1 - dx) * picture[bottom, left]
                + dy * dx * picture[bottom, right]
            )
    return out


def mask(channel, size):
    """``minmax(Up(A^k))``, zeros for a constant channel."""
    if channel.max() == channel.min():
        return np.zeros(size)
    large = enlarge(channel, size)
    return (large - large.min()) / (large.max() - large.min())


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def scores(score, image, A, steps=None):
    """Mean over the steps of the score of the masked image, for each channel.

    ``steps`` are functions from (image, mask, k) to an image; a constant channel is shown nothing.
    """
    steps = steps or [lambda x, H, _: x * H]
    found = []
    for k, channel in enumerate(A):
        H = mask(channel, image.shape[1:])
        total = 0.0
        for step in steps:
            masked = image * 0 if channel.max() == channel.min() else step(image, H, k)
            total += score(masked)
        found.append(total / len(steps))
    return found


def weighted(weights, A):
    L = np.zeros(A.shape[1:])
    for weight, channel in zip(weights, A, strict=True):
        L += weight * channel
    return L


def scorecam(score, image, A, baseline=0.0, steps=None):
    """The weights and the signed map; ``baseline`` is the score of whatever baseline."""
    weights = softmax([s - baseline for s in scores(score, image, A, steps)])
    return weights, weighted(weights, A)


def scorecam_prob(probability, image, A):
    """Weights that are the probabilities themselves, and the sum of the enlarged channels."""
    weights = scores(probability, image, A)
    L = np.zeros(image.shape[1:])
    for weight, channel in zip(weights, A, strict=True):
        L += weight * enlarge(channel, image.shape[1:])
    return weights, L


def integration(samples, path):
    """The steps of IS-CAM."""
    factors = []
    running = 0.0
    for i in range(1, samples + 1):
        running += i / samples
        factors.append(running if path == "cumulative" else i / samples)
    return [lambda x, H, _, f=f: x * H * f for f in factors]


def ablation_weights(score, A, value=0.0, denominator="score"):
    """``(Y - Y without k) / Y``."""
    whole = score(A)
    weights = []
    for k in range(len(A)):
        ablated = A.copy()
        ablated[k] = value
        loss = whole - score(ablated)
        if abs(whole) < 1e-8:
            weights.append(loss)
        else:
            weights.append(loss / (abs(whole) if denominator == "abs" else whole))
    return weights
