"""The theory of walls and the dead-zone measure, slowly and obviously."""

from __future__ import annotations

import math

import torch

from reference import steps


def gradcam_by_loops(image, filters, weights, *, pool):
    """GradCAM at the ReLU of [CNN] with one dense layer whose lower rows are zero, cell by cell.

    ``image`` (H, W); ``filters`` (V, k*k); ``weights`` (V, seen rows, columns) of the pooled map.
    """
    k = math.isqrt(filters.shape[1])
    h, w = image.shape[0] - k + 1, image.shape[1] - k + 1
    total = torch.zeros(h, w, dtype=torch.float64)
    for f, weight in zip(filters, weights, strict=True):
        kernel = f.reshape(k, k)
        rectified = torch.zeros(h, w, dtype=torch.float64)
        for i in range(h):
            for j in range(w):
                value = float((kernel * image[i : i + k, j : j + k]).sum())
                rectified[i, j] = max(value, 0.0)
        gradient = torch.zeros(h, w, dtype=torch.float64)
        for r in range(weight.shape[0]):
            for c in range(weight.shape[1]):
                window = rectified[r * pool : (r + 1) * pool, c * pool : (c + 1) * pool]
                at = int(window.argmax())
                gradient[r * pool + at // pool, c * pool + at % pool] = weight[r, c]
        total += gradient.sum() / (h * w) * rectified
    return total.clamp_min(0)


def root_by_integration(filters):
    """E of the norm of ``filters`` rectified standard normals, from the chi densities on a fine grid."""
    r = torch.linspace(0, 40, 400_001, dtype=torch.float64)
    total = 0.0
    for n in range(1, filters + 1):
        log = (1 - n / 2) * math.log(2) - math.lgamma(n / 2)
        density = torch.exp(torch.tensor(log)) * r ** (n - 1) * torch.exp(-(r**2) / 2)
        total += math.comb(filters, n) / 2**filters * float(torch.trapezoid(r * density, r))
    return total


def mu_by_loops(attribution, dead):
    """WALL equation 7 on one rectified map ``(h, w)``."""
    inside = whole = 0.0
    for r in range(attribution.shape[0]):
        for c in range(attribution.shape[1]):
            square = max(float(attribution[r, c]), 0.0) ** 2
            whole += square
            inside += square if dead[r, c] else 0.0
    return math.sqrt(inside / whole) if whole else 0.0


def residual_features(image, filters, branch):
    """Of the residual [CNN]: rectified convolution x, then the rectified sum of x and its 3 x 3 convolution, by loops.

    ``image`` (H, W); ``filters`` (V, k, k); ``branch`` (V, V, 3, 3).
    """
    k = filters.shape[1]
    h, w = image.shape[0] - k + 1, image.shape[1] - k + 1
    x = torch.zeros(len(filters), h, w, dtype=torch.float64)
    for v, kernel in enumerate(filters):
        for i in range(h):
            for j in range(w):
                x[v, i, j] = max(float((kernel * image[i : i + k, j : j + k]).sum()), 0.0)
    out = torch.zeros_like(x)
    for v in range(len(filters)):
        for i in range(h):
            for j in range(w):
                total = float(x[v, i, j])
                for di in range(3):
                    for dj in range(3):
                        r, c = i + di - 1, j + dj - 1
                        if 0 <= r < h and 0 <= c < w:
                            total += float((branch[v, :, di, dj] * x[:, r, c]).sum())
                out[v, i, j] = max(total, 0.0)
    return out


def mean_scores(attribution, dead):
    """Means of a map, rectified, enlarged to the image and divided by its maximum, on dead and on other pixels."""
    large = steps.resize(attribution.clamp_min(0).numpy(), tuple(dead.shape))
    top = large.max() or 1.0
    inside, outside = [], []
    for r in range(dead.shape[0]):
        for c in range(dead.shape[1]):
            (inside if dead[r, c] else outside).append(large[r, c] / top)
    return sum(inside) / len(inside), sum(outside) / len(outside)
