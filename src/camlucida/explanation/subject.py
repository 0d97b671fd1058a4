"""What is explained: a model with all that is known about it, and images made ready for it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from camlucida.common.errors import (
    CamlucidaError,
    ImageError,
    MethodError,
    ModelError,
    TargetError,
)
from camlucida.common.grammar import nearest
from camlucida.common.optional import first_line
from camlucida.data import read_class_names, resolve_class
from camlucida.data.preprocess import Preprocess, PreprocessLike
from camlucida.engine.borrow import check_modules, unwrap
from camlucida.engine.failures import no_gradient, quantized_layer
from camlucida.engine.finding import find_outputs, look
from camlucida.engine.reading import Outputs, OutputsLike, original, outputs_of, reading
from camlucida.explanation.overlays import View
from camlucida.explanation.photos import Batch, Images, Photos
from camlucida.methods import MethodRow, RawMap
from camlucida.models import LoadedModel, class_names_of, load_model, outputs_said, preprocess_of
from camlucida.models.factory import ArchitectureLike
from camlucida.models.loaded import put_on
from camlucida.models.loading import prepared, with_outputs
from camlucida.targets import (
    ClassTarget,
    Custom,
    Target,
    TargetLike,
    as_target,
    build_target,
    for_kind,
)
from camlucida.targets.registry import TARGETS

ModelLike: TypeAlias = "nn.Module | LoadedModel | str | os.PathLike[str]"
"""A module, a loaded model, or what :func:`camlucida.load_model` takes."""

PreprocessGiven: TypeAlias = "PreprocessLike | Mapping[str, Any]"
"""A preprocess, any function of a photo, or some of a ``Preprocess``'s values by name, which change the model's own."""


@dataclass(frozen=True)
class Subject:
    """The model that is explained, and what is known about it."""

    module: nn.Module
    name: str
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None
    outputs: Outputs = field(default_factory=Outputs)
    """What is known of the model's outputs."""
    notes: tuple[str, ...] = ()
    """What was assumed about the model, or has to be known of it."""

    @classmethod
    def of(
        cls,
        model: ModelLike,
        preprocess: PreprocessGiven | None = None,
        class_names: Sequence[str] | str | os.PathLike[str] | None = None,
        outputs: OutputsLike = None,
        head: str | int | None = None,
        *,
        architecture: ArchitectureLike | None = None,
        device: str | torch.device | None = None,
    ) -> Subject:
        """Gather what is known; what is given goes before what the model itself says."""
        given = Outputs.of(outputs)
        if head is not None:
            given = replace(given, head=head)
        if isinstance(model, str | os.PathLike):
            model = load_model(
                model, architecture=architecture, class_names=class_names, outputs=given, preprocess=preprocess,
            )  # fmt: skip
            given, preprocess, class_names = Outputs(), None, None
        elif architecture is not None:
            raise ModelError(
                f"architecture is only for a checkpoint file, and the model is {type(model).__name__}"
            )
        named = None if class_names is None else read_class_names(class_names)
        if not isinstance(model, LoadedModel | nn.Module):
            raise MethodError(
                "the model must be a torch.nn.Module, come from camlucida.load_model or be a name that it takes, got "
                f"{type(model).__name__}"
            )
        if not isinstance(model, LoadedModel):
            bare = unwrap(model)
            check_modules(bare)
            model = LoadedModel(
                bare,
                type(bare).__name__,
                preprocess_of(bare),
                class_names_of(bare),
                outputs_of(bare) or outputs_said(bare),
            )
        if preprocess is not None:
            model = prepared(model, preprocess)
        read = unwrap(put_on(model, device).module)
        used = model.preprocess
        return cls(
            original(read),
            model.name,
            used,
            named or model.class_names,
            given.over(model.outputs or outputs_of(read) or Outputs()),
            (*model.notes, *getattr(used, "notes", ())),
        )

    @property
    def loaded(self) -> LoadedModel:
        """The same as a loaded model, with what its outputs are."""
        known = None if self.outputs == Outputs() else self.outputs
        module, name = self.module, self.name
        return with_outputs(
            LoadedModel(module, name, self.preprocess, self.class_names, known, self.notes)
        )

    @contextmanager
    def taking(self, inputs: Tensor) -> Iterator[None]:
        """Say it in words when the model fails because the images have another number of channels.

        Raises:
            ImageError: in place of what the model raised.
        """
        try:
            yield
        except (RuntimeError, ModelError) as error:
            if (named := quantized_layer(self.module)) and isinstance(error, RuntimeError):
                raise MethodError(no_gradient(named)) from error
            channels = _channels_of_first(error, inputs)
            if channels is None:
                raise
            last = inputs.shape[-1] == channels
            advice = (
                "channels come second: inputs.permute(0, 3, 1, 2)"
                if last
                else "see its first layer"
            )
            raise ImageError(
                f"{self.name} takes images with {channels} channels, got shape "
                f"{tuple(inputs.shape)}; {advice}"
            ) from error

    def reader(
        self, target: Target, batch: Batch, *, asks: bool = True
    ) -> tuple[nn.Module, Target, Outputs]:
        """The model as a target takes its outputs, the target that is meant for them, and what they are.

        A function gets the model's own output, whatever its type; a class's target its logits.

        Args:
            target: what is explained.
            batch: the images.
            asks: whether the method's map depends on the target.

        Raises:
            TargetError: the target makes no sense for these outputs.
            ModelError: the model does not run.
        """
        outputs = self.outputs
        if not isinstance(target, Custom) and not isinstance(target, ClassTarget):
            head = replace(Outputs(), head=outputs.head)
            return self._read(head, batch), target, outputs
        if isinstance(target, Custom) and outputs.head is None:
            output = look(self.module, batch.inputs, batch.argument)
            if isinstance(output, Tensor):
                return self._read(None, batch), target, outputs
            given = OwnOutput(target.function)
            module = reading(self.module, function=given.value, argument=batch.argument)
            return module, replace(target, function=given), outputs
        if isinstance(target, Custom):
            return self._read(replace(Outputs(), head=outputs.head), batch), target, outputs
        found = self._found(batch)
        if found.kind is None:  # says what there is instead of logits
            found.pick(look(self.module, batch.inputs, batch.argument))
        return self._read(found, batch), for_kind(target, found.kind, asks=asks), found

    def names(self, batch: Batch) -> tuple[str, ...] | None:
        """The names of all classes: what a single one is of, the outputs tell."""
        named = self.class_names
        return named if named is None or len(named) > 1 else self._found(batch).names(named)

    def _found(self, batch: Batch) -> Outputs:
        if self.outputs.settled and batch.argument is None:
            return self.outputs
        named = len(self.class_names or ())
        return find_outputs(
            self.module, batch.inputs, self.outputs, named=named, argument=batch.argument
        )

    def _read(self, outputs: Outputs | None, batch: Batch) -> nn.Module:
        return reading(self.module, outputs, argument=batch.argument)

    def check_gradient(self, raw: RawMap, row: MethodRow | None) -> None:
        """Refuse the empty map of a method that needs gradients, where a quantized layer lets none through.

        Raises:
            MethodError: naming the layer.
        """
        wanted = {"gradients", "pixel gradients", "second derivatives"}
        if row is None or wanted.isdisjoint(row.needs):
            return
        reached = any(raw.connected.values()) if raw.connected else bool(raw.fused.any())
        if not reached and (layer := quantized_layer(self.module)):
            raise MethodError(no_gradient(layer))

    def photos(self, images: Images) -> Photos:
        """The images, opened when they are asked for."""
        return Photos(self.module, self.name, self.preprocess, self.class_names, images)

    def prepare(self, images: Images) -> Batch:
        """Inputs on the model's device and in its precision."""
        return self.photos(images).all()


