"""What a method is asked to do, and how it tells how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor, nn

from camlucida.common.arguments import argument
from camlucida.common.errors import MethodError
from camlucida.common.seeds import ImageGenerators, Seed
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import check_inputs
from camlucida.engine.layers import GridRule, Layers
from camlucida.engine.tap import Tap, run, tap
from camlucida.targets import Target, TargetLike, as_target, target_values


class Progress(Protocol):
    """Called with the work done and the whole work, in the method's own units.

    Example:
        >>> seen = []
        >>> def show(done: float, total: float) -> None:
        ...     seen.append(f"{done:g} of {total:g}")
        >>> maps = camlucida.explain(model, images, method="smoothgrad", n_samples=2, progress=show)
        >>> seen[-1]
        '2 of 2'
    """

    def __call__(self, done: float, total: float, /) -> None:
        """Report progress."""


@dataclass(frozen=True)
class Task:
    """What a method is asked to do.

    Attributes:
        model: the model, which is returned as it was.
        inputs: ``(N, C, H, W)`` on the model's device.
        target: what is explained.
        layers: the layers; methods that explain the input ignore them.
        generator: one random stream per image.
        progress: called as the work proceeds.
        grid: how layer outputs are read as feature maps; found on evidence by default.
        preprocess: how photos become inputs, for methods that work on pixels.

    Example:
        >>> from camlucida.methods import GradCAM, Task
        >>> task = Task.of(model, images, target=3, layers=camlucida.default_layer(model, images))
        >>> raw = GradCAM().run(task)
        >>> raw.values.shape
        torch.Size([2])
    """

    model: nn.Module
    inputs: Tensor
    target: Target
    layers: Layers
    generator: ImageGenerators
    progress: Progress | None = None
    grid: GridRule | Mapping[str, GridRule] | None = None
    preprocess: Preprocess | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        inputs: Tensor,
        target: TargetLike = None,
        layers: Layers = "input",
        *,
        seed: Seed = 0,
        progress: Progress | None = None,
        grid: GridRule | Mapping[str, GridRule] | None = None,
        preprocess: Preprocess | None = None,
    ) -> Task:
        """A task from a class or target, and from a seed."""
        generator = ImageGenerators.of(seed, inputs)
        return cls(model, inputs, as_target(target), layers, generator, progress, grid, preprocess)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs."""
        return int(self.inputs.shape[-2]), int(self.inputs.shape[-1])

    def tap(
        self, *, gradients: bool = True, differentiable: bool = False, own_pass: bool = False
    ) -> Tap:
        """Activations and gradients at the layers, see :func:`camlucida.engine.tap.tap`."""
        return tap(
            self.model,
            self.inputs,
            self.layers,
            self.target,
            gradients=gradients,
            differentiable=differentiable,
            grid=self.grid,
            own_pass=own_pass,
        )

    def ask(self) -> tuple[Tensor, Target, Tensor]:
        """One forward pass of the model, which must be borrowed.

        Returns:
            The outputs, the target fixed to the images, and its values ``(N,)``.
        """
        check_inputs(self.model, self.inputs)
        outputs = run(self.model, self.inputs, target=self.target)
        pinned = self.target.pin(outputs)
        return outputs, pinned, target_values(pinned, outputs, len(self.inputs))

    def pixels(self, space: str, option: str = "mask_space") -> Preprocess | None:
        """How to get at the pixels: ``None`` where the model's inputs are worked on as they are.

        Args:
            space: ``"input"``, ``"pixel"``, or ``"auto"``, which is pixels where the preprocessing is known.
            option: name of the method's option that says so.

        Raises:
            MethodError: pixels are wanted, and it is not known how they become inputs.
        """
        if space == "pixel" and self.preprocess is None:
            raise MethodError(
                f"{option}=pixel needs to know how pixels become inputs; say it with {argument('preprocess')}, or use "
                f"{option}=input"
            )
        return None if space == "input" else self.preprocess

    def report(self, done: float, total: float) -> None:
        """Tell how far the work is."""
        if self.progress is not None:
            self.progress(done, total)

    def part(self, before: int, parts: int) -> Task:
        """The same task as one of so many parts, ``before`` of which are done."""
        report = self.progress
        if report is None:
            return self
        return replace(self, progress=lambda done, of: report(before * of + done, parts * of))


class Bar:
    """Progress in passes, part after part."""

    def __init__(self, task: Task, total: int) -> None:
        self.task = task
        self.total = total
        self.before = 0
        self.now = 0

    def done(self, now: int) -> None:
        """So many passes of the present part are done."""
        self.now = now
        self.task.report(self.before + now, self.total)

    def next(self) -> None:
        """The present part is over."""
        self.before += self.now
        self.now = 0
