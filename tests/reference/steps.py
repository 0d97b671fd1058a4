"""Post-processing with loops: specification section 1.5. Maps are numpy arrays ``(h, w)``."""

from __future__ import annotations

import math

import numpy as np


def rectify(L):
    return np.array([[max(0.0, value) for value in row] for row in L])


def normalise(L, how="minmax", eps=0.0):
    if how == "none":
        return L.copy()
    low = min(min(row) for row in L) if how == "minmax" else 0.0
    shifted = np.array([[value - low for value in row] for row in L])
    top = max(max(row) for row in shifted)
    if top <= 0:
        return np.zeros(L.shape)
    return np.array([[value / (top + eps) for value in row] for row in shifted])


def resize(L, size, align_corners=False):
    """Bilinear, half-pixel centres, the border repeated; or corners on corners."""
    height, width = L.shape
    out = np.zeros(size)
    for i in range(size[0]):
        y = max(0.0, (i + 0.5) * height / size[0] - 0.5)
        if align_corners:
            y = i * (height - 1) / max(size[0] - 1, 1)
        top = min(math.floor(y), height - 1)
        below = min(top + 1, height - 1)
        for j in range(size[1]):
            x = max(0.0, (j + 0.5) * width / size[1] - 0.5)
            if align_corners:
                x = j * (width - 1) / max(size[1] - 1, 1)
            left = min(math.floor(x), width - 1)
            right = min(left + 1, width - 1)
            a, b = y - top, x - left
            # In this form a constant map stays exactly constant.
            above = L[top, left] + b * (L[top, right] - L[top, left])
            under = L[below, left] + b * (L[below, right] - L[below, left])
            out[i, j] = above + a * (under - above)
    return out


def _mirror(position, length):
    """Reflect about the border pixels, which are not repeated."""
    while not 0 <= position < length:
        position = -position if position < 0 else 2 * (length - 1) - position
    return position


def smooth(L, sigma, kernel):
    """Two-dimensional Gaussian, reflected at the border."""
    height, width = L.shape
    reach = kernel // 2
    out = np.zeros(L.shape)
    for i in range(height):
        for j in range(width):
            total = 0.0
            for di in range(-reach, reach + 1):
                for dj in range(-reach, reach + 1):
                    weight = math.exp(-(di * di + dj * dj) / (2 * sigma * sigma))
                    total += weight
                    out[i, j] += weight * L[_mirror(i + di, height), _mirror(j + dj, width)]
            out[i, j] /= total
    return out


def finish(L, size):
    """A CAM's default: ReLU, resize, min-max."""
    return normalise(resize(rectify(L), size))


def pytorch_grad_cam(layers, size):
    """The preset: per layer ReLU, scale with 1e-7, resize; mean over layers, ReLU, scale again."""
    total = np.zeros(size)
    for L in layers:
        total += resize(normalise(rectify(L), eps=1e-7), size)
    return normalise(rectify(total / len(layers)), eps=1e-7)