def read_target(given: TargetLike, class_names: Sequence[str] | None) -> Target:
    """The target that is meant, its classes as indices; a text is a class, or a target as ``--target`` takes it.

    Raises:
        TargetError: there is no such class or target, or both are called so.
    """
    if not isinstance(given, str) or given.partition(":")[0] not in TARGETS:
        try:
            return as_target(given).resolve(lambda name: resolve_class(name, class_names))
        except TargetError as error:
            near = nearest(given, TARGETS.names, 1) if isinstance(given, str) else ""
            raise TargetError(f"{error}{near}") from error
    if given in (class_names or ()):
        raise TargetError(
            f"{given!r} is a target and a class of this model; write camlucida.Logit({given!r}) for the class"
        )
    return build_target(given).resolve(lambda name: resolve_class(name, class_names))


class OwnOutput:
    """A function of a model's own output, of any type, as a target of the numbers that it gave already.

    Args:
        function: from the model's output to one number per image, ``(N,)``.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__qualname__ = getattr(function, "__qualname__", repr(function))

    def value(self, output: Any) -> Tensor:
        """The function's value; raises ``TargetError`` unless that is a tensor ``(N,)``."""
        try:
            made = self.function(output)
        except CamlucidaError:
            raise
        except Exception as error:
            raise TargetError(
                f"the function that was given as the target failed on the model's output with "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(made, Tensor) or made.ndim != 1:
            got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise TargetError(
                f"a target must return one value per image, shape (N,), but {self.__qualname__} returned {got}"
            )
        return made

    def __call__(self, outputs: Tensor) -> Tensor:
        """What was computed."""
        return outputs


def _channels_of_first(error: BaseException | None, inputs: Tensor) -> int | None:
    """How many channels a convolution takes that failed on the images, as they have another number."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            layer, given = frame.f_locals.get("self"), frame.f_locals.get("input")
            if isinstance(layer, nn.Conv2d) and isinstance(given, Tensor) and given.ndim == 4:
                seen = given.shape[1:] == inputs.shape[1:]
                return layer.in_channels if seen and given.shape[1] != layer.in_channels else None
        error = error.__cause__
    return None


def prepare(
    model: ModelLike, images: Images, preprocess: PreprocessGiven | None = None
) -> tuple[nn.Module, Tensor, View, Preprocess | None]:
    """What :func:`explain` makes of a model and images: for other analyses of single images.

    Returns:
        The unwrapped module, the inputs ``(N, C, H, W)``, the view of the first image and the preprocessing.
    """
    subject = Subject.of(model, preprocess)
    batch = subject.prepare(images)
    module = reading(subject.module, subject.outputs, argument=batch.argument)
    return module, batch.inputs, batch.views[0], subject.preprocess
