"""Maps that know nothing of what the model has learned: what an audit must be able to tell from explanations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from camlucida.common.limits import Count, Positive
from camlucida.common.seeds import ImageGenerators
from camlucida.engine.borrow import borrowed
from camlucida.engine.maps import Steps, resize
from camlucida.engine.redraw import redrawn
from camlucida.methods.base import Method, RawMap
from camlucida.methods.gradcam import GradCAM
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task


def random_maps(images: Tensor, seed: int | ImageGenerators, cells: int = 7) -> Tensor:
    """Uniform noise ``(N, H, W)`` on a coarse grid, enlarged; of each image its own."""
    drawn = ImageGenerators(seed, images) if isinstance(seed, int) else seed
    size = (int(images.shape[-2]), int(images.shape[-1]))
    return resize(drawn.rand((cells, cells), images), size)


@dataclass(frozen=True)
class _Blind(Method, ABC):
    """A map of the images alone."""

    explains = "input"

    @property
    def steps(self) -> Steps:
        """Nothing is dropped."""
        return Steps(rectify=False)

    @abstractmethod
    def draw(self, task: Task, pixels: Tensor, /) -> Tensor:
        """The maps ``(N, H, W)`` of images ``(N, C, H, W)``."""

    def run(self, task: Task) -> RawMap:
        """One forward pass, for the target's value alone."""
        with borrowed(task.model, task.inputs), torch.no_grad():
            outputs, target, values = task.ask()
            pixels = (
                task.inputs if task.preprocess is None else task.preprocess.denormalise(task.inputs)
            )
            maps = self.draw(task, pixels.to(torch.promote_types(pixels.dtype, torch.float32)))
        return RawMap.of_input(maps, outputs, target, values)


_FACTS: dict[str, Any] = {
    "year": 2018,
    "needs": (),
    "discriminative": False,
    "cost": Cost(forward=1),
    "quick_audits": False,
    "control": "blind",
}
_SANITY = "Adebayo et al. 2018"


@register(
    "random",
    use="A control: noise, which every explanation must be better than.",
    paper=_SANITY,
    equation="section 3",
    remark="knows neither image nor model",
    **_FACTS,
)
@dataclass(frozen=True)
class RandomMap(_Blind):
    """Uniform noise on a coarse grid, enlarged: what an explanation must be better than.

    Attributes:
        cells: of the grid, 7 by default, as coarse as a CAM.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.RandomMap())
    """

    cells: Count = 7

    def draw(self, task: Task, pixels: Tensor, /) -> Tensor:
        """Noise."""
        return random_maps(pixels, task.generator, self.cells)


@register(
    "centre",
    use="A control: the middle of the photo, where objects often are, whatever the model.",
    paper=_SANITY,
    equation="section 3",
    remark="photographers put things in the middle",
    **_FACTS,
)
@dataclass(frozen=True)
class CentreMap(_Blind):
    """A Gaussian in the middle of the image.

    Attributes:
        width: its standard deviation as a share of the image, 0.25 by default.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.CentreMap())
    """

    width: Positive = 0.25

    def draw(self, task: Task, pixels: Tensor, /) -> Tensor:
        """The same for all."""
        y, x = (
            torch.exp(
                -(
                    torch.linspace(-0.5, 0.5, n, device=pixels.device, dtype=pixels.dtype)
                    / self.width
                ).square()
                / 2
            )
            for n in task.size
        )
        return (y[:, None] * x).expand(len(pixels), -1, -1).clone()


@register(
    "edges",
    use="A control: the outlines of the photo, whatever the model.",
    paper=_SANITY,
    equation="section 5",
    remark="looks like many an explanation",
    **_FACTS,
)
@dataclass(frozen=True)
class EdgeMap(_Blind):
    """Where brightness changes: the length of its Sobel gradient.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.EdgeMap())
    """

    def draw(self, _: Task, pixels: Tensor, /) -> Tensor:
        """Of the mean over the channels."""
        sobel = pixels.new_tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
        kernels = torch.stack([sobel, sobel.T])[:, None]
        grey = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), "replicate")
        slopes: Tensor = F.conv2d(grey, kernels)
        return slopes.square().sum(1).sqrt()


@register(
    "brightness",
    use="A control: the bright parts of the photo, whatever the model.",
    paper=_SANITY,
    equation="section 3",
    remark="of the photo alone",
    **_FACTS,
)
@dataclass(frozen=True)
class BrightnessMap(_Blind):
    """How bright the image is.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.BrightnessMap())
    """

    def draw(self, _: Task, pixels: Tensor, /) -> Tensor:
        """The mean over the channels."""
        return pixels.mean(1)


@register(
    "redrawn", use="A control: the map of a network that has learned nothing.",
    paper=_SANITY, equation="section 3", remark="of a model that has learned nothing",
    **{**_FACTS, "control": "unlearned", "discriminative": True, "needs": ("gradients",),
       "cost": Cost(forward=2, head_backward=1)},
)  # fmt: skip
@dataclass(frozen=True)
class RedrawnMap(Method):
    """Grad-CAM of the same network with all its weights drawn anew.

    Attributes:
        draw: which weights are drawn, 0 by default.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.RedrawnMap())
    """

    draw: int = 0

    def run(self, task: Task) -> RawMap:
        """Grad-CAM, beside one pass of the model itself."""
        with borrowed(task.model, task.inputs), torch.no_grad():
            outputs, target, values = task.ask()
        twin = redrawn(task.model, 1 + self.draw)
        raw = GradCAM().run(replace(task, model=twin, target=target))
        return replace(raw, outputs=outputs.detach(), values=values.detach())
