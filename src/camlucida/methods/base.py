"""What every method is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.common.limits import check_fields
from camlucida.common.printable import few
from camlucida.engine.layers import INPUT, default_layer
from camlucida.engine.maps import Steps
from camlucida.engine.tap import Tap
from camlucida.methods.task import Task
from camlucida.targets import Target

Explains = Literal["layer", "layers", "input"]
"""What a method's map shows: a layer that users choose, several of the method's own choice, or the input."""


@dataclass(frozen=True, repr=False)
class RawMap:
    """What a method computes, before any step that makes it a picture.

    Attributes:
        layers: signed map ``(N, h, w)`` of each layer, at the layer's or the input's resolution.
        fused: the one signed map made of them, ``(N, h, w)``.
        outputs: the model's output for the images.
        target: the target, fixed to these images.
        values: the target's value per image, ``(N,)``.
        dead_channels: per layer, how many channels of each image are zero everywhere, ``(N,)``.
        channels: per layer, the number of channels.
        connected: per layer, whether the target depends on it.
        notes: remarks on single images, ``{position: remarks}``.
        details: anything else that the method has to tell, one entry per image along the first dimension.
        by_steps: ``fused`` follows from ``layers`` by the steps, so that other steps fuse them otherwise.

    Example:
        >>> raw = camlucida.methods.HiResCAM().run(camlucida.methods.Task.of(model, images, 3, "4"))
        >>> raw.fused.shape, list(raw.layers)
        (torch.Size([2, 16, 16]), ['4'])
    """

    layers: dict[str, Tensor]
    fused: Tensor
    outputs: Tensor
    target: Target
    values: Tensor
    dead_channels: dict[str, Tensor] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    connected: dict[str, bool] = field(default_factory=dict)
    notes: dict[int, list[str]] = field(default_factory=dict)
    details: dict[str, Tensor] = field(default_factory=dict)
    by_steps: bool = False

    def __repr__(self) -> str:
        """A few lines: the sizes of the maps, and the value of each image."""
        sizes = few(
            f"{name} {' x '.join(map(str, m.shape[1:]))}" for name, m in self.layers.items()
        )
        values = few(self.target.shown(value, None) for value in self.values.tolist())
        return f"RawMap of {len(self.values)} images at {sizes}\n  {values}"

    @classmethod
    def of_input(
        cls, signed: Tensor, outputs: Tensor, target: Target, values: Tensor, **more: Any
    ) -> RawMap:
        """The raw map of a method that explains the input: one map ``(N, H, W)``, no layers."""
        return cls({INPUT: signed}, signed, outputs.detach(), target, values.detach(), **more)


@dataclass(frozen=True)
class Method:
    """Base of all methods: a frozen dataclass whose fields are the options of the paper.

    A method of your own derives from this (or from :class:`GradientCAM`), and is made known with
    :func:`camlucida.methods.register`.

    Example:
        >>> class Brightness(camlucida.methods.Method):
        ...     explains = "input"
        ...
        ...     def run(self, task):
        ...         return camlucida.methods.RawMap.of_input(task.inputs.mean(1), *task.ask())
        >>> found = camlucida.explain(model, images, method=Brightness())
    """

    explains: ClassVar[Explains] = "layer"

    def __post_init__(self) -> None:
        """Check the options by their types.

        Raises:
            MethodError: naming the option, its value and what it may be.
        """
        check_fields(self, MethodError)

    @property
    def steps(self) -> Steps:
        """Which steps turn the signed map into the attribution map."""
        return Steps()

    @property
    def unsmoothed(self) -> Method:
        """The method without what ``aug_smooth``, ``eigen_smooth`` and ``both_sides`` put around it."""
        return self

    @property
    def uses_layers(self) -> bool:
        """Whether the method explains layers that a user can choose."""
        return self.explains != "input"

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """The layers that are explained when none are named: the model's last feature map."""
        return (default_layer(model, inputs),) if self.uses_layers else (INPUT,)

    def run(self, task: Task) -> RawMap:
        """Compute the signed maps of a batch."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"method": type(self).__name__, "options": options}


Combine = Callable[[str, Tensor, Tensor], Tensor]
"""From a layer's name, its activation and its gradient ``(N, K, h, w)`` to the signed map ``(N, h, w)``."""


@dataclass(frozen=True)
class GradientCAM(Method):
    """Base of the methods that combine a layer's activation with its gradient; they write ``combine``.

    Example:
        >>> from camlucida.methods import GradientCAM
        >>> class Product(GradientCAM):
        ...     def combine(self, activation, gradient):
        ...         return (activation * gradient).sum(dim=1)
        >>> camlucida.explain(model, images, method=Product()).maps.shape
        torch.Size([2, 32, 32])
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The signed map ``(N, h, w)`` from activation and gradient ``(N, K, h, w)``."""
        raise NotImplementedError

    def run(self, task: Task) -> RawMap:
        """One tap for all layers, then ``combine`` for each."""
        return assemble(self, task, task.tap(), lambda _, a, g: self.combine(a, g))


def assemble(
    method: Method,
    task: Task,
    tapped: Tap,
    combine: Combine,
    *,
    notes: Mapping[int, list[str]] | None = None,
    details: Mapping[str, Tensor] | None = None,
) -> RawMap:
    """The raw map of a method whose layers are combined one by one."""
    with calm(task.inputs):
        signed = {
            name: combine(name, activation, tapped.gradients.get(name, activation))
            for name, activation in tapped.activations.items()
        }
        fused = method.steps.fuse(signed, task.size)
        dead = {
            name: (~activation.flatten(2).any(-1)).sum(-1)
            for name, activation in tapped.activations.items()
        }
    return RawMap(
        layers=signed,
        fused=fused,
        outputs=tapped.outputs.detach(),
        target=tapped.target,
        values=tapped.values.detach(),
        dead_channels=dead,
        channels={name: a.shape[1] for name, a in tapped.activations.items()},
        connected=tapped.connected,
        notes=dict(notes or {}),
        details=dict(details or {}),
        by_steps=True,
    )


@contextmanager
def calm(inputs: Tensor) -> Iterator[None]:
    """Without gradients, inference mode and autocast, whatever holds outside: for sums on finished tensors."""
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast(inputs.device.type, enabled=False),
    ):
        yield


def weigh(weights: Tensor, activation: Tensor) -> Tensor:
    """The sum over channels, ``(N, K)`` and ``(N, K, h, w)`` to ``(N, h, w)``."""
    return torch.einsum("nk,nkhw->nhw", weights.to(activation), activation)


def keyed(by_layer: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Details of each layer as those of the map: with several layers their keys carry the layer's name in brackets."""
    several = len(by_layer) > 1
    return {
        f"{key}[{layer}]" if several else key: value
        for layer, details in by_layer.items()
        for key, value in details.items()
    }
