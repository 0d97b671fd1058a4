"""EigenGradCAM, ShapleyCAM, RefineCAM, Finer-CAM, attention rollout and LeGrad, slowly."""

import itertools
import math

import numpy as np
import torch


def eigen(products):
    """First principal component of (K, h, w), turned the way of the sum over channels."""
    k, h, w = products.shape
    rows = np.array([[products[c, i, j] for c in range(k)] for i in range(h) for j in range(w)])
    for c in range(k):
        rows[:, c] -= rows[:, c].mean()
    values, vectors = np.linalg.eigh(rows.T @ rows)
    component = rows @ vectors[:, values.argmax()]
    summed = rows.sum(1)
    if component @ summed < 0:
        component = -component
    return component.reshape(h, w)


def shapley_exact(utility, values):
    """Shapley values of a game: the players' values are present or 0; all orders are enumerated."""
    n = len(values)
    result = np.zeros(n)
    for player in range(n):
        others = [q for q in range(n) if q != player]
        for size in range(n):
            share = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for coalition in itertools.combinations(others, size):
                without = np.array([values[q] if q in coalition else 0.0 for q in range(n)])
                joined = without.copy()
                joined[player] = values[player]
                result[player] += share * (utility(joined) - utility(without))
    return result


def shapleycam(activation, gradient, hessian, form="mean"):
    """From A, g (K, h, w) and the full Hessian (K*h*w, K*h*w)."""
    k, h, w = activation.shape
    slope = gradient.reshape(-1) - 0.5 * hessian @ activation.reshape(-1)
    slope = slope.reshape(k, h, w)
    out = np.zeros((h, w))
    for c in range(k):
        for i in range(h):
            for j in range(w):
                weight = slope[c, i, j] if form == "elementwise" else slope[c].mean()
                out[i, j] += weight * activation[c, i, j]
    return out


def finer(logits, c, similar, alpha, weights):
    """Of one image's logits."""
    others = [d for d in range(len(logits)) if d != c]
    others.sort(key=lambda d: (abs(logits[d] - logits[c]), d))
    rivals = others[:similar]
    p = [math.exp(logits[d]) for d in rivals]
    share = [v / sum(p) if weights == "probability" else 1 / len(rivals) for v in p]
    return sum(s * (logits[c] - alpha * logits[d]) for s, d in zip(share, rivals, strict=True))


def rollout(attention, residual, heads="mean"):
    """``attention``: list of (heads, T, T)."""
    tokens = attention[0].shape[-1]
    flow = np.eye(tokens)
    for block in attention:
        fused = {"mean": np.mean, "max": np.max, "min": np.min}[heads](block, axis=0)
        mixed = np.zeros_like(fused)
        for i in range(tokens):
            total = fused[i].sum()
            for j in range(tokens):
                share = fused[i, j] / total if total > 0 else 0.0
                mixed[i, j] = (1 - residual) * share + residual * (i == j)
        flow = mixed @ flow
    return flow


def legrad(model, image, c):
    """Of a :class:`TinyViT` of the tests: block by block, each score from its own tokens."""
    z = model.embed(image[None])
    maps = []
    for block in model.blocks:
        z = z.detach()
        attention = block.weights(z).detach().requires_grad_()
        z = block.rest(z, attention)
        score = model.tail(z)[0, c]
        (gradient,) = torch.autograd.grad(score, attention)
        _, heads, tokens, _ = gradient.shape
        row = np.zeros(tokens)
        for h in range(heads):
            for i in range(tokens):
                for j in range(tokens):
                    row[j] += max(float(gradient[0, h, i, j]), 0) / (heads * tokens)
        maps.append(row)
    return maps
