"""Slow, obvious versions of what aligns faces."""

from __future__ import annotations

import numpy as np


def similarity(source, target):
    """Solve q = (a, -b; b, a) p + t for a, b, t by least squares."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, -y, 1, 0])
        right.append(u)
        rows.append([y, x, 0, 1])
        right.append(v)
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def warp(photo, matrix, width, height):
    """Each pixel of the result from the four around its place in the photo; black outside."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    out = np.zeros((height, width, 3))
    rows, columns = photo.shape[:2]
    for v in range(height):
        for u in range(width):
            x, y = np.linalg.solve(linear, np.array([u, v]) - shift)
            if not (-0.5 <= x < columns - 0.5 and -0.5 <= y < rows - 0.5):
                continue
            left, top = int(np.floor(x)), int(np.floor(y))
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
                    column = min(max(left + dx, 0), columns - 1)
                    row = min(max(top + dy, 0), rows - 1)
                    out[v, u] += weight * photo[row, column]
    return out
