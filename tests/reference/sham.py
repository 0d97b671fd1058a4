"""The masks and losses of fooling, written out cell by cell."""

from __future__ import annotations

import math

import numpy as np

ROUNDED = ("1111111", "1100011", "1000001", "1000001", "1000001", "1100011", "1111111")
MIDPOINTS = ("1111111", "1001001", "1000001", "1100011", "1000001", "1001001", "1111111")
ROWS = ("1111111", "1111111", "0000000", "0000000", "0000000", "1111111", "1111111")


def bits(rows):
    return np.array([[int(c) for c in row] for row in rows], dtype=float)


def border(height, width):
    found = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            if min(i, height - 1 - i) < max(1, height // 7):
                found[i, j] = 1
            if min(j, width - 1 - j) < max(1, width // 7):
                found[i, j] = 1
    return found


def minmax(m):
    low, high = m.min(), m.max()
    return np.zeros_like(m) if low == high else (m - low) / (high - low)


def entropy(m):
    p = minmax(m) / (minmax(m).sum() + 1e-10) + 1e-10
    return 0.0 if m.min() == m.max() else -sum(x * math.log(x) for x in p.ravel())


def cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        top = row.max()
        total += top + math.log(sum(math.exp(z - top) for z in row)) - row[label]
    return total / len(labels)


def class_weight_cam(activation, weight, classes):
    """sum over channels of W[c, k] A^k, image by image."""
    found = np.zeros((activation.shape[0], *activation.shape[2:]))
    for n, c in enumerate(classes):
        for k in range(activation.shape[1]):
            found[n] += weight[c, k] * activation[n, k]
    return found


def cyborg(logits, labels, activation, weight, targets, a, classes=None):
    """a CE + (1 - a) MSE(minmax(CAM), T), section 8.1."""
    maps = class_weight_cam(activation, weight, labels if classes is None else classes)
    error = 0.0
    for m, t in zip(maps, targets, strict=True):
        error += ((minmax(m) - t) ** 2).mean()
    error /= len(maps)
    return a * cross_entropy(logits, labels) + (1 - a) * error


def heo(logits, labels, maps, mask, strength):
    """CE + strength mean((m - h)^2), h = ReLU map over its maximum, section 8.3."""
    total = 0.0
    for m in maps:
        h = np.maximum(m, 0)
        h = h / h.max() if h.max() > 0 else h
        total += ((mask - h) ** 2).mean()
    return cross_entropy(logits, labels) + strength * total / len(maps)


def entropy_loss(kind, maps, human=3.35):
    """DROID, FMMCE and HB-CAM, section 8.4."""
    values = [entropy(m) for m in maps]
    if kind == "droid":
        return sum(math.log(h + 1) for h in values) / len(values)
    mean = sum(values) / len(values)
    return mean if kind == "fmmce" else (mean - human) ** 2


def margin(logits, label, aggregator):
    others = np.delete(logits, label)
    if aggregator == "guideline":
        # Section 4.6 as read here: narrow residuals take the log-odds, broad ones the mean.
        middle = sum(others) / len(others)
        variance = sum((z - middle) ** 2 for z in others) / len(others)
        aggregator = "lse" if variance * len(others) <= 1 else "mean"
    if aggregator == "mean":
        return logits[label] - others.mean()
    if aggregator == "max":
        return logits[label] - others.max()
    return logits[label] - math.log(sum(math.exp(z) for z in others))
