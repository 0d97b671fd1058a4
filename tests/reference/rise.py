"""RISE, slowly: masks and sums pixel by pixel (spec 6.1)."""

import numpy as np


def _inside(at, s, border):
    if border == "reflect":
        at = -at if at < 0 else at
        at = 2 * (s - 1) - at if at > s - 1 else at
    return min(max(at, 0), s - 1)


def mask(numbers, s, p1, size, border="clamp"):
    """One mask (H, W) from s * s + 2 random numbers: the cells, then the offset."""
    height, width = size
    cell = (-(-height // s), -(-width // s))
    grid = [[1.0 if numbers[r * s + c] < p1 else 0.0 for c in range(s)] for r in range(s)]
    down, right = int(numbers[-2] * cell[0]), int(numbers[-1] * cell[1])
    large = ((s + 1) * cell[0], (s + 1) * cell[1])
    out = np.zeros(size)
    for i in range(height):
        for j in range(width):
            y = _inside((i + down + 0.5) * s / large[0] - 0.5, s, border)
            x = _inside((j + right + 0.5) * s / large[1] - 0.5, s, border)
            top, left = int(y), int(x)
            below, beside = min(top + 1, s - 1), min(left + 1, s - 1)
            a, b = y - top, x - left
            out[i, j] = (
                (1 - a) * (1 - b) * grid[top][left]
                + (1 - a) * b * grid[top][beside]
                + a * (1 - b) * grid[below][left]
                + a * b * grid[below][beside]
            )
    return out


def rise(score, masks, p1, debias=False):
    """``score`` from a mask to a number."""
    total, kept = np.zeros_like(masks[0]), np.zeros_like(masks[0])
    for one in masks:
        total += score(one) * one
        kept += one
    return np.where(kept > 0, total / np.where(kept > 0, kept, 1), 0) if debias else total / (
        len(masks) * p1
    )  # fmt: skip
