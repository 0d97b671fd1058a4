"""Grad-CAM++ in its three forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.errors import MethodError
from camlucida.common.limits import NotNegative
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import Grid
from camlucida.engine.maps import rectify
from camlucida.methods.base import GradientCAM, RawMap, assemble, weigh
from camlucida.methods.registry import register
from camlucida.methods.task import Task
from camlucida.targets import LogitMargin

Form = Literal["exp", "true", "tf_original"]

_LINEAR = (
    "the target has no second derivative at the layer (a logit behind a piecewise linear head), where "
    "alpha is 0/0 and taken as 0; explain ExpLogit or Probability, or use form='exp'"
)


@register(
    "diffgradcam++",
    use="As DiffGradCAM, for photos with several objects of the class.",
    paper="Piland, Sweet & Czajka 2026 (abstract only)",
    year=2026,
    equation="our reconstruction",
    target=LogitMargin,
    remark="a reconstruction: Grad-CAM++ with the logit replaced by the margin",
    needs=("gradients", "classes"),
    weights="channel",
    quick_audits=False,
)
@register(
    "gradcam++",
    use="Photos with several objects of the class, of which Grad-CAM may show one.",
    paper="Chattopadhyay et al. 2018",
    year=2018,
    equation="19",
    weights="channel",
)
@dataclass(frozen=True)
class GradCAMpp(GradientCAM):
    r"""Positive gradients weighted by second and third derivatives.

    $w_k = \sum_{ij} \alpha^k_{ij} \mathrm{ReLU}(\partial Y/\partial A^k_{ij})$ with
    $\alpha^k_{ij} = Y'' / (2 Y'' + Y''' \sum_{ab} A^k_{ab})$, derivatives with respect to the single
    entry $A^k_{ij}$, and $L = \mathrm{ReLU}(\sum_k w_k A^k)$.

    Attributes:
        form: ``"exp"`` (default; equation 19) takes Y = exp(S) with S locally linear in A, so that
            $\alpha = 1 / (2 + g \sum A)$ where $g \neq 0$ and 0 elsewhere; ``"true"`` differentiates the
            target itself, entry by entry, and is meant for small maps; ``"tf_original"`` is ``"exp"`` with
            alpha divided by its sum over the entries of positive gradient, as the authors' code does.
        eps: added to the undivided denominator $2 g^2 + g^3 \sum A$ of the exp form, 0 by default.
            pytorch-grad-cam uses 1e-6, which swamps $g^2$ on networks with global average pooling.
        max_entries: with ``form="true"``, the largest number of entries K * h * w accepted.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.GradCAMpp(form="tf_original"))
    """

    form: Form = "exp"
    eps: NotNegative = 0.0
    max_entries: int = 4096

    def alpha(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The weights alpha of the exp form, ``(N, K, h, w)``; a zero denominator gives 0."""
        mass = activation.sum(dim=(2, 3), keepdim=True)
        if self.eps:
            square = gradient.square()
            alpha = _divide(square, 2 * square + square * gradient * mass + self.eps)
        else:
            alpha = _divide(torch.ones_like(gradient), 2 + gradient * mass)
        alpha = torch.where(gradient != 0, alpha, 0)
        if self.form == "tf_original":
            total = torch.where(gradient > 0, alpha, 0).sum(dim=(2, 3), keepdim=True)
            alpha = alpha / torch.where(total != 0, total, 1)
        return alpha

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        return _combined(activation, gradient, self.alpha(activation, gradient))

    def run(self, task: Task) -> RawMap:
        """One tap for all layers; the true form then differentiates each entry twice more."""
        if self.form != "true":
            return super().run(task)
        with borrowed(task.model, task.inputs) as module:
            task = replace(task, model=module)
            rules = task.grid.values() if isinstance(task.grid, Mapping) else [task.grid or Grid()]
            if not all(isinstance(rule, Grid) for rule in rules):
                raise MethodError(
                    "gradcam++ form='true' differentiates single entries of the map and needs a Grid, not a "
                    "function from the layer's output"
                )
            tapped = task.tap(differentiable=True)
            alphas = {
                name: self._true_alpha(activation, tapped.gradients[name], task)
                for name, activation in tapped.activations.items()
            }
        linear = torch.stack([~a.flatten(1).any(1) for a in alphas.values()]).all(0)
        return assemble(
            self,
            task,
            tapped,
            lambda name, a, g: _combined(a.detach(), g.detach(), alphas[name]),
            notes={int(i): [_LINEAR] for i in linear.nonzero()[:, 0]},
        )

    def _true_alpha(self, activation: Tensor, gradient: Tensor, task: Task) -> Tensor:
        entries = activation[0].numel()
        if entries > self.max_entries:
            raise MethodError(
                f"gradcam++ form='true' differentiates every entry, and a map of shape "
                f"{tuple(activation.shape[1:])} has {entries}; allow it with max_entries={entries} or use "
                "form='exp'"
            )
        second = torch.zeros_like(activation).flatten(1)
        third = torch.zeros_like(second)
        first = gradient.flatten(1)
        for entry in range(entries):
            second[:, entry] = _diagonal(first[:, entry], activation, entry, third)
            task.report(entry + 1, entries)
        second, third = second.view_as(activation), third.view_as(activation)
        mass = activation.detach().sum(dim=(2, 3), keepdim=True)
        return _divide(second, 2 * second + mass * third)


def _combined(activation: Tensor, gradient: Tensor, alpha: Tensor) -> Tensor:
    return weigh((alpha * rectify(gradient)).sum(dim=(2, 3)), activation)


def _diagonal(first: Tensor, activation: Tensor, entry: int, third: Tensor) -> Tensor:
    """Second derivative with respect to one entry per image; writes the third."""
    if not first.requires_grad:
        return torch.zeros_like(third[:, entry])
    (row,) = torch.autograd.grad(first.sum(), activation, create_graph=True, materialize_grads=True)
    diagonal = row.flatten(1)[:, entry]
    if diagonal.requires_grad:
        (row,) = torch.autograd.grad(
            diagonal.sum(), activation, retain_graph=True, materialize_grads=True
        )
        third[:, entry] = row.flatten(1)[:, entry]
    return diagonal.detach()


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient with 0 where the denominator is 0."""
    some = denominator != 0
    return torch.where(some, numerator / torch.where(some, denominator, 1), 0)
