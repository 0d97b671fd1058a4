"""CAM: the classifier's own weights as channel weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn

from camlucida.borrow import borrowed
from camlucida.errors import MethodError
from camlucida.layers import Layers
from camlucida.maps import Steps, rectify
from camlucida.methods.base import Context, Method, RawMap, assemble
from camlucida.methods.registry import register
from camlucida.tap import tap
from camlucida.targets import Target


@register(
    "cam",
    paper="Zhou et al. 2016",
    year=2016,
    equation="2",
    needs="global average pooling + one linear layer",
    passes="1 forward",
)
@dataclass(frozen=True)
class CAM(Method):
    r"""The channels weighted by the classifier's weights of the class.

    $L^c = \sum_k W_{ck} A^k$, for networks that end in global average pooling and one linear layer
    $z = W \,\mathrm{mean}(A) + b$; the bias is ignored. For a target that is a function of several logits, the
    class's row is replaced by $\sum_m (\partial Y / \partial z_m) W_m$, which is the same for a logit.

    Attributes:
        relu: rectify the map; ``False`` by default, as in the paper.
    """

    relu: bool = False

    @property
    def steps(self) -> Steps:
        """Rectified on request only."""
        return Steps(rectify=self.relu)

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """One forward pass, which also finds the linear head."""
        with borrowed(model, inputs) as module, _LinearInputs(module) as seen:
            tapped = tap(module, inputs, layers, target, gradients=False, grid=context.get("grid"))
        assert tapped.target is not None  # noqa: S101
        with torch.inference_mode(mode=False), torch.enable_grad():
            logits = tapped.outputs.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(tapped.target(logits).sum(), logits)
        weights = {}
        for name, activation in tapped.activations.items():
            head = _find_head(name, activation, tapped.outputs, seen.calls)
            weights[id(activation)] = slope.to(head) @ head
        return assemble(
            self,
            inputs,
            tapped,
            lambda activation, _: torch.einsum(
                "nk,nkhw->nhw", weights[id(activation)].to(activation), activation
            ),
        )


class _LinearInputs:
    """Records what goes into and comes out of every linear layer (or 1x1 convolution of a vector)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def __enter__(self) -> Self:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                self.calls.append((module, args[0].flatten(1), output.flatten(1)))

        linear = [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self.handles = [module.register_forward_hook(hook) for module in linear]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _find_head(
    name: str, activation: Tensor, outputs: Tensor, calls: list[tuple[nn.Module, Tensor, Tensor]]
) -> Tensor:
    """The weight ``(M, K)`` of the linear layer that turns the pooled activation into the logits.

    A ReLU between layer and pooling is allowed (DenseNet's ``features``): the map is the layer's own.

    What the layer received is compared with the pooled activation, so that a network with anything in
    between (a norm, a second layer) is refused rather than explained wrongly.
    """
    pooled = (activation.mean((2, 3)), rectify(activation).mean((2, 3)))
    for module, received, returned in reversed(calls):
        if returned.shape != outputs.shape or not _same(returned, outputs):
            continue
        for mean in pooled:
            if received.shape == mean.shape and _same(received, mean):
                weight = module.weight
                assert isinstance(weight, Tensor)  # noqa: S101
                return weight.detach().flatten(1)
    raise MethodError(
        f"cam needs a network that ends in global average pooling of layer {name!r} and one linear layer; "
        "this one does not. Use gradcam, which needs neither"
    )


def _same(a: Tensor, b: Tensor) -> bool:
    # One image with NaN in it must not hide the head from the others.
    a, b = a.to(b).nan_to_num(), b.nan_to_num()
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().amax()))
