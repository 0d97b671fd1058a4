"""What every target is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from camlucida.common.errors import TargetError

_CHECKED: ContextVar[bool] = ContextVar("camlucida_checked_targets", default=False)


@contextmanager
def checked() -> Iterator[None]:
    """Inside the block targets take their indices for valid, as they were asked before: nothing waits for a device."""
    token = _CHECKED.set(True)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def any_of(wrong: Tensor) -> bool:
    """Whether any index is wrong; not looked at where they are checked."""
    return not _CHECKED.get() and bool(wrong.any())


class Target:
    """Base of all targets; a subclass is a frozen dataclass that defines ``__call__``.

    Attributes:
        layer: the layer whose output is the argument of ``__call__``; ``None`` for the model's output.
            With a layer the forward pass stops there.
        per_image: names of the fields that may hold one entry per image.

    Example:
        >>> @dataclasses.dataclass(frozen=True, eq=False)
        ... class Largest(camlucida.Target):
        ...     def __call__(self, outputs):
        ...         return outputs.amax(1)
        >>> camlucida.explain(model, images, target=Largest()).target_values.shape
        torch.Size([2])
    """

    layer: str | nn.Module | None = None
    per_image: tuple[str, ...] = ()

    def __call__(self, outputs: Tensor) -> Tensor:
        """The scalar of each image: ``(N, ...)`` to ``(N,)``."""
        raise NotImplementedError

    def logits(self, outputs: Tensor) -> Tensor | None:  # noqa: ARG002
        """The class logits ``(N, M)`` in the model's output, ``None`` for a target without classes."""
        return None

    def probability(self, outputs: Tensor) -> Target | None:  # noqa: ARG002
        """The probability of the class whose logit this is; ``None`` where it is no logit, or there is none."""
        return None

    @property
    def word(self) -> str:
        """What it is called where it is shown."""
        return type(self).__name__

    def shown(self, value: float, name: str | None) -> str:
        """An image's value in words, with the name of the class that is explained, if one is."""
        return f"{name}, {self.word} {value:.3g}" if name else f"{self.word} {value:.3g}"

    def assumed(self, outputs: Tensor) -> tuple[str, ...]:  # noqa: ARG002
        """What was chosen for the user, one sentence each, such as which of several values is explained."""
        return ()

    def remarks(self, outputs: Tensor) -> dict[int, str]:  # noqa: ARG002
        """What has to be known of single images, by their position, such as that nothing is summed."""
        return {}

    def pin(self, outputs: Tensor) -> Self:  # noqa: ARG002
        """This target with everything fixed that depends on the image, such as the predicted class."""
        return self

    def opposite(self) -> Target:
        """What rises where this falls."""
        return Negated(self)

    def lasting(self) -> Self:
        """This target with copies of what was made under ``torch.inference_mode``, which gradients cannot pass."""
        copies: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.is_inference():
                copies[name] = value.clone()
            elif isinstance(value, Target) and (other := value.lasting()) is not value:
                copies[name] = other
        return replace(self, **copies) if copies else self  # type: ignore[type-var]

    def take(self, index: Tensor) -> Self:
        """This target for the images ``index``, a ``(N',)`` tensor of positions, repeats allowed."""
        chosen = {
            name: value[index.to(value.device)]
            for name in self.per_image
            if isinstance(value := getattr(self, name), Tensor) and value.ndim > 0
        }
        return replace(self, **chosen) if chosen else self  # type: ignore[type-var]

    def for_images(self, images: int) -> Self:
        """This target with its lists turned into tensors, checked against the number of images.

        Raises:
            TargetError: when a list is not as long as there are images.
        """
        changed: dict[str, Tensor] = {}
        for name in self.per_image:
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                if any(isinstance(item, str) for item in value):
                    continue
                value = changed[name] = torch.as_tensor(value, device="cpu")
            if isinstance(value, Tensor) and value.ndim > 0 and len(value) != images:
                plural = name if name.endswith("s") else f"{name}s"
                raise TargetError(
                    f"{len(value)} {plural} were given for {images} images; pass one per image, or one "
                    "for all"
                )
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    def resolve(self, lookup: Callable[[str], int]) -> Self:  # noqa: ARG002
        """This target with class names turned into indices by ``lookup``."""
        return self

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        options = {name: _plain(value) for name, value in vars(self).items()}
        return {"target": type(self).__name__, **options}


@dataclass(frozen=True, eq=False)
class Negated(Target):
    """Minus another target: what lowers it.

    Attributes:
        target: the other.

    Example:
        >>> camlucida.targets.Negated(camlucida.Logit(1))(torch.tensor([[1.0, 5.0]]))
        tensor([-5.])
    """

    target: Target

    @property
    def layer(self) -> str | nn.Module | None:  # type: ignore[override]
        """The other target's layer."""
        return self.target.layer

    def __call__(self, outputs: Tensor) -> Tensor:
        """``(N, ...)`` to ``(N,)``."""
        return -self.target(outputs)

    def pin(self, outputs: Tensor) -> Negated:
        """As the other target."""
        return Negated(self.target.pin(outputs))

    def take(self, index: Tensor) -> Negated:
        """As the other target."""
        return Negated(self.target.take(index))

    def for_images(self, images: int) -> Negated:
        """As the other target."""
        return Negated(self.target.for_images(images))

    def describe(self) -> dict[str, Any]:
        """Name and the other target."""
        return {"target": "Negated", "of": self.target.describe()}


def join_targets(parts: Sequence[Target]) -> Target:
    """One target from those of consecutive images, each fixed to its own."""
    fixed = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in parts[0].per_image
        if isinstance(getattr(parts[0], name), Tensor)
    }
    return replace(parts[0], **fixed) if fixed else parts[0]  # type: ignore[type-var]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= 64 else f"tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    return getattr(value, "__qualname__", repr(value))


def tensor_of(value: Any, what: str) -> Tensor | None:
    """A field that may be given as an array or as lists; ``None`` stays.

    Raises:
        TargetError: it holds no numbers, or rows of unequal length.
    """
    if value is None or isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(
            f"{what} must be numbers in a tensor, an array or lists of one length, got {type(value).__name__}"
        ) from error
