"""I-CAM in loops and plain numpy, float64, one image at a time, straight from the equations."""

import math

import numpy as np
import torch


def perturbed(image, noise, uniform, alpha, convention):  # eq. 4
    out = np.zeros_like(image)
    keep = 1 - alpha if convention == "keep" else alpha
    for c in range(image.shape[0]):
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                if uniform[0, i, j] < keep:
                    out[c, i, j] = image[c, i, j] + alpha * noise[c, i, j]
    return out


def ssim(x, y, extent):  # eq. 7, one statistic over all pixels and channels
    x, y = x.ravel(), y.ravel()
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    cov = sum((a - x.mean()) * (b - y.mean()) for a, b in zip(x, y, strict=True)) / len(x)
    top = (2 * x.mean() * y.mean() + c1) * (2 * cov + c2)
    return top / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2))


def svim(s, sigma=1 / 6):  # eq. 6
    return math.exp(-((s - 0.5) ** 2) / (2 * sigma**2))


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kl(p, q):
    return float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))


def mdd(p, q):  # eq. 8
    return float(sum(0.5 * (a - b) * math.log(a / b) for a, b in zip(p, q, strict=True)))


def weight(svim_value, mds_value):  # eq. 5 with the clamp
    return math.sqrt(svim_value * max(mds_value, 0.0))


def bilinear(a, size):  # half-pixel centres
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * a.shape[0] / size[0] - 0.5, 0), a.shape[0] - 1)
            x = min(max((j + 0.5) * a.shape[1] / size[1] - 0.5, 0), a.shape[1] - 1)
            r, c = int(y), int(x)
            r1, c1 = min(r + 1, a.shape[0] - 1), min(c + 1, a.shape[1] - 1)
            u, v = y - r, x - c
            out[i, j] = (1 - u) * ((1 - v) * a[r, c] + v * a[r, c1]) + u * (
                (1 - v) * a[r1, c] + v * a[r1, c1]
            )
    return out


def frobenius(a):
    return np.sqrt((a**2).sum(0))


def distance(image, image_gradient, activation, gradient):  # eq. 3 without the sum over copies
    at_input = frobenius(image * image_gradient)
    phi = frobenius(np.maximum(activation * gradient, 0))
    return math.sqrt(((at_input - bilinear(phi, at_input.shape)) ** 2).sum())


def select(scores, coverage=0.95):  # eq. 11-13
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # stable
    kept, held = [], 0.0
    for i in order:
        kept.append(i)
        held += scores[i]
        if held >= coverage * sum(scores) - 1e-9 * sum(scores):
            break
    return kept


def layer_weights(scores, coverage=0.95):  # eq. 14
    if sum(scores) == 0:
        return [1 / len(scores)] * len(scores)
    kept = select(scores, coverage)
    total = sum(scores[i] for i in kept)
    return [scores[i] / total if i in kept else 0.0 for i in range(len(scores))]


def softmax_derivatives(y):  # eq. 29-31
    return y * (1 - y), y * (1 - 3 * y + 2 * y**2), y * (1 - 7 * y + 12 * y**2 - 6 * y**3)


def alpha(activation, gradient, d2, d3):  # eq. 25, from eq. 17 with eq. 24
    out = np.zeros_like(gradient)
    for k in range(gradient.shape[0]):
        mass = activation[k].sum()
        for i in range(gradient.shape[1]):
            for j in range(gradient.shape[2]):
                g = gradient[k, i, j]
                top, bottom = d2 * g**2, 2 * d2 * g**2 + mass * d3 * g**3
                out[k, i, j] = 0 if top == 0 else math.inf if bottom == 0 else top / bottom
    return out


def layer_map(activation, gradient, alphas, d1, score, bias, form):  # eq. 20, 26-28
    out = np.zeros(activation.shape[1:])
    w = np.tanh(alphas) * np.maximum(d1 * gradient, 0)
    for k in range(activation.shape[0]):
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                b = 0.0
                if bias == "channel" and form == "product_of_sums":
                    b = score - w[k].sum() * activation[k].sum()
                elif bias == "channel":
                    b = score - (w[k] * activation[k]).sum()
                elif bias == "spatial":
                    b = score - w[k, i, j] * activation[k].sum()
                out[i, j] += w[k, i, j] * activation[k, i, j] + b
    return out


def minmax(a):
    spread = a.max() - a.min()
    return np.zeros_like(a) if spread == 0 else (a - a.min()) / spread


def icam(  # the whole of I-CAM for one image, float64
    head, image, names, noises, uniforms, *, level=0.4, bias="channel", form="product_of_sums",
    coverage=0.95, convention="keep",
):  # fmt: skip
    """``head(x)`` gives logits and a dictionary of activations in the graph."""

    def look(x, cls=None):
        x = torch.tensor(x[None], dtype=torch.float64, requires_grad=True)
        logits, maps = head(x)
        cls = int(logits[0].argmax()) if cls is None else cls
        grads = torch.autograd.grad(logits[0, cls], [x, *(maps[n] for n in names)])
        maps = {n: maps[n][0].detach().numpy() for n in names}
        gradients = dict(zip(names, (g[0].numpy() for g in grads[1:]), strict=True))
        return cls, logits[0].detach().numpy(), grads[0][0].numpy(), maps, gradients

    cls, logits, at_input, maps, gradients = look(image)
    p = softmax(logits)
    scores, counted = np.zeros(len(names)), []
    for noise, uniform in zip(noises, uniforms, strict=True):
        copy = perturbed(image, noise, uniform, level, convention)
        _, other, _, copy_maps, copy_gradients = look(copy, cls)
        s = svim(ssim(image, copy, image.max() - image.min()))
        counted.append(weight(s, 1 - mdd(p, softmax(other))))
        for at, name in enumerate(names):
            d = distance(image, at_input, copy_maps[name], copy_gradients[name])
            scores[at] += counted[-1] * d
    assert any(counted)
    weights = layer_weights(list(scores), coverage)
    d1, d2, d3 = softmax_derivatives(p[cls])
    fused = np.zeros(image.shape[1:])
    for at, name in enumerate(names):
        a = alpha(maps[name], gradients[name], d2, d3)
        one = layer_map(maps[name], gradients[name], a, d1, logits[cls], bias, form)
        fused += weights[at] * bilinear(one, fused.shape)
    return minmax(fused), scores, weights, counted
