"""Methods that read the gradient at the input: the reference every other is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from camlucida.common.limits import Count, Limits, NotNegative
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import INPUT
from camlucida.engine.maps import Steps
from camlucida.methods.base import Method, RawMap
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task

Reduction = Literal["abs_max", "abs_sum", "sum"]
Gradient = Callable[..., Tensor]
"""The target's gradient ``(N, C, H, W)`` at any inputs of that shape; without them at the task's own."""

REDUCTIONS: dict[Reduction, Callable[[Tensor], Tensor]] = {
    "abs_max": lambda a: a.abs().amax(dim=1),
    "abs_sum": lambda a: a.abs().sum(dim=1),
    "sum": lambda a: a.sum(dim=1),
}


@dataclass(frozen=True)
class InputGradient(Method):
    """Base of the methods that attribute to the input's own values; they write ``attribute``.

    Attributes:
        reduction: how the input's channels become one map: ``"abs_max"``, ``"abs_sum"`` or ``"sum"``, the
            only one that keeps signs.

    Example:
        >>> class Half(camlucida.methods.InputGradient):
        ...     def attribute(self, task, gradient):
        ...         return gradient(task.inputs / 2)
        >>> found = camlucida.explain(model, images, method=Half())
    """

    explains = "input"
    elsewhere: ClassVar[bool] = False

    reduction: Reduction = "abs_sum"

    @property
    def steps(self) -> Steps:
        """Signed reductions are rectified, absolute ones need no rectifying."""
        return Steps(rectify=self.reduction == "sum")

    def attribute(self, task: Task, gradient: Gradient) -> Tensor:
        """The attribution ``(N, C, H, W)``.

        Args:
            task: what the method is asked.
            gradient: the target's gradient ``(N, C, H, W)`` at inputs of that shape; without them at the task's.
        """
        raise NotImplementedError

    def run(self, task: Task) -> RawMap:
        """One tap at the input for each gradient that ``attribute`` asks for."""
        with borrowed(task.model, task.inputs) as module:
            task = replace(task, model=module, layers=INPUT)
            # The class is the image's own, also where the gradient is taken elsewhere.
            first = task.tap(gradients=not self.elsewhere)
            pinned = replace(task, target=first.target)

            def gradient(at: Tensor | None = None) -> Tensor:
                if at is None:
                    return first.gradients[INPUT]
                return replace(pinned, inputs=at).tap().gradients[INPUT]

            with torch.no_grad():
                signed = REDUCTIONS[self.reduction](self.attribute(task, gradient))
        return RawMap.of_input(
            signed, first.outputs, first.target, first.values, connected=first.connected
        )


@register(
    "saliency",
    use="Which pixels the score would react to if they changed a little; not what was used.",
    paper="Simonyan, Vedaldi & Zisserman 2014",
    year=2014,
    equation="section 3.1",
    cost=Cost(forward=1, backward=1),
    local=True,
)
@dataclass(frozen=True)
class Saliency(InputGradient):
    r"""Largest absolute gradient over the input's channels, $\max_c |\partial Y/\partial x_c|$.

    Attributes:
        reduction: ``"abs_max"`` (default), ``"abs_sum"`` or ``"sum"`` over channels.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.Saliency())
    """

    reduction: Reduction = "abs_max"

    def attribute(self, task: Task, gradient: Gradient) -> Tensor:  # noqa: ARG002
        """The gradient."""
        return gradient()


@register(
    "inputxgradient",
    use="A quick first share of each pixel in the score; noisy.",
    paper="Shrikumar et al. 2016",
    year=2016,
    equation="section 3",
    cost=Cost(forward=1, backward=1),
    local=True,
    sums_to="score without biases",
)
@dataclass(frozen=True)
class InputXGradient(InputGradient):
    r"""Input times gradient, $x \odot \partial Y/\partial x$.

    Attributes:
        reduction: ``"abs_sum"`` (default), ``"abs_max"`` or ``"sum"`` over channels.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.InputXGradient())
    """

    def attribute(self, task: Task, gradient: Gradient) -> Tensor:
        """Input times gradient."""
        return task.inputs * gradient()


@register(
    "integrated-gradients",
    use="Shares of single pixels that add up to the score's difference from an empty picture.",
    paper="Sundararajan, Taly & Yan 2017",
    year=2017,
    equation="1, 3",
    cost=Cost(forward=1, backward=1, times=("n_steps",), first=1),
    sums_to="path",
    quick={"n_steps": 8},
)
@dataclass(frozen=True)
class IntegratedGradients(InputGradient):
    r"""Gradients averaged along the straight path from a baseline to the input.

    $(x - x') \odot \int_0^1 \partial Y/\partial x\,(x' + a(x - x'))\,da$ by Gauss-Legendre quadrature; its sum
    over all inputs approaches $Y(x) - Y(x')$.

    Attributes:
        n_steps: nodes of the quadrature, 50 by default.
        baseline: value of the baseline, in the space of the model's input; 0 by default.
        reduction: ``"abs_sum"`` (default), ``"abs_max"`` or ``"sum"`` over channels.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.IntegratedGradients(n_steps=4))
    """

    elsewhere = True

    n_steps: Annotated[int, Limits(1, 1000)] = 50
    baseline: float = 0.0

    def attribute(self, task: Task, gradient: Gradient) -> Tensor:
        """The path integral."""
        nodes, weights = np.polynomial.legendre.leggauss(self.n_steps)
        way = task.inputs - self.baseline
        total = torch.zeros_like(way)
        for i, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
            total += weight / 2 * gradient(self.baseline + (node + 1) / 2 * way)
            task.report(i + 1, self.n_steps)
        return way * total


@register(
    "smoothgrad",
    use="As saliency, with less noise.",
    paper="Smilkov et al. 2017",
    year=2017,
    equation="section 3",
    cost=Cost(forward=1, backward=1, times=("n_samples",), first=1),
    local=True,
    quick={"n_samples": 10},
    quick_audits=False,
)
@dataclass(frozen=True)
class SmoothGrad(InputGradient):
    r"""Mean gradient over noisy copies of the input, $\frac{1}{n}\sum \partial Y/\partial x\,(x + \epsilon)$.

    Attributes:
        n_samples: number of copies, 25 by default.
        noise: standard deviation of the Gaussian noise as a share of each image's range max - min; 0.15.
        squared: average squared gradients instead (SmoothGrad-squared, Hooker et al. 2019).
        reduction: ``"abs_max"`` (default), ``"abs_sum"`` or ``"sum"`` over channels.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.SmoothGrad(n_samples=3))
    """

    elsewhere = True

    n_samples: Count = 25
    noise: NotNegative = 0.15
    squared: bool = False
    reduction: Reduction = "abs_max"

    def attribute(self, task: Task, gradient: Gradient) -> Tensor:
        """The mean gradient."""
        inputs = task.inputs
        extent = inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True)
        total = torch.zeros_like(inputs)
        for i in range(self.n_samples):
            drawn = task.generator.randn(inputs.shape[1:], inputs)
            sample = gradient(inputs + self.noise * extent * drawn)
            total += sample.square() if self.squared else sample
            task.report(i + 1, self.n_samples)
        return total / self.n_samples
