"""Methods that attribute to the input or to all layers: loops over images, steps, samples and layers.

``score(x)`` maps one image ``(C, H, W)``, a double tensor, to a scalar tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from reference import steps


def gradient(score, x):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(score(x), x)[0].numpy()


def reduce(attribution, how):
    channels, height, width = attribution.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            values = [attribution[c, i, j] for c in range(channels)]
            if how == "abs_max":
                out[i, j] = max(abs(v) for v in values)
            elif how == "abs_sum":
                out[i, j] = sum(abs(v) for v in values)
            else:
                out[i, j] = sum(values)
    return out


def saliency(score, x, reduction="abs_max"):
    return reduce(gradient(score, x), reduction)


def input_x_gradient(score, x, reduction="abs_sum"):
    return reduce(x.numpy() * gradient(score, x), reduction)


def integrated_gradients(score, x, n, baseline=0.0, reduction="abs_sum"):
    """The path integral with as many midpoints as wanted."""
    total = np.zeros(tuple(x.shape))
    for step in range(n):
        a = (step + 0.5) / n
        total += gradient(score, baseline + a * (x - baseline)) / n
    return reduce((x.numpy() - baseline) * total, reduction)


def smoothgrad(score, x, draws, noise, squared=False, reduction="abs_max"):
    """``draws``: standard normal tensors, one per sample."""
    sigma = noise * (float(x.max()) - float(x.min()))
    total = np.zeros(tuple(x.shape))
    for draw in draws:
        found = gradient(score, x + sigma * draw)
        total += found**2 if squared else found
    return reduce(total / len(draws), reduction)


def _bias(layer, out):
    """The bias of one layer as an array like its output ``(channels, ...)``, ``None`` without one."""
    full = np.zeros(tuple(out.shape))
    if isinstance(layer, nn.Conv2d | nn.Linear):
        if layer.bias is None:
            return None
        for k in range(full.shape[0]):
            full[k] = layer.bias[k].item()
    elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
        for k in range(full.shape[0]):
            gamma = layer.weight[k].item() if layer.weight is not None else 1.0
            beta = layer.bias[k].item() if layer.bias is not None else 0.0
            mean, var = float(layer.running_mean[k]), float(layer.running_var[k])
            full[k] = beta - mean * gamma / (var + layer.eps) ** 0.5
    elif isinstance(layer, nn.Hardtanh):  # ReLU6 is one
        flat, values = full.reshape(-1), out.detach().numpy().reshape(-1)
        for n, value in enumerate(values):
            if value == layer.max_val:
                flat[n] = layer.max_val
            elif value == layer.min_val:
                flat[n] = layer.min_val
    else:
        return None
    return full


def fullgrad_terms(layers, score, x):
    """Input term, the bias terms of layers with a spatial output, and the sum of the others.

    Args:
        layers: modules run one after the other.
        score: from the last one's output (a vector) to a scalar.
        x: ``(C, H, W)``.
    """
    x = x.detach().clone().requires_grad_()
    h, seen = x[None], []
    for layer in layers:
        h = layer(h)
        seen.append((layer, h))
    Y = score(h[0])
    slopes = torch.autograd.grad(Y, [x] + [out for _, out in seen], allow_unused=True)
    input_term = x.detach().numpy() * slopes[0].numpy()
    spatial, other = [], 0.0
    for (layer, out), slope in zip(seen, slopes[1:], strict=True):
        bias = _bias(layer, out[0])
        if bias is None or slope is None:
            continue
        term = bias * slope[0].numpy()
        if term.ndim == 3:
            spatial.append(term)
        else:
            other += term.sum()
    return float(Y.detach()), input_term, spatial, other


def fullgrad(input_term, spatial, scale="channel"):
    size = input_term.shape[1:]
    total = np.zeros(size)
    for term in [input_term, *spatial]:
        psi = np.abs(term)
        if scale == "sample":
            low, high = psi.min(), psi.max()
            psi = (psi - low) / (high - low) if high > low else np.zeros(psi.shape)
        else:
            psi = np.stack([steps.normalise(channel) for channel in psi])
        for channel in psi:
            total += steps.resize(channel, size, align_corners=scale == "sample")
    return total
