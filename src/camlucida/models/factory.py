"""Architectures of the user's own: a function in a module or file, which is run on the user's word."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from torch import nn

from camlucida.common.errors import ModelError
from camlucida.common.grammar import nearest
from camlucida.common.optional import first_line
from camlucida.models.loaded import LoadedModel

ArchitectureLike: TypeAlias = str | Callable[..., Any]
"""The name of an architecture, or a function or class that returns the network."""


def is_factory(text: str) -> bool:
    """Whether a text is written as ``package.module:factory`` or ``path/to/file.py:factory``."""
    place, _, name = text.rpartition(":")
    return bool(place) and all(part.isidentifier() for part in name.split("."))


_NAMES = ("timm", "torchvision", "hf", "masked-vgg")


def names_code(text: str) -> bool:
    """Whether loading a model or architecture of that name runs code that the name points to."""
    return is_factory(text) and text.partition(":")[0] not in _NAMES


def code_name(architecture: ArchitectureLike | None) -> str | None:
    """The name of an architecture: its text, or where its function stands, as ``package.module:factory``."""
    if architecture is None or isinstance(architecture, str):
        return architecture
    home = architecture if hasattr(architecture, "__qualname__") else type(architecture)
    return f"{home.__module__}:{home.__qualname__}"


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
        self.text = text = str(code_name(given))
        place, _, name = text.rpartition(":")
        found: Any = _module(place, text) if isinstance(given, str) else given
        for part in name.split(".") if isinstance(given, str) else ():
            known = (
                [n for n in vars(found) if not n.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            if not hasattr(found, part):
                raise ModelError(
                    f"the architecture {text!r} names no {part!r} in {place!r}{nearest(part, known)}"
                )
            found = getattr(found, part)
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
        with _user_code(self.text):
            made = self.make(**given)
        if isinstance(made, LoadedModel):
            made.module.eval()
            return made
        if not isinstance(made, nn.Module):
            raise ModelError(
                f"the architecture {self.text!r} returned {type(made).__name__}, not a torch.nn.Module"
            )
        return LoadedModel(made.eval(), self.text, None, None)


def _module(place: str, text: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py" or "/" in place or "\\" in place:
        if not path.is_file():
            raise ModelError(f"the architecture {text!r} names no file: {place!r} does not exist")
        name = f"camlucida_user_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise ModelError(f"the architecture {text!r} names {place!r}, which is no Python file")
        module = importlib.util.module_from_spec(spec)
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses and pickle look their own module up
        try:
            with _importing_from(path.resolve().parent), _user_code(text):
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name)
            if before is not None:
                sys.modules[name] = before
            raise
        return module
    if not all(part.isidentifier() for part in place.split(".")):
        raise ModelError(f"the architecture {text!r} names no module: {place!r} is no dotted name")
    try:
        with _importing_from(Path.cwd()), _user_code(text):
            return importlib.import_module(place)
    except ModelError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and place.startswith(str(cause.name)):
            raise ModelError(
                f"the architecture {text!r} cannot be found: there is no module {cause.name!r}; write timm:NAME, "
                "torchvision:NAME, hf:FOLDER, package.module:factory or path/to/file.py:factory"
            ) from cause
        raise


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let imports look into a folder too."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@contextmanager
def _user_code(text: str) -> Iterator[None]:
    """Say whose code it was that failed.

    Raises:
        ModelError: in place of whatever it raised.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"the architecture {text!r} failed with {type(error).__name__}: {first_line(error)}"
        ) from error
