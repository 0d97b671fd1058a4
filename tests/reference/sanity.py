"""Sanity checks written out: slow, obvious, straight from the formulas."""

import numpy as np
import torch
import torch.nn.functional as F


def ranks(values):
    """Mean ranks from 1, one by one."""
    values = list(values)
    return [
        sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2
        for one in values
    ]


def rank_correlation(a, b):
    """Spearman's: Pearson's of the ranks."""
    return np.corrcoef(ranks(a.flatten().tolist()), ranks(b.flatten().tolist()))[0, 1]


def shifted_first_layer(x, weight, bias, padding, stride, shift):
    """What a convolution of shifted images gives whose padding is shifted too and whose bias makes up for it."""
    padded = F.pad(x, (padding,) * 4, value=shift)
    less = shift * weight.sum((1, 2, 3))
    return F.conv2d(padded, weight, bias - less, stride=stride)


def gradcam_of_gap(activation, rows, classes):
    """Grad-CAM, not rectified, in front of pooling and one linear layer: rows over the number of cells."""
    n, k, h, w = activation.shape
    found = torch.zeros(n, h, w, dtype=activation.dtype)
    for i in range(n):
        for channel in range(k):
            found[i] += rows[classes[i], channel] / (h * w) * activation[i, channel]
    return found
