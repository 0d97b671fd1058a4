"""The target of masked images, for methods that multiply the image with a mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.faster_forward import Forward
from camlucida.engine.outputs import first_tensor
from camlucida.engine.tap import run
from camlucida.targets import Target, evaluate

MaskSpace = Literal["auto", "pixel", "input"]


@dataclass
class Masked:
    """Images that are multiplied with masks before the model sees them.

    Attributes:
        model: the module, borrowed.
        inputs: ``(N, C, H, W)`` as the model expects them.
        target: fixed to the images.
        space: whether pixels in [0, 1] or the model's inputs are multiplied; ``"auto"`` is pixels where the
            preprocessing is known.
        preprocess: how pixels become inputs.
        forward: a faster form of the model with the same output, see :mod:`camlucida.engine.faster_forward`.
        note: what a reader has to know about the choice; empty where there is nothing.
    """

    model: nn.Module
    inputs: Tensor
    target: Target
    space: MaskSpace
    preprocess: Preprocess | None
    forward: Forward | None = None
    note: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Settle the space."""
        if self.space == "pixel" and self.preprocess is None:
            raise MethodError(
                "mask_space='pixel' needs to know how pixels become inputs; pass preprocess= to explain, or "
                "use mask_space='input'"
            )
        self._pixels = self.preprocess if self.space != "input" else None
        if self.space == "auto" and self.preprocess is None:
            self.note = (
                "the mask was multiplied with the model's input, since its preprocessing is not known; where "
                "that includes a mean, 0 is not black"
            )
        dtype = torch.promote_types(self.inputs.dtype, torch.float32)
        images = self.inputs.clone() if self.inputs.is_inference() else self.inputs.detach()
        self._images = images.to(dtype)
        if self._pixels is not None:
            self._images = self._pixels.denormalise(self._images)

    def outputs(self, masks: Tensor, index: Tensor) -> Tensor:
        """The model's output for the images ``index`` under masks ``(n, H, W)``, differentiable."""
        images = self._images[index.to(self._images.device)] * masks[:, None]
        if self._pixels is not None:
            images = self._pixels.normalise(images)
        images = images.to(self.inputs.dtype)
        if self.forward is not None:
            return first_tensor(self.forward(images))
        return run(self.model, images, {}, _no_edit, self.target)

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        """The target ``(n,)`` of such outputs."""
        with torch.autocast(outputs.device.type, enabled=False):
            return evaluate(self.target.take(index), outputs, len(index))

    def values(self, masks: Tensor, index: Tensor) -> Tensor:
        """The target ``(n,)`` of the images ``index`` under masks ``(n, H, W)``."""
        return self.read(self.outputs(masks, index), index)


def _no_edit(_: str, output: Tensor) -> Tensor:
    return output
