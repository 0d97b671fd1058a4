"""Insertion, deletion and the drops, slowly: one image and one step at a time (spec 7.7, 7.10)."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter


def blur(image, start="blur"):
    """(C, H, W), Gaussian 11 x 11, sigma 5, zeros outside; in RISE's code the kernel is a filtered point."""
    image = np.asarray(image, float)
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    if start == "rise":
        kernel = gaussian_filter(kernel, 5)
    else:
        for y in range(11):
            for x in range(11):
                kernel[y, x] = np.exp(-((y - 5) ** 2 + (x - 5) ** 2) / (2 * 5**2))
        kernel /= kernel.sum()
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 10, width + 10))
    padded[:, 5:-5, 5:-5] = image
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            out[:, y, x] = (padded[:, y : y + 11, x : x + 11] * kernel).sum((1, 2))
    return out


def path(model, begin, end, saliency, label, step):
    """Probabilities while pixels of ``begin`` become those of ``end``, the most relevant first."""
    values = np.asarray(saliency, float)
    cells = sorted(np.ndindex(values.shape), key=lambda c: -values[c])
    current, heights, done = begin.clone(), [], 0
    while True:
        with torch.no_grad():
            heights.append(float(model(current[None]).softmax(1)[0, label]))
        if done >= len(cells):
            return np.array(heights)
        for y, x in cells[done : done + step]:
            current[:, y, x] = end[:, y, x]
        done += step


def area(heights):
    return (sum(heights) - heights[0] / 2 - heights[-1] / 2) / (len(heights) - 1)


def drops(p, o):
    """Average Drop, Increase and Gain in percent."""
    return (
        100 * max(0.0, p - o) / p,
        100.0 if o > p else 0.0,
        100 * max(0.0, o - p) / (1 - p) if p < 1 else 0.0,
    )


def adcc(saliency, again, drop):
    """From the map, the map of the masked image, and the drop in [0, 1]."""
    a, b = np.asarray(saliency, float).ravel(), np.asarray(again, float).ravel()
    coherency = (np.corrcoef(a, b)[0, 1] + 1) / 2
    complexity = np.abs(a).sum() / a.size
    return 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop)), coherency, complexity
