"""Relatives of Grad-CAM: EigenGradCAM, ShapleyCAM and RefineCAM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from camlucida.common.arguments import argument
from camlucida.common.errors import MethodError
from camlucida.engine.layers import default_layer, list_layers
from camlucida.engine.layers.blocks import candidate_layers
from camlucida.engine.maps import Steps
from camlucida.methods.base import Method, RawMap
from camlucida.methods.build import build
from camlucida.methods.gradcam import GradCAM
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets.finer import FinerMargin

Form = Literal["mean", "elementwise"]

_RESOLUTIONS = 4


register(
    "finercam",
    use="Classes that look alike: what tells this one from those most like it.",
    paper="Zhang et al. 2025",
    year=2025,
    equation="y^c - gamma y^d",
    target=FinerMargin,
    remark="Grad-CAM on the margin of a class over those most like it",
    needs=("gradients", "classes"),
    weights="channel",
    quick_audits=False,
)(GradCAM)


@register(
    "refinecam",
    use="Fine outlines: several layers have to agree on a place.",
    paper="Domeniconi et al. 2026",
    year=2026,
    equation="the product over layers",
    cost=Cost(forward=1, backward=1),
    quick_audits=False,
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

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.RefineCAM(base="layercam"))
    """

    explains = "layers"

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

    def run(self, task: Task) -> RawMap:
        """One run of the base method for all layers."""
        # A base such as diffgradcam stands for a kind of target.
        inner, target = build(self.base, task.target)
        raw = inner.run(replace(task, target=target))
        notes = {i: list(own) for i, own in raw.notes.items()}
        with torch.no_grad():
            finished = [inner.steps.finish(m, task.size) for m in raw.layers.values()]
            fused = torch.stack(finished).prod(0)
            empty = ~fused.flatten(1).any(1)
        if len(raw.layers) == 1:
            why = f"one layer only, so this is {self.base}'s map; name several with {argument('layers')}"
            for i in range(len(task.inputs)):
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
