r"""The weight alpha for a general smooth function of the score (I-CAM eq. 17, 22-25, 29-31).

With $Y = f(S)$ and S locally linear in the activations,
$\partial^n Y / \partial A_{ij}^n = f^{(n)}(S) g^n$ with $g = \partial S / \partial A_{ij}$, and so
$\alpha = f'' / (2 f'' + f''' g \sum A)$.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Smooth: TypeAlias = Literal["softmax", "sigmoid", "exp", "identity"] | Callable[[Tensor], Tensor]
"""The function f by name, or any smooth function of a tensor, applied to each element."""


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of f at the score of each image, divided by what cancels in alpha.

    Attributes:
        first: f', ``(N,)``.
        second: f'' / f', ``(N,)``; where f' is 0, any common multiple of f'' and f''' serves.
        third: f''' / f', ``(N,)``, likewise.
    """

    first: Tensor
    second: Tensor
    third: Tensor


def softmax_derivatives(margin: Tensor) -> Derivatives:
    r"""F = softmax, as a function of the explained logit alone (eq. 29-31); the same for the sigmoid.

    With $Y = \sigma(\Delta)$: $f' = Y(1-Y)$, $f'' = f'(1-2Y)$, $f''' = f'(1-6Y+6Y^2)$.

    Args:
        margin: $\Delta$, how far the logit lies above the log-sum-exp of the others, ``(N,)``; the logit
            itself for the sigmoid. $1 - Y$ is taken as $\sigma(-\Delta)$, so that nothing is lost near Y = 1.
    """
    y, rest = torch.sigmoid(margin), torch.sigmoid(-margin)
    return Derivatives(y * rest, rest - y, 1 - 6 * y * rest)


def exp_derivatives(score: Tensor) -> Derivatives:
    r"""$f = \exp$: all derivatives are equal, and alpha is that of Grad-CAM++, $1 / (2 + g \sum A)$."""
    return Derivatives(score.exp(), torch.ones_like(score), torch.ones_like(score))


def identity_derivatives(score: Tensor) -> Derivatives:
    """F = the score itself: no second derivative, so that alpha is 0/0, taken as 0."""
    return Derivatives(torch.ones_like(score), torch.zeros_like(score), torch.zeros_like(score))


def automatic_derivatives(function: Callable[[Tensor], Tensor], score: Tensor) -> Derivatives:
    """Any f, by differentiating it three times."""
    with torch.enable_grad():
        at = score.detach().clone().requires_grad_()
        value = function(at)
        found: list[Tensor] = []
        for _ in range(3):
            value = _differentiate(value, at)
            found.append(value)
    first, second, third = (d.detach() for d in found)
    divisor = torch.where(first == 0, 1, first)
    return Derivatives(first, second / divisor, third / divisor)


def _differentiate(value: Tensor, at: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(at)
    (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True, materialize_grads=True)
    return slope


def derivatives(function: Smooth, score: Tensor, margin: Tensor) -> Derivatives:
    """The derivatives of f by its name, or of any function."""
    if function == "softmax":
        return softmax_derivatives(margin)
    if function == "sigmoid":
        return softmax_derivatives(score)
    if function == "exp":
        return exp_derivatives(score)
    if function == "identity":
        return identity_derivatives(score)
    assert callable(function)  # noqa: S101
    return automatic_derivatives(function, score)


def alpha(activation: Tensor, gradient: Tensor, f: Derivatives) -> Tensor:
    r"""Alpha of a smooth function of the score (eq. 25), $f'' / (2 f'' + f''' g \sum_{ab} A_{ab})$.

    Args:
        activation: ``(N, K, h, w)``; the sum runs over each channel.
        gradient: of the score, ``(N, K, h, w)``.
        f: derivatives at the score of each image.

    Returns:
        ``(N, K, h, w)``; 0 where f'' = 0, else infinite where the denominator is 0. Beyond that pole it is
        negative: for g > 0, A >= 0 and the softmax this happens for Y between 0.2113 and 0.5, and above
        0.7887.
    """
    second, third = (d.to(activation)[:, None, None, None] for d in (f.second, f.third))
    mass = activation.sum(dim=(2, 3), keepdim=True)
    return _ratio(second, third * mass * gradient)


def _ratio(second: Tensor, rest: Tensor) -> Tensor:
    """``second / (2 second + rest)``, 0 where ``second`` is 0, else infinite where the denominator is."""
    denominator = 2 * second + rest
    quotient = second / torch.where(denominator == 0, 1, denominator)
    quotient = torch.where(denominator == 0, torch.inf, quotient)
    return torch.where(second == 0, 0, quotient)


@dataclass
class SoftmaxMoments:
    r"""The softmax with all logits moving, streamed over the classes (``alpha_form="softmax_full"``).

    With $\delta_j = \partial S_j/\partial A - \partial S_c/\partial A$ and
    $m_r = \sum_{j \ne c} p_j \delta_j^r$, the derivatives of $Y = p_c$ with respect to a single entry are
    $Y' = -p_c m_1$, $Y'' = p_c (2 m_1^2 - m_2)$, $Y''' = p_c (6 m_1 m_2 - 6 m_1^3 - m_3)$:
    the cumulants of the gradients under the softmax, free of cancellation near $p_c = 1$.

    Attributes:
        first: $m_1$, ``(N, K, h, w)``.
        second: $m_2$.
        third: $m_3$.
    """

    first: Tensor
    second: Tensor
    third: Tensor

    @classmethod
    def like(cls, gradient: Tensor) -> SoftmaxMoments:
        """Nothing summed yet."""
        return cls(*(torch.zeros_like(gradient) for _ in range(3)))

    def add(self, index: Tensor, probability: Tensor, delta: Tensor) -> None:
        """Count one more class for some images.

        Args:
            index: positions of the images, ``(R,)``, repeats allowed.
            probability: of the class, ``(R,)``.
            delta: the class's gradient less that of the explained class, ``(R, K, h, w)``.
        """
        term = probability.to(delta)[:, None, None, None] * delta
        self.first.index_add_(0, index, term)
        self.second.index_add_(0, index, term := term * delta)
        self.third.index_add_(0, index, term * delta)

    def derivatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """``Y' / p_c``, ``Y'' / p_c`` and ``Y''' / p_c``, each ``(N, K, h, w)``."""
        m1, m2, m3 = self.first, self.second, self.third
        return -m1, 2 * m1**2 - m2, 6 * m1 * m2 - 6 * m1**3 - m3

    def alpha(self, activation: Tensor) -> Tensor:
        """Alpha of eq. 17 with these derivatives, ``(N, K, h, w)``."""
        _, second, third = self.derivatives()
        return _ratio(second, activation.sum(dim=(2, 3), keepdim=True) * third)
