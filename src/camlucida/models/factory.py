"""Architectures of the user's own: a function in a module or file, which is run on the user's word."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from camlucida.common.errors import ModelError
from camlucida.common.own_code import OwnCode, code_name, is_code
from camlucida.models.loaded import LoadedModel

ArchitectureLike: TypeAlias = str | Callable[..., Any]
"""The name of an architecture, or a function or class that returns the network."""


_NAMES = ("timm", "torchvision", "hf", "masked-vgg")


def names_code(text: str) -> bool:
    """Whether loading a model or architecture of that name runs code that the name points to."""
    return is_code(text) and text.partition(":")[0] not in _NAMES


def architecture_name(architecture: ArchitectureLike | None) -> str | None:
    """The name of an architecture: its text, or where its function stands, as ``package.module:factory``."""
    given = architecture is None or isinstance(architecture, str)
    return architecture if given else code_name(architecture)  # type: ignore[return-value]


_INSTEAD = (
    "timm:NAME, torchvision:NAME, hf:FOLDER, package.module:factory or path/to/file.py:factory"
)


class Factory:
    """A function (or class) that makes a network, found by ``package.module:factory`` or ``file.py:factory``.

    Finding it imports the module or runs the file, and building runs the function: code of the user's choice,
    on the user's word. The current folder and the file's own folder can be imported from meanwhile.

    Args:
        given: as above; the function may be an attribute of a class (``nets.Zoo.small``). Or the function itself.

    Raises:
        ModelError: the module, file or name does not exist, or fails when it is run.
    """

    def __init__(self, given: ArchitectureLike) -> None:
        self.text = text = str(architecture_name(given))
        self.code = OwnCode(text, "the architecture", ModelError, _INSTEAD)
        found: Any = self.code.find() if isinstance(given, str) else given
        if isinstance(found, nn.Module) or not callable(found):
            raise ModelError(
                f"the architecture {text!r} is of type {type(found).__name__}; it must be a function or class "
                "that returns the network when it is called"
            )
        self.make = found

    def build(self, num_classes: int | None = None) -> LoadedModel:
        """Call the function: without arguments, or with ``num_classes`` where it takes that and it is known.

        Returns:
            The network in evaluation mode; what the function says beside it where it returns a
            :class:`LoadedModel` itself.

        Raises:
            ModelError: the function needs other arguments, fails, or returns something else.
        """
        given: dict[str, Any] = {}
        try:
            parameters = inspect.signature(self.make).parameters
        except (TypeError, ValueError):
            parameters = {}  # type: ignore[assignment]
        if num_classes is not None and "num_classes" in parameters:
            given["num_classes"] = num_classes
        needed = [
            p.name
            for p in parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if lacking := [name for name in needed if name not in given]:
            raise ModelError(
                f"the architecture {self.text!r} needs arguments ({', '.join(lacking)}); name a function that "
                "takes none"
            )
        with self.code.running():
            made = self.make(**given)
        if isinstance(made, LoadedModel):
            made.module.eval()
            return made
        if not isinstance(made, nn.Module):
            raise ModelError(
                f"the architecture {self.text!r} returned {type(made).__name__}, not a torch.nn.Module"
            )
        if any(tensor.is_meta for tensor in (*made.parameters(), *made.buffers())):
            raise ModelError(
                f"the architecture {self.text!r} returned a network on torch's meta device, which holds no values; "
                "let it build one on the CPU"
            )
        return LoadedModel(made.eval(), self.text, None, None)
