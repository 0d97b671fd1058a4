"""CAM: the classifier's own weights as channel weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from camlucida.common.errors import MethodError
from camlucida.engine.borrow import borrowed
from camlucida.engine.linear_head import LinearInputs, find_head, no_head
from camlucida.engine.maps import Steps
from camlucida.methods.base import Method, RawMap, assemble, keyed, weigh
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import target_values


@register(
    "cam",
    use="Models that end in pooling and one linear layer: the exact share of each cell in "
    "the score.",
    paper="Zhou et al. 2016",
    year=2016,
    equation="2",
    needs=("linear head",),
    cost=Cost(forward=1),
    weights="channel",
    sums_to="mean",
    quick_audits=False,
)
@dataclass(frozen=True)
class CAM(Method):
    r"""The channels weighted by the classifier's weights of the class.

    $L^c = \sum_k W_{ck} A^k$, for networks that end in global average pooling and one linear layer
    $z = W \,\mathrm{mean}(A) + b$; the bias is ignored. For a target that is a function of several logits, the
    class's row is replaced by $\sum_m (\partial Y / \partial z_m) W_m$, which is the same for a logit.

    Attributes:
        relu: rectify the map; ``False`` by default, as in the paper.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.CAM())
        >>> found.details["weights"].shape
        torch.Size([2, 16])
    """

    relu: bool = False

    @property
    def steps(self) -> Steps:
        """Rectified on request only."""
        return Steps(rectify=self.relu)

    def run(self, task: Task) -> RawMap:
        """One forward pass, which also finds the linear head."""
        with borrowed(task.model, task.inputs) as module, LinearInputs(module) as seen:
            tapped = replace(task, model=module).tap(gradients=False, own_pass=True)
        with torch.inference_mode(mode=False), torch.enable_grad():
            logits = tapped.outputs.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(
                target_values(tapped.target, logits, len(logits)).sum(), logits
            )
        weights: dict[str, Tensor] = {}
        for name, activation in tapped.activations.items():
            head = find_head(activation, tapped.outputs, seen.calls)
            if head is None:
                raise MethodError(
                    f"cam cannot explain this: {no_head(name)}, or use gradcam, which needs neither"
                )
            weights[name] = (slope.to(head.weight) @ head.weight).to(activation)
        return assemble(
            self,
            task,
            tapped,
            lambda name, activation, _: weigh(weights[name], activation),
            details=keyed({name: {"weights": w} for name, w in weights.items()}),
        )
