"""captum's attributions of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from camlucida.common.limits import Count, Limits, NotNegative
from camlucida.methods.input_gradient import REDUCTIONS, Reduction
from camlucida.methods.own import Wanted
from camlucida.methods.peers.score import NO_RELU, Score, hookable, squares
from camlucida.methods.registry import Cost, Need, register

_AT_ONCE = 16  # altered copies in a forward pass
_ONE: dict[str, Any] = {"cost": Cost(forward=1, backward=1), "needs": ("pixel gradients",)}
_NONE: tuple[Need, ...] = ()
Cells = Annotated[int, Limits(1, 256)]


def _register(
    name: str, paper: str, year: int, equation: str, **facts: Any
) -> Callable[[Any], Any]:
    return register(
        f"captum:{name}", paper=paper, year=year, equation=equation, library="captum", **facts
    )


def _ask(
    algorithm: Callable[[nn.Module], Any] | str, model: nn.Module, inputs: Tensor, target: Wanted,
    reduction: Reduction, **how: Any,
) -> Tensor:  # fmt: skip
    """The maps ``(N, H, W)`` of one of captum's algorithms, named or made from a model."""
    from captum import attr

    make = getattr(attr, algorithm) if isinstance(algorithm, str) else algorithm
    with hookable(model):
        found = make(Score(model, target)).attribute(inputs.requires_grad_(), target=0, **how)
    return REDUCTIONS[reduction](found.detach())


@_register(
    "occlusion",
    "Zeiler & Fergus 2014",
    2014,
    "section 4.2",
    needs=_NONE,
    cost=Cost(forward=1, times=("positions",), first=1),
    quick={"stride": 16},
)
def occlusion(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    window: Count = 15,
    stride: Count = 8,
    baseline: float = 0.0,
) -> Tensor:
    """By how much the value falls when a window is covered, averaged over the windows that hold a pixel."""
    sides = min(window, *inputs.shape[-2:])
    how = {
        "sliding_window_shapes": (inputs.shape[1], sides, sides),
        "strides": (inputs.shape[1], min(stride, sides), min(stride, sides)),
    }
    return _ask(
        "Occlusion", model, inputs, target, "sum", baselines=baseline, perturbations_per_eval=_AT_ONCE, **how
    )  # fmt: skip


def _need_relu(model: nn.Module, target: Wanted, method: str) -> None:
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        target.say(NO_RELU.format(method=method))


def _squares(
    algorithm: Callable[[nn.Module], Any] | str, model: nn.Module, inputs: Tensor, target: Wanted, cells: int,
    **how: Any,
) -> Tensor:  # fmt: skip
    """The maps of an algorithm that covers squares of the image."""
    return _ask(
        algorithm, model, inputs, target, "sum", feature_mask=squares(inputs, cells), perturbations_per_eval=_AT_ONCE,
        **how,
    )  # fmt: skip


_SAMPLED: dict[str, Any] = {
    "needs": _NONE,
    "cost": Cost(forward=1, times=("n_samples",), first=1),
    "quick": {"n_samples": 64},
}


@_register("kernel-shap", "Lundberg & Lee 2017", 2017, "section 4.1", **_SAMPLED)
def kernel_shap(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    n_samples: Count = 256,
    cells: Cells = 7,
    baseline: float = 0.0,
) -> Tensor:
    """Shapley values of the squares of a grid, by a weighted linear fit."""
    return _squares(
        "KernelShap", model, inputs, target, cells, n_samples=n_samples, baselines=baseline
    )


@_register("lime", "Ribeiro, Singh & Guestrin 2016", 2016, "1", **_SAMPLED)
def lime(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    n_samples: Count = 256,
    cells: Cells = 7,
    baseline: float = 0.0,
    alpha: NotNegative = 0.01,
) -> Tensor:
    """Weights of the squares of a grid in a sparse linear model of the value nearby."""
    from captum._utils.models.linear_model import SkLearnLasso
    from captum.attr import Lime

    def make(score: nn.Module) -> Any:
        return Lime(score, interpretable_model=SkLearnLasso(alpha=alpha))

    return _squares(make, model, inputs, target, cells, n_samples=n_samples, baselines=baseline)


@_register(
    "shapley-sampling", "Castro, Gomez & Tejada 2009", 2009, "section 3", needs=_NONE,
    cost=Cost(forward=1, times=("n_samples", "squares"), first=1), quick={"n_samples": 4},
)  # fmt: skip
def shapley_sampling(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    n_samples: Count = 16,
    cells: Cells = 7,
    baseline: float = 0.0,
) -> Tensor:
    """Shapley values of the squares of a grid, by random orders in which they are uncovered."""
    return _squares(
        "ShapleyValueSampling", model, inputs, target, cells, n_samples=n_samples, baselines=baseline
    )  # fmt: skip


