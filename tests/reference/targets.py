"""Targets with loops, one image at a time: specification sections 1.2, 3.1 and 10, and their gradients.

Each function returns the value and the list of derivatives with respect to the model's output.
"""

from __future__ import annotations

import math


def _one_hot(c, length):
    return [1.0 if j == c else 0.0 for j in range(length)]


def softmax(z):
    top = max(z)
    powers = [math.exp(value - top) for value in z]
    return [power / sum(powers) for power in powers]


def logit(z, c):
    return z[c], _one_hot(c, len(z))


def exp_logit(z, c):
    return math.exp(z[c]), [math.exp(z[c]) * d for d in _one_hot(c, len(z))]


def probability(z, c):
    p = softmax(z)
    return p[c], [p[c] * (d - p[j]) for j, d in enumerate(_one_hot(c, len(z)))]


def log_probability(z, c):
    p = softmax(z)
    return math.log(p[c]), [d - p[j] for j, d in enumerate(_one_hot(c, len(z)))]


def margin(z, c, aggregator):
    rivals = [j for j in range(len(z)) if j != c]
    weights = [0.0] * len(z)
    if aggregator == "mean":
        beta = sum(z[j] for j in rivals) / len(rivals)
        for j in rivals:
            weights[j] = 1 / len(rivals)
    elif aggregator == "max":
        best = rivals[0]
        for j in rivals:
            if z[j] > z[best]:
                best = j
        beta = z[best]
        weights[best] = 1.0
    else:
        top = max(z[j] for j in rivals)
        total = sum(math.exp(z[j] - top) for j in rivals)
        beta = top + math.log(total)
        if aggregator == "lae":
            beta -= math.log(len(rivals))
        for j in rivals:
            weights[j] = math.exp(z[j] - top) / total
    return z[c] - beta, [d - weights[j] for j, d in enumerate(_one_hot(c, len(z)))]


def _dot(a, b):
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += x * y
    return total


def dot_product(e, ref):
    return _dot(e, ref), list(ref)


def cosine(e, ref, detach_norms):
    own, other = math.sqrt(_dot(e, e)), math.sqrt(_dot(ref, ref))
    value = _dot(e, ref) / (own * other)
    slope = [r / (own * other) for r in ref]
    if not detach_norms:
        slope = [s - value * x / own**2 for s, x in zip(slope, e, strict=True)]
    return value, slope


def negative_distance(e, ref, squared):
    apart = [x - r for x, r in zip(e, ref, strict=True)]
    square = _dot(apart, apart)
    if squared:
        return -square, [-2 * d for d in apart]
    distance = math.sqrt(square)
    return -distance, [0.0 if distance == 0 else -d / distance for d in apart]


def cell(a, row, col, absolute):
    """``a[k][i][j]`` to the L1 norm (or sum) of one cell, and its derivatives by the cell's channels."""
    value, slope = 0.0, []
    for channel in a:
        entry = channel[row][col]
        value += abs(entry) if absolute else entry
        slope.append(((entry > 0) - (entry < 0)) * 1.0 if absolute else 1.0)
    return value, slope


def segmentation(z, c, mask):
    """``z[m][i][j]`` summed over a weighted region."""
    total = 0.0
    for i, row in enumerate(z[c]):
        for j, value in enumerate(row):
            total += mask[i][j] * value
    return total


def segmentation_region(z, c):
    """The pixels that the model assigns to the class, the first of equal ones."""
    height, width = len(z[0]), len(z[0][0])
    region = [[0.0] * width for _ in range(height)]
    for i in range(height):
        for j in range(width):
            scores = [z[m][i][j] for m in range(len(z))]
            region[i][j] = 1.0 if scores.index(max(scores)) == c else 0.0
    return region
