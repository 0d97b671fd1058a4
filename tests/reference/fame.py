"""FAME, slowly: one image at a time, loops over pixels, straight from spec 5.1 to 5.3."""

import math

import numpy as np
import torch


def descend_one(loss, image, iterations, step=1 / 255, epsilon=None):
    """``image`` (C, H, W) and a loss of one image; returns the moved image and the passes taken."""
    x = image.clone()
    for done in range(iterations):
        leaf = x.clone().requires_grad_()
        value = loss(leaf[None])[0]
        (gradient,) = torch.autograd.grad(value, leaf)
        largest = 0.0
        for v in gradient.flatten().tolist():
            largest = max(largest, abs(v))
        if largest < 1e-12 or (epsilon is not None and float(value) < epsilon):
            return x, done + 1
        x = x - step * gradient / largest
    return x, iterations


def gray(image):
    c, h, w = image.shape
    out = np.zeros((h, w))
    weights = [0.2989, 0.587, 0.114] if c == 3 else [1 / c] * c
    for k in range(c):
        for i in range(h):
            for j in range(w):
                out[i, j] += weights[k] * float(image[k, i, j])
    return out


def movement(moved, start, how="gray_then_abs"):
    if how == "gray_then_abs":
        return np.abs(gray(moved) - gray(start))
    if how == "abs_then_gray":
        return gray((moved - start).abs())
    d = (moved - start).abs().numpy()
    if how == "abs_mean":
        return d.mean(0)
    if how == "abs_max":
        return d.max(0)
    return np.sqrt((d**2).sum(0))


def mean_movement(loss, starts, iterations):
    """Of paths from several starts, each measured from its own start (spec 15.4)."""
    moved = [movement(descend_one(loss, one, iterations)[0], one) for one in starts]
    return sum(moved) / len(moved)


def blur(picture, sigma, kernel):
    h, w = picture.shape
    kernel = min(kernel, 2 * min(h, w) - 1)
    half = kernel // 2
    g = [math.exp(-0.5 * ((k - half) / sigma) ** 2) for k in range(kernel)]
    total = sum(g)
    g = [v / total for v in g]

    def mirror(i, n):
        if i < 0:
            return -i
        return 2 * (n - 1) - i if i >= n else i

    out = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            for a in range(kernel):
                for b in range(kernel):
                    value = picture[mirror(i + a - half, h), mirror(j + b - half, w)]
                    out[i, j] += g[a] * g[b] * value
    return out


def attribution(moved, start, sigma, kernel, how="gray_then_abs", normalise="max"):
    picture = blur(movement(moved, start, how), sigma, kernel)
    if normalise == "minmax":
        picture = picture - picture.min()
    return picture / picture.max() if picture.max() > 0 else picture * 0
