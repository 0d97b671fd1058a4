"""The CAM family, one image at a time, with loops: specification sections 2.1 to 2.11.

``A`` and ``G`` are numpy arrays ``(K, h, w)`` in double precision: activation and gradient. All maps are
signed, that is before the ReLU of ``L = ReLU(...)``.
"""

from __future__ import annotations

import numpy as np
import torch


def _weighted(weights, A):
    channels, height, width = A.shape
    L = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                L[i, j] += weights[k] * A[k, i, j]
    return L


def cam(A, W_row):
    """2.1: the class's row of the linear head."""
    return _weighted(W_row, A)


def gradcam_weights(G):
    channels, height, width = G.shape
    weights = []
    for k in range(channels):
        total = 0.0
        for i in range(height):
            for j in range(width):
                total += G[k, i, j]
        weights.append(total / (height * width))
    return weights


def gradcam(A, G):
    """2.2."""
    return _weighted(gradcam_weights(G), A)


def xgradcam(A, G, norm="sum"):
    """2.4: both norms; a channel that sums to zero gets no weight."""
    channels, height, width = A.shape
    weights = []
    for k in range(channels):
        mass, product = 0.0, 0.0
        for i in range(height):
            for j in range(width):
                mass += abs(A[k, i, j]) if norm == "l1" else A[k, i, j]
                product += A[k, i, j] * G[k, i, j]
        weights.append(0.0 if mass == 0 else product / mass)
    return _weighted(weights, A)


def hirescam(A, G):
    """2.5: products summed over channels."""
    channels, height, width = A.shape
    L = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                L[i, j] += G[k, i, j] * A[k, i, j]
    return L


def gradcam_ew(A, G):
    """2.6: ReLU of every product, then the sum."""
    channels, height, width = A.shape
    L = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                L[i, j] += max(0.0, G[k, i, j] * A[k, i, j])
    return L


def layercam(A, G):
    """2.7: positive gradients times activation."""
    channels, height, width = A.shape
    L = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                L[i, j] += max(0.0, G[k, i, j]) * A[k, i, j]
    return L


def _mass(A, k):
    total = 0.0
    for row in A[k]:
        for value in row:
            total += value
    return total


def alpha_exp(A, G, eps=0.0):
    """2.3 form exp: g^2 / (2 g^2 + sum(A) g^3 + eps), 0 where g or the denominator is 0."""
    channels, height, width = A.shape
    alpha = np.zeros(A.shape)
    for k in range(channels):
        mass = _mass(A, k)
        for i in range(height):
            for j in range(width):
                g = G[k, i, j]
                if g == 0:
                    continue
                if eps == 0:
                    below = 2 + g * mass
                    alpha[k, i, j] = 0.0 if below == 0 else 1 / below
                else:
                    below = 2 * g**2 + mass * g**3 + eps
                    alpha[k, i, j] = 0.0 if below == 0 else g**2 / below
    return alpha


def alpha_tf_original(A, G):
    """2.3 form tf_original: per channel divided by its sum over the entries of positive gradient."""
    channels, height, width = A.shape
    alpha = alpha_exp(A, G)
    for k in range(channels):
        total = 0.0
        for i in range(height):
            for j in range(width):
                if G[k, i, j] > 0:
                    total += alpha[k, i, j]
        alpha[k] /= total if total != 0 else 1.0
    return alpha


def alpha_true(score, activation):
    """2.3 form true: nested directional derivatives of the score along each single entry.

    Args:
        score: function of a double tensor ``(K, h, w)``, to a scalar tensor.
        activation: the tensor.
    """
    A = activation.detach()
    channels, height, width = A.shape
    alpha = np.zeros(tuple(A.shape))
    for k in range(channels):
        mass = _mass(A.numpy(), k)
        for i in range(height):
            for j in range(width):
                entry = torch.zeros_like(A)
                entry[k, i, j] = 1.0

                def first(a, e=entry):
                    return torch.func.jvp(score, (a,), (e,))[1]

                def second(a, e=entry, f=first):
                    return torch.func.jvp(f, (a,), (e,))[1]

                with torch.no_grad():
                    Y_ii, Y_iii = torch.func.jvp(second, (A,), (entry,))
                below = 2 * float(Y_ii) + mass * float(Y_iii)
                alpha[k, i, j] = 0.0 if below == 0 else float(Y_ii) / below
    return alpha


def gradcampp(A, G, alpha):
    """2.3: w_k = sum of alpha * ReLU(gradient)."""
    channels, height, width = A.shape
    weights = []
    for k in range(channels):
        total = 0.0
        for i in range(height):
            for j in range(width):
                total += alpha[k, i, j] * max(0.0, G[k, i, j])
        weights.append(total)
    return _weighted(weights, A)


def eigencam(A, center=True):
    """2.11 without its sign: the eigenvector of the channels' Gram matrix with the largest eigenvalue.

    Returns:
        The map, and how far the two largest eigenvalues lie apart (as a share of the largest).
    """
    channels, height, width = A.shape
    rows = []
    for i in range(height):
        for j in range(width):
            rows.append([A[k, i, j] for k in range(channels)])  # noqa: PERF401
    if center:
        for k in range(channels):
            mean = sum(row[k] for row in rows) / len(rows)
            for row in rows:
                row[k] -= mean
    gram = np.zeros((channels, channels))
    for row in rows:
        for a in range(channels):
            for b in range(channels):
                gram[a, b] += row[a] * row[b]
    values, vectors = np.linalg.eigh(gram)
    first = vectors[:, -1]
    L = np.zeros((height, width))
    for n, row in enumerate(rows):
        L[n // width, n % width] = sum(row[k] * first[k] for k in range(channels))
    if values[-1] <= 0:
        return np.zeros((height, width)), 0.0
    return L, 1.0 if channels == 1 else (values[-1] - values[-2]) / values[-1]


def eigencam_sign(L, center=True):
    """2.11's sign rule."""
    flip = abs(L.min()) > abs(L.max()) if center else L.sum() < 0
    return -L if flip else L
