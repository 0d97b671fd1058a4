"""ShapleyCAM: second-order weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from camlucida.common.errors import MethodError
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import Grid
from camlucida.methods.base import Method, RawMap, assemble, keyed, weigh
from camlucida.methods.refinecam import Form
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import Logit
from camlucida.targets.finer import ResidualSoftmax


@register(
    "shapleycam",
    use="As Grad-CAM, for a head that is far from linear.",
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

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.ShapleyCAM(form="elementwise"))
    """

    form: Form = "mean"
    rest: bool = True

    def combine(self, activation: Tensor, slope: Tensor) -> Tensor:
        r"""The signed map ``(N, h, w)`` of $A$ and $g - \tfrac12 H A$, both ``(N, K, h, w)``."""
        if self.form == "elementwise":
            return (slope * activation).sum(dim=1)
        return weigh(slope.mean(dim=(2, 3)), activation)

    def run(self, task: Task) -> RawMap:
        """One tap whose gradients are differentiated once more."""
        rules = task.grid.values() if isinstance(task.grid, Mapping) else [task.grid]
        if any(rule is not None and not isinstance(rule, Grid) for rule in rules):
            raise MethodError(
                "shapleycam differentiates the gradient of the feature map itself; give grid as a camlucida.Grid, not "
                "as a function"
            )
        if self.rest and type(task.target) is Logit:
            task = replace(task, target=ResidualSoftmax(task.target.classes))
        # Fused attention has no second derivative.
        with borrowed(task.model, task.inputs) as module, sdpa_kernel(SDPBackend.MATH):
            tapped = replace(task, model=module).tap(differentiable=True)
            linear = torch.ones(len(task.inputs), dtype=torch.bool, device=task.inputs.device)
            slopes = {}
            for name, activation in tapped.activations.items():
                curved = _hessian_times(activation, tapped.gradients[name])
                slopes[name] = (tapped.gradients[name] - curved / 2).detach()
                linear &= ~curved.flatten(1).any(1)
        means = {name: {"weights": slope.mean((2, 3))} for name, slope in slopes.items()}
        return assemble(
            self,
            task,
            tapped,
            lambda name, activation, _: self.combine(activation.detach(), slopes[name]),
            notes={int(i): [self._why_linear()] for i in linear.nonzero()[:, 0]},
            details=keyed(means) if self.form == "mean" else {},
        )

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
