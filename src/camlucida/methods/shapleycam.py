"""ShapleyCAM: second-order weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camlucida.common.errors import MethodError
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import Grid, Layers
from camlucida.engine.tap import tap
from camlucida.methods.base import Context, Method, RawMap, assemble
from camlucida.methods.refinecam import Form
from camlucida.methods.registry import Cost, register
from camlucida.targets import Logit, Target
from camlucida.targets.finer import ResidualSoftmax


@register(
    "shapleycam",
    paper="Cai 2025",
    year=2025,
    equation="second-order Taylor expansion of the game's utility",
    remark="Grad-CAM where the target is linear in the layer",
    needs=("second derivatives",),
    cost=Cost(forward=1, head_backward=2),
    weights="channel",
    quick_audits=False,
)
@dataclass(frozen=True)
class ShapleyCAM(Method):
    r"""Grad-CAM with the Shapley values of a second-order expansion instead of the gradient.

    The cells of $A$ are the players of a game whose utility is the target with the absent ones set to 0.
    For the target's second-order expansion at $A$ the Shapley value of a cell is
    $A \odot (g - \tfrac12 H A)$, with gradient $g$ and Hessian $H$ of the target with respect to $A$; the
    product $H A$ takes one more backward pass. Then as Grad-CAM:
    $L = \mathrm{ReLU}(\sum_k w_k A^k)$ with $w_k = \frac{1}{hw}\sum_{ij} (g - \tfrac12 H A)^k_{ij}$.

    Attributes:
        form: ``"mean"`` (default) weighs channels, as above; ``"elementwise"`` keeps the Shapley values of the
            cells themselves, $L = \mathrm{ReLU}(\sum_k A^k \odot (g - \tfrac12 H A)^k)$, the paper's variant
            after HiResCAM.
        rest: explain a class given by its logit through the paper's utility,
            :class:`~camlucida.targets.finer.ResidualSoftmax` (default); every other target, and with
            ``False`` the logit too, is used as it is. Behind piecewise linear layers the logit has no
            Hessian, and what is left is Grad-CAM.

    Source: Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025 (arXiv 2501.06261), and the
    author's code (caihuaiguang/pytorch-shapley-cam, also part of pytorch-grad-cam).
    """

    form: Form = "mean"
    rest: bool = True

    def combine(self, activation: Tensor, slope: Tensor) -> Tensor:
        r"""The signed map ``(N, h, w)`` of $A$ and $g - \tfrac12 H A$, both ``(N, K, h, w)``."""
        if self.form == "elementwise":
            return (slope * activation).sum(dim=1)
        return torch.einsum("nk,nkhw->nhw", slope.mean(dim=(2, 3)), activation)

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """One tap whose gradients are differentiated once more."""
        grid = context.get("grid")
        rules = grid.values() if isinstance(grid, Mapping) else [grid]
        if any(rule is not None and not isinstance(rule, Grid) for rule in rules):
            raise MethodError(
                "shapleycam differentiates the gradient of the feature map itself; give grid= as a "
                "camlucida.Grid, not as a function"
            )
        # Fused attention has no second derivative.
        with borrowed(model, inputs) as module, sdpa_kernel(SDPBackend.MATH):
            if self.rest and type(target) is Logit:
                target = ResidualSoftmax(target.classes)
            tapped = tap(module, inputs, layers, target, differentiable=True, grid=grid)
            linear = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
            slopes = {}
            for name, activation in tapped.activations.items():
                curved = _hessian_times(activation, tapped.gradients[name])
                slopes[name] = (tapped.gradients[name] - curved / 2).detach()
                linear &= ~curved.flatten(1).any(1)
        plain = replace(
            tapped,
            activations={name: a.detach() for name, a in tapped.activations.items()},
            gradients=slopes,
            values=None if tapped.values is None else tapped.values.detach(),
        )
        raw = assemble(self, inputs, plain, self.combine)
        notes = {int(i): [self._why_linear()] for i in linear.nonzero()[:, 0]}
        weights = {}
        if self.form == "mean":
            key = "weights" if len(slopes) == 1 else "weights[{}]"
            weights = {key.format(name): slope.mean((2, 3)) for name, slope in slopes.items()}
        return replace(raw, notes=notes, details=weights)

    def _why_linear(self) -> str:
        like = "gradcam" if self.form == "mean" else "hirescam"
        return f"the target has no second derivative at the layer: this is {like}'s map"


def _hessian_times(activation: Tensor, gradient: Tensor) -> Tensor:
    """``H A``, zeros where the gradient does not depend on the activation."""
    if not gradient.requires_grad:
        return torch.zeros_like(activation)
    (product,) = torch.autograd.grad(
        (gradient * activation.detach()).sum(), activation, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(activation) if product is None else product.detach()
