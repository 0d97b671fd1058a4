"""
A method of your own
====================

A function is a method. So is a dozen lines of class, known by name to everything that follows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import camlucida
from camlucida.methods import GradientCAM, register

model = camlucida.load_model("embedded")
photo = camlucida.data.picture("tower")
photos = [camlucida.data.picture(name) for name in camlucida.data.picture_names()]


# %%
# From the model, its inputs and the explained number to one map for each image:


def squared(
    model: nn.Module, inputs: Tensor, target: camlucida.Target, *, power: float = 2.0
) -> Tensor:
    """The gradient at the pixels, to a power."""
    inputs = inputs.requires_grad_()
    gradient = torch.autograd.grad(target(model(inputs)).sum(), inputs)[0]
    return gradient.abs().sum(1) ** power


camlucida.explain(model, photo, method=squared, power=1.5)

# %%
# A CAM needs one line of mathematics. The decorator's facts are what the command line lists and what audits ask.


@register("median-cam", paper="you", year=2026, equation="1", weights="channel")
@dataclass(frozen=True)
class MedianCAM(GradientCAM):
    """Each channel weighted by its median gradient."""

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The signed map (N, h, w)."""
        weight = gradient.flatten(2).median(dim=2).values
        return (weight[:, :, None, None] * activation).sum(dim=1)


camlucida.explain(model, photo, method=["gradcam", "median-cam"])

# %%
# It is judged like ours:

report = camlucida.audits.audit_dead_zone(
    model, photos, wall="rows:168-223", methods=["median-cam", squared]
)
for verdict in report.verdicts:
    print(verdict.subject, verdict.outcome, verdict.text, sep=": ")

# %%
# Metrics, targets, kinds of data and audits are registered in the same way: :doc:`/methods`.

camlucida.methods.registry.METHODS.remove("median-cam")
