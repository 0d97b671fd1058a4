"""Relatives of Grad-CAM: EigenGradCAM, ShapleyCAM and RefineCAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camlucida.blocks import candidate_layers
from camlucida.borrow import borrowed
from camlucida.errors import MethodError
from camlucida.layers import Grid, Layers, default_layer, list_layers
from camlucida.maps import Steps
from camlucida.methods.base import Context, GradientCAM, Method, RawMap, assemble
from camlucida.methods.eigencam import EigenCAM
from camlucida.methods.gradcam import GradCAM
from camlucida.methods.registry import build, register
from camlucida.tap import tap
from camlucida.targets import Logit, Target
from camlucida.targets.finer import FinerMargin, ResidualSoftmax

Sign = Literal["evidence", "extreme", "none"]
Form = Literal["mean", "elementwise"]

_RESOLUTIONS = 4


def principal(products: Tensor, sign: Sign = "evidence") -> Tensor:
    """The first principal component of per-channel maps, ``(N, K, h, w)`` to ``(N, h, w)``.

    The channels are centred, as in pytorch-grad-cam; the cells of a constant tensor are 0.

    Args:
        products: what a method adds up over the channels.
        sign: a principal component has no sign of its own. ``"evidence"`` (default) makes it run with the
            sum over the channels; ``"extreme"`` makes the larger extreme positive; ``"none"`` keeps what
            LAPACK returns.
    """
    component = EigenCAM(sign="none" if sign == "none" else "auto").project(products)
    if sign != "evidence":
        return component
    summed = products.sum(1)
    along = ((summed - summed.mean((1, 2), keepdim=True)) * component).sum((1, 2), keepdim=True)
    return torch.where(along < 0, -component, component)


register(
    "finercam",
    paper="Zhang et al. 2025",
    year=2025,
    equation="y^c - gamma y^d",
    target=FinerMargin,
    needs="a layer, gradients, 2+ classes",
    remark="Grad-CAM on the margin of a class over those most like it",
)(GradCAM)


@register(
    "eigengradcam",
    paper="Gildenblat et al. 2021 (pytorch-grad-cam)",
    year=2021,
    equation="EigenGradCAM",
)
@dataclass(frozen=True)
class EigenGradCAM(GradientCAM):
    r"""EigenCAM of activation times gradient: the strongest pattern of the evidence for a class.

    With $P = A \odot \partial Y / \partial A$ reshaped to $(hw, K)$ and centred per channel,
    $P = U \Sigma V^\top$ and the map is $P v_1$.

    Attributes:
        sign: ``"evidence"`` (default) turns the component the way of the sum over channels (HiResCAM's map);
            ``"extreme"`` makes the larger extreme positive, as EigenCAM does here; ``"none"`` keeps what
            LAPACK returns, as pytorch-grad-cam does.
    """

    sign: Sign = "evidence"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``(N, K, h, w)`` twice to the signed map ``(N, h, w)``."""
        return principal(activation * gradient, self.sign)


@register(
    "shapleycam",
    paper="Cai 2025",
    year=2025,
    equation="second-order Taylor expansion of the game's utility",
    needs="a layer, gradients twice differentiable",
    passes="1 forward + 2 head backward",
    remark="Grad-CAM where the target is linear in the layer",
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


@register(
    "refinecam",
    paper="Domeniconi et al. 2026",
    year=2026,
    equation="the product over layers",
    needs="several layers, what the base method needs",
    passes="those of the base method",
)
@dataclass(frozen=True)
class RefineCAM(Method):
    r"""The product of a method's maps at layers of several depths: fine, and quiet where the last layer is.

    $M = \prod_l \mathrm{norm}(\mathrm{Up}(\mathrm{ReLU}(L_l)))$: the deep layers say where, the shallow ones
    add detail. By default the last block of each of the four coarsest resolutions takes part (``layer1`` to
    ``layer4`` of a ResNet, as in the authors' example), read behind its activation function.

    Attributes:
        base: registered name of the method whose maps are multiplied, ``"gradcam++"`` by default.

    Source: Domeniconi, Stramiglio, Lombardi and Salti, "How to Evaluate and Refine your CAM"
    (arXiv 2605.14641). The formula is that of the authors' code (liuktc/RefineCAM, the multiplying mixer over
    all layers; also part of pytorch-grad-cam).
    """

    base: str = "gradcam++"

    def __post_init__(self) -> None:
        """Check the base."""
        super().__post_init__()
        if not self.inner.uses_layers:
            raise MethodError(
                f"base must be a method with layers, and {self.base} explains the input"
            )

    @property
    def inner(self) -> Method:
        """The base method."""
        method, _ = build(self.base)
        return method

    @property
    def steps(self) -> Steps:
        """The base method's; what is multiplied has been through them."""
        return replace(self.inner.steps, rectify=False, sigma=0.0, early_normalise=False)

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """The last block of each of the four coarsest resolutions, in network order."""
        blocks = candidate_layers(model, inputs, rectified=True)
        shapes = {info.name: info.shape for info in list_layers(model, inputs[:1])}
        last = {shape[1:]: name for name in blocks if (shape := shapes.get(name)) is not None}
        chosen = list(last.values())[-_RESOLUTIONS:]
        return tuple(name for name in blocks if name in chosen) or (default_layer(model, inputs),)

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """One run of the base method for all layers."""
        # A base such as diffgradcam stands for a kind of target.
        inner, target = build(self.base, target)
        raw = inner.run(model, inputs, target, layers, **context)
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        notes = {i: list(own) for i, own in raw.notes.items()}
        with torch.no_grad():
            finished = [inner.steps.finish(m, size) for m in raw.layers.values()]
            fused = torch.stack(finished).prod(0)
            empty = ~fused.flatten(1).any(1)
        if len(raw.layers) == 1:
            why = f"one layer only, so this is {self.base}'s map; pass several with layers="
            for i in range(len(inputs)):
                notes.setdefault(i, []).append(why)
        else:
            for i in empty.nonzero()[:, 0].tolist():
                dark = [n for n, m in raw.layers.items() if not inner.steps.layer(m[i]).any()]
                why = (
                    f"so is the map of layer {dark[0]!r}"
                    if dark
                    else "no place is lit in all layers"
                )
                notes.setdefault(i, []).append(f"the product is empty: {why}")
        return replace(raw, fused=fused, notes=notes, by_steps=False)
