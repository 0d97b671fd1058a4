"""Concentration and agreement of maps, slowly (spec 7.1, 7.2, 7.9 and the papers' equations)."""

import math

import numpy as np


def gini(one):
    """By its other definition: the mean absolute difference over twice the mean."""
    values = [abs(v) for v in one.flat]
    total = sum(values)
    if total == 0:
        return 0.0
    differences = sum(abs(a - b) for a in values for b in values)
    return differences / (2 * len(values) * total)


def minmax(one):
    low, high = one.min(), one.max()
    return np.zeros_like(one) if high == low else (one - low) / (high - low)


def cam_entropy(one, base=math.e):
    scaled = minmax(one)
    if scaled.sum() == 0:
        return 0.0
    found = 0.0
    for value in scaled.flat:
        p = value / (scaled.sum() + 1e-10) + 1e-10
        found -= p * math.log(p, base)
    return found


def complexity(one):
    total = sum(abs(v) for v in one.flat)
    shares = [abs(v) / total for v in one.flat]
    return -sum(p * math.log(p) for p in shares if p > 0)


def dead_zone(one, dead):
    kept = np.maximum(one, 0)
    total = math.sqrt(sum(v**2 for v in kept.flat))
    if total == 0:
        return 0.0
    return math.sqrt(sum(v**2 for v, d in zip(kept.flat, dead.flat, strict=True) if d)) / total


def mse(one, other):
    a, b = minmax(one), minmax(other)
    return sum((x - y) ** 2 for x, y in zip(a.flat, b.flat, strict=True)) / a.size


def ranks(values):
    """The mean of the places that a value could have."""
    below = [sum(w < v for w in values) for v in values]
    equal = [sum(w == v for w in values) for v in values]
    return [b + (e + 1) / 2 for b, e in zip(below, equal, strict=True)]


def pearson(a, b):
    a, b = list(a), list(b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        return math.nan
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    return top / math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))


def spearman(one, other):
    return pearson(ranks(list(one.flat)), ranks(list(other.flat)))


def ssim(one, other):
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for y in range(one.shape[0] - 10):
        for x in range(one.shape[1] - 10):
            a, b = one[y : y + 11, x : x + 11], other[y : y + 11, x : x + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            both = (window * (a - ma) * (b - mb)).sum()
            found.append(
                (2 * ma * mb + 0.01**2)
                * (2 * both + 0.03**2)
                / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))
            )
    return sum(found) / len(found)
