"""Face methods and the verification protocol, slowly: loops straight from spec 6.2, 6.3 and 7.8."""

import math

import numpy as np
import torch


def average_ranks(values):
    """Ranks from 1; equal values share the mean of the places that they take."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def correlation(a, b):
    """Pearson with population deviations; 0 where one of them does not vary."""
    n = len(a)
    mean_a, mean_b = sum(a) / n, sum(b) / n
    cov = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / n
    dev_a = math.sqrt(sum((x - mean_a) ** 2 for x in a) / n)
    dev_b = math.sqrt(sum((y - mean_b) ** 2 for y in b) / n)
    return cov / (dev_a * dev_b) if dev_a > 1e-14 and dev_b > 1e-14 else 0.0


def corrrise(masks, scores, rank_based):
    """Signed correlation (H, W) from masks (M, H, W) and scores (M,)."""
    scores = average_ranks(scores) if rank_based else list(scores)
    _, height, width = masks.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            keep = [float(m[i, j]) for m in masks]
            out[i, j] = correlation(average_ranks(keep) if rank_based else keep, scores)
    return out


def fggb(embed, image, reference, theta, eps=1e-8):
    """Signed map (H, W) of one image (C, H, W), one dimension after the other."""
    x = image.clone().requires_grad_()
    f = embed(x[None])[0]
    f = f / f.norm()
    g = reference / reference.norm()
    total = np.zeros(tuple(image.shape[1:]))
    weights = []
    for k in range(len(f)):
        (gradient,) = torch.autograd.grad(f[k], x, retain_graph=True)
        size = np.zeros(tuple(image.shape[1:]))
        for c in range(image.shape[0]):
            size += np.abs(gradient[c].numpy()) / image.shape[0]
        size = size / (math.sqrt(float((size**2).sum())) + eps)
        weight = float(f[k].detach() * g[k]) - theta / len(f)
        weights.append(weight)
        total += weight * size
    return total, weights


def eer_threshold(genuine, impostor):
    """The first threshold, from the largest down, with the smallest |FMR - FNMR|."""
    best, where = math.inf, math.nan
    for t in sorted(set(genuine) | set(impostor), reverse=True):
        fmr = sum(s >= t for s in impostor) / len(impostor)
        fnmr = sum(s < t for s in genuine) / len(genuine)
        if abs(fmr - fnmr) < best:
            best, where = abs(fmr - fnmr), t
    return where


def percentile(values, q):
    """Linear interpolation between the sorted values."""
    values = sorted(values)
    at = q / 100 * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def altered(pixels, attribution, p, insert):
    """Pixels (C, H, W) in [0, 1]: Delete blackens those above percentile(100 - P), Insert keeps them."""
    limit = percentile(attribution.flatten().tolist(), 100 - p)
    out = pixels.clone()
    for i in range(pixels.shape[1]):
        for j in range(pixels.shape[2]):
            above = float(attribution[i, j]) > limit
            if above != insert:
                out[:, i, j] = 0
    return out


def accuracy(scores, same, theta):
    right = 0
    for score, genuine in zip(scores, same, strict=True):
        right += (score >= theta) == bool(genuine)
    return right / len(scores)


def auc(heights, percentages):
    """Trapezoids over P, divided by 100, times 100."""
    area = 0.0
    for k in range(len(heights) - 1):
        area += (heights[k] + heights[k + 1]) / 2 * (percentages[k + 1] - percentages[k])
    return area / 100 * 100
