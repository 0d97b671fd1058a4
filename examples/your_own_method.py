"""A method of your own, known to `explain`, to the command line's table and to every later benchmark.

Run with: python examples/your_own_method.py photo.jpg
"""

import sys
from dataclasses import dataclass

from torch import Tensor

import camlucida
from camlucida.methods import GradientCAM, register


@register("median-cam", paper="you", year=2026, equation="1")
@dataclass(frozen=True)
class MedianCAM(GradientCAM):
    """Each channel weighted by its median gradient."""

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The signed map (N, h, w)."""
        weight = gradient.flatten(2).median(dim=2).values
        return (weight[:, :, None, None] * activation).sum(dim=1)


model = camlucida.load_model("embedded")
camlucida.explain(model, sys.argv[1], method=["gradcam", "median-cam"]).save("comparison.png")
