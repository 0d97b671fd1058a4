"""FullGrad: the input's and every bias's share of the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camlucida.common.arguments import argument
from camlucida.common.errors import MethodError
from camlucida.engine.borrow import borrowed, check_inputs
from camlucida.engine.maps import Steps, normalise, resize
from camlucida.engine.outputs import first_tensor
from camlucida.methods.base import Method, RawMap
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import Target, target_values

Scale = Literal["channel", "sample"]

_ROUNDING = 1e-6
"""A channel that varies by no more than this share of the largest one is constant."""


@register(
    "fullgrad",
    use="A complete account of the score: the shares of the pixels and of all biases.",
    paper="Srinivas & Fleuret 2019",
    year=2019,
    equation="5, 8",
    cost=Cost(forward=1, backward=1),
    sums_to="score",
    remark="exact for piecewise linear networks",
)
@dataclass(frozen=True)
class FullGrad(Method):
    r"""Input times gradient plus the gradient of every bias, of all layers.

    $L = \sum_{t} \sum_{k} \mathrm{Up}(\mathrm{scale}|t_k|)$ over the terms $t$ of the identity
    $Y = \sum x \odot \frac{\partial Y}{\partial x} + \sum_l \sum b^l \odot \frac{\partial Y}{\partial z^l}$,
    see :func:`full_gradient`.

    Attributes:
        scale: each term is scaled to [0, 1] per ``"channel"`` (default; pytorch-grad-cam) or per
            ``"sample"`` over all its channels and enlarged with aligned corners (the authors' code).

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.FullGrad())
    """

    explains = "input"
    steps = Steps(rectify=False)  # terms are absolute values already

    scale: Scale = "channel"

    def run(self, task: Task) -> RawMap:
        """One forward and one backward pass through the whole model."""
        full = full_gradient(task.model, task.inputs, task.target)
        with torch.no_grad():
            fused = torch.zeros_like(task.inputs[:, 0], dtype=full.input_term.dtype)
            for term in [full.input_term, *full.spatial_terms]:
                fused += self._psi(term.abs(), tuple(fused.shape[-2:]))
        notes = {}
        for i, (rest, value) in enumerate(zip(full.residual, full.values, strict=True)):
            if rest.abs() > 1e-3 * value.abs().clamp_min(1e-6):
                note = (
                    f"the shares that make up the map leave {rest:.3g} of the score {value:.4g} unexplained; they add "
                    "up only in networks of convolutions, batch norms, linear layers, max and average pooling "
                    "and ReLU, LeakyReLU, PReLU, ReLU6 or Hardtanh"
                )
                notes[i] = [note]
        return RawMap(
            layers={"all": fused},
            fused=fused,
            outputs=full.outputs,
            target=full.target,
            values=full.values,
            notes=notes,
        )

    def _psi(self, term: Tensor, size: tuple[int, ...]) -> Tensor:
        n, k, h, w = term.shape
        if self.scale == "channel":
            scaled = normalise(term.flatten(0, 1))
            # What is constant up to rounding would be blown up to the whole range.
            spread = term.flatten(2).amax(2) - term.flatten(2).amin(2)
            flat = spread <= _ROUNDING * term.flatten(1).amax(1, keepdim=True)
            scaled = scaled.masked_fill(flat.view(n * k, 1, 1), 0)
        else:
            scaled = normalise(term.reshape(n, k * h, w)).reshape(n * k, h, w)
        # Resizing is linear: the channels may be summed first.
        summed = scaled.view(n, k, h, w).sum(1)
        return resize(summed, (size[0], size[1]), align_corners=self.scale == "sample")


@dataclass(frozen=True)
class FullGradient:
    """The terms of the completeness identity.

    Attributes:
        input_term: ``x * dY/dx``, ``(N, C, H, W)``.
        spatial_terms: ``b * dY/dz`` of every layer with a spatial output, ``(N, K, h, w)`` each.
        other: sum of the bias terms of all other layers, ``(N,)``; maps of parts of an image, such as windows, are
            among them.
        values: ``Y``, ``(N,)``.
        residual: ``Y`` minus the sum of all terms, ``(N,)``; 0 up to rounding for piecewise linear networks.
        outputs: the model's output.
        target: the target, fixed to the images.
    """

    input_term: Tensor
    spatial_terms: tuple[Tensor, ...]
    other: Tensor
    values: Tensor
    residual: Tensor
    outputs: Tensor
    target: Target


def full_gradient(model: nn.Module, inputs: Tensor, target: Target) -> FullGradient:
    r"""Split a target's value into the shares of the input and of every bias.

    The biases are those of convolutions and linear layers, the implicit ones of batch norms,
    $\beta - \mu\gamma/\sqrt{\sigma^2+\epsilon}$, and the offsets of clipping activations: ReLU6 and Hardtanh
    add their bounds where they are reached. Every call counts, also of functions and of modules that run
    several times.

    Args:
        model: the model; returned as it was. Layers may fold parts of an image into the batch, as the windows of
            a Swin are, if all parts of an image follow each other; this is checked with a second backward pass.
        inputs: ``(N, C, H, W)``.
        target: what is split.

    Raises:
        MethodError: a layer folds several images into its batch in another order.

    Source: Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS
    2019, equation 5.

    Example:
        >>> full = camlucida.methods.full_gradient(model, images, camlucida.Logit(3))
        >>> bool((full.residual.abs() < 1e-4).all())
        True
    """
    with borrowed(model, inputs) as module:
        check_inputs(module, inputs)
        x = inputs.detach().clone().requires_grad_()
        with _BiasRecorder() as recorder:
            outputs = first_tensor(module(x.clone()))
        with torch.autocast(inputs.device.type, enabled=False):
            target = target.pin(outputs.detach())
            values = target_values(target, outputs, inputs.shape[0])
            gradients: list[Tensor | None] = [None] * (1 + len(recorder.biases))
            if values.requires_grad:
                kept = [z for z, *_ in recorder.biases]
                folded = [z for z in kept if len(z) != len(x)] if len(x) > 1 else []
                gradients = list(
                    torch.autograd.grad(
                        values.sum(), [x, *kept], allow_unused=True, retain_graph=bool(folded)
                    )
                )
                if folded:
                    _check_folds(values, kept, gradients[1:])
        with torch.no_grad():
            gradient = gradients[0]
            input_term = torch.zeros_like(x) if gradient is None else x * gradient
            spatial, other = [], torch.zeros_like(values)
            for (_, bias, is_map), g in zip(recorder.biases, gradients[1:], strict=True):
                if g is None:
                    continue
                term = bias * g
                if is_map and len(term) == len(x):
                    spatial.append(term.float() if term.dtype != torch.float64 else term)
                else:
                    other = other + term.reshape(len(x), -1).sum(1)
            shares = [input_term, *spatial]
            total = sum((t.flatten(1).double().sum(1) for t in shares), other.double())
            return FullGradient(
                input_term=input_term.detach(),
                spatial_terms=tuple(spatial),
                other=other,
                values=values.detach(),
                residual=(values.double() - total).to(values.dtype),
                outputs=outputs.detach(),
                target=target,
            )


def _check_folds(
    values: Tensor, outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> None:
    """Raise unless the batch of every output is the images one after the other, each with all of its parts.

    Images do not know each other: when the target of image n is multiplied by a weight of its own, then so are
    the gradients of its parts, and only those.
    """
    n = len(values)
    weight = 1 + torch.arange(n, device=values.device) % 7
    folded = [
        (z, g) for z, g in zip(outputs, gradients, strict=True) if len(z) != n and g is not None
    ]
    if not folded:
        return
    weighted = torch.autograd.grad((weight * values).sum(), [z for z, _ in folded])
    for (z, g), found in zip(folded, weighted, strict=True):
        fits = len(z) % n == 0
        if fits:
            expected = weight[:, None] * g.reshape(n, -1).double()
            error = (found.reshape(n, -1).double() - expected).norm(dim=1)
            # Neighbouring weights differ by a seventh at least, rounding in half precision by far less.
            fits = bool((error <= 0.05 * expected.norm(dim=1)).all())
        if not fits:
            raise MethodError(
                f"fullgrad: a layer with output {tuple(z.shape)} folds {n} images into its first dimension in an order "
                "that is not one image after the other; explain one image at a time "
                f"({argument('batch_size', 1)})"
            )


class _BiasRecorder(TorchFunctionMode):
    """Sees every function that adds a bias; keeps its output, the bias shaped to multiply, and if it is a map.

    Functions rather than modules are watched: a norm that ends in its own activation, a functional call and
    a module that runs twice all count as what they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.biases: list[tuple[Tensor, Tensor, bool]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _CLIPS:
            return self._clip(func, name, args, kwargs)
        output = func(*args, **kwargs)
        if isinstance(output, Tensor) and output.requires_grad:
            bias = None
            if name in _AFFINE:
                bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
            elif name == "batch_norm":
                bias = _norm_bias(*args, **kwargs)
            if bias is not None:
                return self._keep(output, bias, spatial=name != "linear")
        return output

    def _keep(self, output: Tensor, bias: Tensor, *, spatial: bool) -> Tensor:
        shape = [1] * output.ndim
        shape[1 if spatial else -1] = -1
        self.biases.append((output, bias.detach().view(shape), spatial and output.ndim == 4))
        # An in-place operation behind the layer must not write to what is kept.
        return output.clone()

    def _clip(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        low, high = (0.0, 6.0) if "relu6" in name else _bounds(args, kwargs)
        output = func(*args, **kwargs)
        if not output.requires_grad:
            return output
        kept = output.detach()
        # The derivative is 0 at the bounds: all of the output there is offset.
        offset = torch.where((kept <= low) | (kept >= high), kept, 0)
        self.biases.append((output, offset, output.ndim == 4))
        return output.clone()


_AFFINE = frozenset({"linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d"})
_CLIPS = frozenset({"relu6", "hardtanh", "relu6_", "hardtanh_"})


def _bounds(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float]:
    low = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
    high = kwargs.get("max_val", args[2] if len(args) > 2 else 1.0)
    return float(low), float(high)


def _norm_bias(
    _: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
    *_rest: Any,
) -> Tensor | None:
    """The implicit bias of a batch norm in evaluation mode, ``beta - mu * gamma / sqrt(var + eps)``."""
    if training or running_mean is None or running_var is None:
        return bias
    scale = (running_var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    return (0 if bias is None else bias) - running_mean * scale