@_register(
    "feature-ablation", "Zeiler & Fergus 2014", 2014, "section 4.2", needs=_NONE,
    cost=Cost(forward=1, times=("squares",), first=1),
)  # fmt: skip
def feature_ablation(
    model: nn.Module, inputs: Tensor, target: Wanted, *, cells: Cells = 14, baseline: float = 0.0
) -> Tensor:
    """By how much the value falls when a square of a grid is covered."""
    return _squares("FeatureAblation", model, inputs, target, cells, baselines=baseline)


@_register(
    "gradient-shap", "Lundberg & Lee 2017; captum", 2017, "GradientShap", needs=("pixel gradients",),
    cost=Cost(forward=1, backward=1, times=("n_samples",)), quick={"n_samples": 8},
)  # fmt: skip
def gradient_shap(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    n_samples: Count = 20,
    stdevs: NotNegative = 0.09,
    baseline: float = 0.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Mean gradient at random points between a baseline and the noisy image, times their difference."""
    return _ask(
        "GradientShap", model, inputs, target, reduction, n_samples=n_samples, stdevs=stdevs,
        baselines=torch.full_like(inputs, baseline),
    )  # fmt: skip


@_register(
    "integrated-gradients", "Sundararajan, Taly & Yan 2017", 2017, "1, 3", needs=("pixel gradients",),
    cost=Cost(forward=1, backward=1, times=("n_steps",)), sums_to="path", quick={"n_steps": 16},
)  # fmt: skip
def integrated_gradients(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    n_steps: Annotated[int, Limits(1, 1000)] = 50,
    baseline: float = 0.0,
    reduction: Reduction = "abs_sum",
) -> Tensor:
    """Gradients averaged along the straight path from a baseline to the image, times their difference."""
    return _ask(
        "IntegratedGradients", model, inputs, target, reduction, n_steps=n_steps, baselines=baseline,
        internal_batch_size=_AT_ONCE,
    )  # fmt: skip


@_register(
    "deeplift", "Shrikumar, Greenside & Kundaje 2017", 2017, "section 3", sums_to="path", **_ONE
)
def deeplift(
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    *,
    baseline: float = 0.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Differences of activations from those of a baseline, handed back by the rescale rule."""
    return _ask(
        "DeepLift", model, inputs, target, reduction, baselines=torch.full_like(inputs, baseline)
    )


@_register(
    "saliency", "Simonyan, Vedaldi & Zisserman 2014", 2014, "section 3.1", local=True, **_ONE
)
def saliency(
    model: nn.Module, inputs: Tensor, target: Wanted, *, reduction: Reduction = "abs_max"
) -> Tensor:
    """The gradient at the image."""
    return _ask("Saliency", model, inputs, target, reduction, abs=False)


@_register("input-x-gradient", "Shrikumar et al. 2016", 2016, "section 3", local=True, **_ONE)
def input_x_gradient(
    model: nn.Module, inputs: Tensor, target: Wanted, *, reduction: Reduction = "abs_sum"
) -> Tensor:
    """The image times the gradient at it."""
    return _ask("InputXGradient", model, inputs, target, reduction)


@_register("guided-backprop", "Springenberg et al. 2015", 2015, "section 3.4", **_ONE)
def guided_backprop(
    model: nn.Module, inputs: Tensor, target: Wanted, *, reduction: Reduction = "abs_max"
) -> Tensor:
    """The gradient at the image, with negative gradients dropped at every ReLU."""
    _need_relu(model, target, "captum:guided-backprop")
    return _ask("GuidedBackprop", model, inputs, target, reduction)


@_register("deconvolution", "Zeiler & Fergus 2014", 2014, "section 2.1", **_ONE)
def deconvolution(
    model: nn.Module, inputs: Tensor, target: Wanted, *, reduction: Reduction = "abs_max"
) -> Tensor:
    """Positive gradients handed back through every ReLU, whether it was on or not."""
    _need_relu(model, target, "captum:deconvolution")
    return _ask("Deconvolution", model, inputs, target, reduction)


@_register("lrp", "Bach et al. 2015", 2015, "58", **_ONE)
def lrp(
    model: nn.Module, inputs: Tensor, target: Wanted, *, reduction: Reduction = "sum"
) -> Tensor:
    """Relevance handed back layer by layer with the epsilon rule."""
    return _ask("LRP", model, inputs, target, reduction)
