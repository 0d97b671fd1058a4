"""ROAD, slowly: the sparse system of noisy linear imputation, masks by sorting, scores image by image."""

import numpy as np
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

WEIGHTS = {(dy, dx): (1 / 6 if dy * dx == 0 else 1 / 12) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
del WEIGHTS[0, 0]


def linear(image, removed):
    """(C, H, W) with removed pixels (H, W) solved for; spec 7.4, without noise."""
    image, removed = np.asarray(image, float), np.asarray(removed)
    height, width = removed.shape
    out = image.copy()
    if removed.all():
        out[:] = image.mean((1, 2))[:, None, None]
        return out
    unknown = {tuple(p): k for k, p in enumerate(np.argwhere(removed))}
    if not unknown:
        return out
    matrix, right = lil_matrix((len(unknown),) * 2), np.zeros((len(unknown), len(image)))
    for (y, x), k in unknown.items():
        for (dy, dx), w in WEIGHTS.items():
            v, u = y + dy, x + dx
            if not (0 <= v < height and 0 <= u < width):
                continue
            matrix[k, k] += w
            if (v, u) in unknown:
                matrix[k, unknown[v, u]] -= w
            else:
                right[k] += w * image[:, v, u]
    solved = spsolve(matrix.tocsc(), right).reshape(len(unknown), -1)
    for (y, x), k in unknown.items():
        out[:, y, x] = solved[k]
    return out


def by_percentile(saliency, p, order="morf"):
    """(H, W) bool: numpy's percentile."""
    values = np.asarray(saliency, float) * (1 if order == "morf" else -1)
    return values > np.percentile(values, 100 - p)


def by_rank(saliency, p, order="morf"):
    """Exactly round(P H W / 100), the first among equals first."""
    values = np.asarray(saliency, float)
    sign = -1 if order == "morf" else 1
    cells = sorted(np.ndindex(values.shape), key=lambda c: sign * values[c])
    removed = np.zeros(values.shape, bool)
    for cell in cells[: round(p * values.size / 100)]:
        removed[cell] = True
    return removed


def road(model, pixels, saliency, label, normalise, percentages, order, rule, imputer="linear"):
    """For one image (C, H, W): probability, accuracy and logit drop at each percentage, without noise."""
    rows = []
    with torch.no_grad():
        clean = model(normalise(pixels)[None])[0, label]
        for p in percentages:
            removed = {"percentile": by_percentile, "rank": by_rank}[rule](saliency, p, order)
            if imputer == "linear":
                changed = torch.from_numpy(linear(pixels, removed))
            else:
                fill = 0 if imputer == "zero" else pixels.mean((1, 2), keepdim=True)
                changed = torch.where(torch.from_numpy(removed), fill, pixels)
            z = model(normalise(changed)[None])[0]
            rows.append([z.softmax(0)[label], z.argmax() == label, clean - z[label]])
    return np.array(rows, float).T
