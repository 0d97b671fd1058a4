"""How far a map moves for each step that the image, the features or the logits move (Agarwal et al. 2022).

Rethinking Stability for Attribution-based Explanations: relative input, representation and output stability.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from camlucida.common.limits import Count, NotNegative
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import default_layer
from camlucida.engine.tap import tap
from camlucida.explanation import Explanation
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.registry import Facts, MetricCost, register
from camlucida.metrics.robustness import Map, explain_again, streams

_LEAST = 1e-6
"""Below it a value, or a whole step, counts as this much, so that nothing is divided by 0."""


def relative(before: Tensor, after: Tensor) -> Tensor:
    r"""The length of a relative change, $\|(a - b) / b\|_2$ of each image, ``(N,)`` double."""
    a, b = after.double().flatten(1), before.double().flatten(1)
    found: Tensor = ((a - b) / torch.where(b.abs() < _LEAST, _LEAST, b)).norm(dim=1)
    return found


@register(
    "relative_stability",
    title="Relative input stability",
    direction="lower",
    range=(0.0, inf),
    question="stability",
    source="Agarwal et al. 2022, equations 2, 3 and 5",
    needs=("model",),
    cost=MetricCost(forwards=10, explanations=10),
    slow=True,
    remark="places where the map is 0 make it huge, by its definition; more samples find larger values",
    numbers={
        "relative_representation_stability": Facts("Relative representation stability"),
        "relative_output_stability": Facts("Relative output stability"),
    },
)
@dataclass(frozen=True)
class RelativeStability(Metric):
    """The largest relative change of the map over the relative change of the image, its features, or its logits.

    The features are the maps of the explained layer, of several the first, and of the model's default layer where the
    method explains the input. The images get a little noise and are explained again; a noisy image that the model sees
    as another class does not count, and neither does an image all of whose noisy copies are seen so.

    Attributes:
        samples: noisy images, 10 by default.
        noise: standard deviation of the noise in the units of the model's input, 0.05 by default.
        of: which map: the ``"signed"`` one (default), ``"raw"`` or ``"maps"``.

    Example:
        >>> camlucida.metrics.RelativeStability(samples=2).names
        ('relative_stability', 'relative_representation_stability', 'relative_output_stability')
    """

    samples: Count = 10
    noise: NotNegative = 0.05
    of: Map = "signed"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """One explanation, and one pass for the features, of each sample."""
        inputs, draw = scene.inputs, streams(scene)
        layer = (
            explanation.layers[0]
            if explanation.method.uses_layers
            else default_layer(scene.model, inputs[:1])
        )
        features, logits = _seen(scene, layer, inputs)
        largest = inputs.new_full((3, len(inputs)), -inf, dtype=torch.float64)
        for _ in range(self.samples):
            near = inputs + self.noise * draw.randn(inputs.shape[1:], inputs)
            moved, others = _seen(scene, layer, near)
            map_moved = relative(
                getattr(explanation, self.of),
                getattr(explain_again(scene, explanation, near), self.of),
            )
            # The paper takes the logits' own change, not the relative one.
            steps = [
                relative(inputs, near),
                relative(features, moved),
                (others - logits).double().norm(dim=1),
            ]
            found = torch.stack([map_moved / step.clamp_min(_LEAST) for step in steps])
            same = logits.argmax(1) == others.argmax(1)
            largest = torch.where(same, torch.maximum(largest, found), largest)
        known = torch.where(largest.isinf(), torch.nan, largest)
        return Measured(dict(zip(self.names, known, strict=True)))


def _seen(scene: Scene, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's maps and the logits."""
    with borrowed(scene.model, images) as module:
        tapped = tap(module, images, layer, gradients=False)
    return tapped.activations[layer].detach(), tapped.outputs.detach()
