"""The target of masked images, for methods that multiply the image with a mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from camlucida.engine.faster_forward import Forward, fast_forward
from camlucida.engine.outputs import first_tensor
from camlucida.engine.tap import run
from camlucida.methods.task import Task
from camlucida.targets import Target, target_values

MaskSpace = Literal["auto", "pixel", "input"]

_NOT_BLACK = (
    "masks were multiplied with the model's input, since its preprocessing is not known; where that includes a "
    "mean, 0 is not black"
)


class Masked:
    """Images that are changed, most often multiplied with masks, before the model sees them.

    Args:
        task: whose model is borrowed.
        target: fixed to the images.
        space: whether pixels in [0, 1] or the model's inputs are changed; ``"auto"`` is pixels where the
            preprocessing is known.
        outputs: what the model returned for the inputs; with them it runs in its fastest form from now on, without
            gradients, unless the target needs a layer.

    Attributes:
        images: what is changed, ``(N, C, H, W)`` in single precision at least.
        note: what a reader has to know about the choice of the space; empty where there is nothing.

    Raises:
        MethodError: pixels are to be changed, and it is not known how they become inputs.
    """

    def __init__(
        self, task: Task, target: Target, space: MaskSpace, outputs: Tensor | None = None
    ) -> None:
        self.task = task
        self.target = target
        self.forward: Forward | None = None
        if outputs is not None and target.layer is None:
            self.forward = fast_forward(task.model, task.inputs, outputs)
        self._pixels = task.pixels(space)
        self.note = _NOT_BLACK if space == "auto" and task.preprocess is None else ""
        inputs = task.inputs
        images = inputs.clone() if inputs.is_inference() else inputs.detach()
        images = images.to(torch.promote_types(inputs.dtype, torch.float32))
        self.images = images if self._pixels is None else self._pixels.denormalise(images)

    def shown(self, images: Tensor) -> Tensor:
        """The model's output for images as they were changed, differentiable."""
        if self._pixels is not None:
            images = self._pixels.normalise(images)
        return self.run(images.to(self.task.inputs.dtype))

    def run(self, inputs: Tensor) -> Tensor:
        """The model's output for inputs as it expects them."""
        if self.forward is not None:
            return first_tensor(self.forward(inputs))
        return run(self.task.model, inputs, target=self.target)

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        """The target ``(n,)`` of outputs that belong to the images ``index``."""
        with torch.autocast(outputs.device.type, enabled=False):
            return target_values(self.target.take(index), outputs, len(index))

    def changed(self, index: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The target ``(n,)`` of the images ``index`` after a change."""
        return self.read(self.shown(change(self.images[index])), index)

    def outputs(self, masks: Tensor, index: Tensor) -> Tensor:
        """The model's output for the images ``index`` under masks ``(n, H, W)``."""
        return self.shown(self.images[index.to(self.images.device)] * masks[:, None])

    def values(self, masks: Tensor, index: Tensor) -> Tensor:
        """The target ``(n,)`` of the images ``index`` under masks ``(n, H, W)``."""
        return self.read(self.outputs(masks, index), index)
