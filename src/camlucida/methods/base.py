"""What every method is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    Required,
    TypedDict,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

import torch
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.common.seeds import ImageGenerators
from camlucida.data.preprocess import Preprocess
from camlucida.engine.layers import INPUT, GridRule, Layers, default_layer
from camlucida.engine.maps import Steps
from camlucida.engine.tap import Tap, tap
from camlucida.targets import Target

Explains = Literal["layer", "layers", "input"]
"""What a method's map shows: a layer that users choose, several of the method's own choice, or the input."""


class Context(TypedDict, total=False):
    """What a method may need beside the model, the images, the target and the layers.

    Attributes:
        generator: one random stream per image.
        progress: called as the work proceeds.
        grid: how layer outputs are read as feature maps.
        preprocess: how photos become inputs, for methods that work on pixels.
    """

    generator: Required[ImageGenerators]
    progress: Progress | None
    grid: GridRule | Mapping[str, GridRule] | None
    preprocess: Preprocess | None


class Progress(Protocol):
    """Called with the work done and the whole work, in the method's own units."""

    def __call__(self, done: float, total: float) -> None:
        """Report progress."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Method:
    """Base of all methods: a frozen dataclass whose fields are the options of the paper.

    A method of your own derives from this (or from :class:`GradientCAM`), and is made known with
    :func:`camlucida.methods.register`.
    """

    explains: ClassVar[Explains] = "layer"

    def __post_init__(self) -> None:
        """Check every option that is one of a few words.

        Raises:
            MethodError: naming the option, its value and the words.
        """
        for name, annotation in get_type_hints(type(self)).items():
            if get_origin(annotation) is Literal and getattr(self, name) not in get_args(
                annotation
            ):
                known = ", ".join(map(repr, get_args(annotation)))
                raise MethodError(f"{name} must be one of {known}, got {getattr(self, name)!r}")

    @property
    def steps(self) -> Steps:
        """Which steps turn the signed map into the attribution map."""
        return Steps()

    @property
    def uses_layers(self) -> bool:
        """Whether the method explains layers that a user can choose."""
        return self.explains != "input"

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """The layers that are explained when none are named: the model's last feature map."""
        return (default_layer(model, inputs),) if self.uses_layers else (INPUT,)

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """Compute the signed maps of a batch.

        Args:
            model: the model; returned as it was.
            inputs: ``(N, C, H, W)`` on the model's device.
            target: what is explained.
            layers: the layers; ignored by methods that explain the input.
            **context: at least ``generator``, see :class:`Context`.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"method": type(self).__name__, "options": options}


Combine = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GradientCAM(Method):
    """Base of the methods that combine a layer's activation with its gradient; they write ``combine``."""

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The signed map ``(N, h, w)`` from activation and gradient ``(N, K, h, w)``."""
        raise NotImplementedError

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """One tap for all layers, then ``combine`` for each."""
        tapped = tap(model, inputs, layers, target, grid=context.get("grid"))
        return assemble(self, inputs, tapped, self.combine)


def assemble(method: Method, inputs: Tensor, tapped: Tap, combine: Combine) -> RawMap:
    """The raw map of a method whose layers are combined one by one.

    Args:
        method: its steps say how several layers are fused.
        inputs: ``(N, C, H, W)``.
        tapped: activations, and gradients unless the method uses none.
        combine: signed map ``(N, h, w)`` from activation and gradient.
    """
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.autocast(inputs.device.type, enabled=False),
    ):
        signed = {
            name: combine(activation, tapped.gradients.get(name, activation))
            for name, activation in tapped.activations.items()
        }
        fused = method.steps.fuse(signed, size)
        dead = {
            name: (~activation.flatten(2).any(-1)).sum(-1)
            for name, activation in tapped.activations.items()
        }
    assert tapped.target is not None  # noqa: S101
    assert tapped.values is not None  # noqa: S101
    return RawMap(
        layers=signed,
        fused=fused,
        outputs=tapped.outputs.detach(),
        target=tapped.target,
        values=tapped.values.detach(),
        dead_channels=dead,
        channels={name: a.shape[1] for name, a in tapped.activations.items()},
        connected=tapped.connected,
        by_steps=True,
    )
