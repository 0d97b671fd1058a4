"""Any function ``(model, inputs, target) -> maps`` as a method: one's own, or that of another library."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar, TypeAlias, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError, MethodError, TargetError
from camlucida.common.optional import first_line
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import INPUT, resolve_all
from camlucida.engine.unchanged import put_back
from camlucida.methods.base import Method, RawMap
from camlucida.methods.task import Task
from camlucida.targets import Target

Explainer: TypeAlias = Callable[..., Any]
"""``(model, inputs, target) -> maps``, with options behind; see :func:`as_method`."""

_LAYER = "layer"  # the name of the argument that asks for one
_ALIKE = (
    1e-3  # of a map's largest value: how far a batch's map may lie from that of the image alone
)


@dataclass(frozen=True)
class Wanted:
    """What a function is given as the target.

    Attributes:
        target: the target, fixed to the images.
        images: how many there are.
        said: what :meth:`say` was told.
    """

    target: Target
    images: int
    said: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[int] | None:
        """The explained class of each image; ``None`` where no class is explained."""
        found = getattr(self.target, "classes", None)
        if isinstance(found, Tensor):
            found = found.tolist()
        return [found] * self.images if isinstance(found, int) else found

    def say(self, remark: str) -> None:
        """Have a remark shown with the maps, such as that they mean nothing for this model."""
        self.said.append(remark)

    def __call__(self, outputs: Tensor) -> Tensor:
        """The explained number of each row of the model's outputs, ``(rows,)``.

        Of one image there may be any number of altered copies; of several images there is one row each.
        """
        rows = len(outputs)
        if rows == self.images:
            return self.target(outputs)
        if self.images != 1:
            raise TargetError(
                f"the model's outputs have {rows} rows for {self.images} images; ask for altered copies of one image "
                "at a time"
            )
        return self.target.take(torch.zeros(rows, dtype=torch.long))(outputs)


@dataclass(frozen=True)
class OwnMethod(Method):
    """Base of the methods that :func:`as_method` makes."""

    function: ClassVar[Explainer]
    name: ClassVar[str]
    alone: ClassVar[bool] = False

    def run(self, task: Task) -> RawMap:
        """The function for each layer, on the batch, or image by image where that makes a difference."""
        if task.target.layer is not None:
            raise MethodError(
                f"{self.name} explains the model's output, and {type(task.target).__name__} is a value "
                "within the model; use another target"
            )
        notes: list[str] = []
        with borrowed(task.model, task.inputs) as module, put_back(module) as changed:
            task = replace(task, model=module)
            outputs, target, values = task.ask()
            task = replace(task, target=target)
            layers = resolve_all(module, task.layers)
            maps = {name: self._maps(task, layer, notes) for name, layer in layers.items()}
        if changed:
            raise MethodError(
                f"{self.name} changed the model ({changed[0]!r}), so that its maps may be of another model; what it "
                "changed was put back. Let it work on copy.deepcopy(model)"
            )
        said = {image: list(dict.fromkeys(notes)) for image in range(len(values))}
        fused = self.steps.fuse(maps, task.size) if self.uses_layers else maps[INPUT]
        return RawMap(
            maps, fused, outputs.detach(), target, values.detach(), notes=said, by_steps=self.uses_layers
        )  # fmt: skip

    def _maps(self, task: Task, layer: nn.Module | None, notes: list[str]) -> Tensor:
        """The maps ``(N, h, w)``."""
        images = len(task.inputs)
        together: Tensor | None = None
        if images > 2 and not self.alone:
            try:
                together = self._call(task, layer, slice(None), notes)
            except torch.OutOfMemoryError:
                raise
            except (CamlucidaError, RuntimeError):
                notes.append(f"{self.name} takes one image at a time")
        alone: dict[int, Tensor] = {}
        # Two tell: whatever a map takes from its batch, one image at most is its source.
        for image in (0, images - 1, *range(1, images - 1)):
            if together is not None and len(alone) == 2:
                if all(_alike(together[i : i + 1], one) for i, one in alone.items()):
                    return together
                together = None
                notes.append(
                    f"{self.name} explains an image otherwise when others are with it, so each was explained alone"
                )
            if image not in alone:
                alone[image] = self._call(task, layer, slice(image, image + 1), notes)
                task.report(len(alone), images)
        if len({one.shape for one in alone.values()}) > 1:
            raise MethodError(f"{self.name} returned maps of several sizes for images of one size")
        return torch.cat([alone[i] for i in range(images)])

    def _call(self, task: Task, layer: nn.Module | None, which: slice, notes: list[str]) -> Tensor:
        """What the function returns for some of the images, read as maps."""
        inputs = task.inputs[which].clone()
        places = torch.arange(len(task.inputs))[which]
        wanted = Wanted(task.target.take(places), len(inputs))
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        if layer is not None:
            given[_LAYER] = layer
        with _drawing(task.generator.seeds[int(places[0])]):
            try:
                found = type(self).function(task.model, inputs, wanted, **given)
            except CamlucidaError as error:
                raise MethodError(f"{self.name}: {error}") from error
            except torch.OutOfMemoryError:
                raise
            except (Exception, SystemExit) as error:
                raise MethodError(
                    f"{self.name} failed with {type(error).__name__}: {first_line(error)}"
                ) from error
        notes += wanted.said
        return self._read(found, task.inputs[which])

    def _read(self, found: Any, inputs: Tensor) -> Tensor:
        """Maps ``(N, h, w)`` of what a function returned."""
        images, expected = len(inputs), "one map for each image, (N, h, w) or (N, C, h, w)"
        maps = found
        if isinstance(found, np.ndarray) and found.dtype.kind in "buif":
            # Of whatever byte order, strides and precision.
            maps = torch.tensor(np.array(found, np.float64 if found.itemsize > 4 else np.float32))
        if not isinstance(maps, Tensor) or not _is_plain(maps):
            kind = type(found).__name__
            if isinstance(found, Tensor | np.ndarray):
                where = getattr(found, "layout", ""), getattr(found, "device", "")
                kind = " ".join(map(str, filter(None, ("values of type", found.dtype, *where))))
            raise MethodError(
                f"{self.name} returned {kind}; it must return {expected}, as a tensor of real numbers"
            )
        shape = tuple(maps.shape)
        if maps.ndim == 2 and images == 1:
            maps = maps[None]
        if maps.ndim == 4 and shape[1] in (1, inputs.shape[1]):
            maps = maps.sum(1)
        if maps.ndim != 3 or len(maps) != images or 0 in maps.shape:
            raise MethodError(
                f"{self.name} returned shape {shape} for {images} image{'s' * (images > 1)} of "
                f"{tuple(inputs.shape[1:])}; it must return {expected}"
            )
        wide = maps.dtype if maps.dtype == torch.float64 else torch.float32
        return maps.detach().to(inputs.device, wide)


def _is_plain(maps: Tensor) -> bool:
    """Whether a tensor holds a real number in each place."""
    there = maps.layout == torch.strided and not maps.is_meta and not maps.is_nested
    return there and not maps.is_complex() and not maps.is_quantized


def as_method(function: Explainer, name: str, *, alone: bool = False) -> type[OwnMethod]:
    """The class of a method whose maps a function computes.

    Args:
        function: called as ``function(model, inputs, target, **options)`` with the model in evaluation mode and its
            weights frozen, the inputs ``(N, C, H, W)``, and a :class:`Wanted`: ``target(model(inputs))`` is the
            explained number of each image, ``target.classes`` are its classes. It returns one map for each image,
            ``(N, h, w)`` of any size, or ``(N, C, h, w)``, whose channels are added up; as a tensor or array. What it
            takes beside the three is an option and has a default; ``layer`` has none and asks for the explained
            layer, a module.
        name: of the method.
        alone: ask about one image at a time.

    Raises:
        MethodError: the function takes something else.
    """
    made = _class_of if isinstance(function, Hashable) else _class_of.__wrapped__
    return made(function, name, alone)


@cache
def _class_of(function: Explainer, name: str, alone: bool) -> type[OwnMethod]:
    """The same class for the same function."""
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise MethodError(f"{name}: it cannot be told what {function!r:.60} takes") from error
    named = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:3]
    more = [p for p in given if p not in named and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    lacking = [p.name for p in more if p.default is p.empty and p.name != _LAYER]
    if taken := [p.name for p in more if hasattr(OwnMethod, p.name)]:
        raise MethodError(
            f"{name}: methods have a {taken[0]!r} of their own; call the option otherwise"
        )
    if len(named) < 3 or lacking:
        raise MethodError(
            f"{name} must be a function (model, inputs, target) that returns maps, and has "
            + (f"no default for {', '.join(lacking)}" if lacking else f"{len(named)} arguments")
        )
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # a type of the user's own that only a type checker can see
        hints = {}
    options = [
        (p.name, hints.get(p.name, Any), field(default_factory=partial(copy, p.default)))
        if type(p.default).__hash__ is None
        else (p.name, hints.get(p.name, Any), p.default)
        for p in more
        if p.name != _LAYER
    ]
    layered = any(p.name == _LAYER and p.default is p.empty for p in more)
    facts = {
        "__doc__": inspect.getdoc(function) or "A function of one's own.",
        "__module__": getattr(function, "__module__", type(function).__module__),
        "function": staticmethod(function),
        "name": name,
        "alone": alone,
        "explains": "layer" if layered else "input",
    }
    return make_dataclass(name, options, bases=(OwnMethod,), namespace=facts, frozen=True)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two maps are the same up to rounding."""
    if one.shape != other.shape:
        return False
    apart = (one - other).nan_to_num().abs().max()
    return bool(apart <= _ALIKE * other.nan_to_num().abs().max())


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Whatever is drawn inside follows from the seed; what is set for the whole process is as before afterwards.

    The state of torch's generators is kept by the loan of the model.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    wide, differentiates = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_default_dtype(wide)
        torch.set_grad_enabled(differentiates)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
