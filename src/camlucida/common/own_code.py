"""Code of the user's own, named as ``package.module:name`` or ``path/to/file.py:name``, which is run on their word."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import linecache
import pickle
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import nearest
from camlucida.common.jsonable import digest
from camlucida.common.optional import first_line


def is_code(text: str) -> bool:
    """Whether a text is written as ``package.module:name`` or ``path/to/file.py:name``."""
    place, _, name = text.rpartition(":")
    return bool(place) and all(part.isidentifier() for part in name.split("."))


def code_name(thing: Any) -> str:
    """Where a function or class stands, or the class of an object: ``package.module:name``."""
    home = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{home.__module__}:{home.__qualname__}"


_SESSION = secrets.token_hex(8)


def code_digest(thing: Any) -> str:
    """What tells later whether a function or class of the user's own is still the same.

    It is a SHA-256 of the file that it stands in and of the values that it holds: arguments bound to it, an object's
    attributes, variables of the functions around it. What cannot be told is the same in this process only.
    """
    try:
        return digest(_told(thing, []))
    except Exception:  # typed at a prompt; holds what cannot be pickled
        return f"{_SESSION}-{id(thing)}"


def _told(thing: Any, seen: list[Any]) -> list[Any]:
    if any(thing is one for one in seen):
        return []
    seen.append(thing)
    if isinstance(thing, partial):
        return [*_told(thing.func, seen), *_told([thing.args, thing.keywords], seen)]
    if inspect.ismethod(thing):
        return [*_told(thing.__func__, seen), *_told(thing.__self__, seen)]
    if inspect.isfunction(thing):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        held = [*cells, thing.__defaults__, thing.__kwdefaults__]
        told = [part for one in held for part in _told(one, seen)]
        return [thing.__qualname__, _text_of(thing), *told]
    if isinstance(thing, type):
        return [thing.__qualname__, _text_of(thing)]
    values = [hashlib.sha256(pickle.dumps(thing)).hexdigest()]
    return [*_told(type(thing), seen), *values] if callable(thing) else values


def _text_of(thing: Any) -> str:
    """The text of the file that something stands in."""
    file = inspect.getsourcefile(thing) or ""
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file))
    if not text:
        raise OSError(f"{file!r} has no text")
    return text


@dataclass(frozen=True)
class OwnCode:
    """Something of the user's own that is named by a text.

    Finding it imports the module or runs the file: code of the user's choice, on the user's word. The current folder
    and the file's own folder can be imported from meanwhile.

    Attributes:
        text: as above; what is named may be an attribute of a class (``nets.Zoo.small``).
        what: what it is, for people, such as ``"the architecture"``.
        error: what is raised.
        instead: what else can be written where there is no such module.
    """

    text: str
    what: str
    error: type[CamlucidaError]
    instead: str

    def find(self) -> Any:
        """What stands under the name.

        Raises:
            CamlucidaError: the module, file or name does not exist, or fails when it is run.
        """
        place, _, name = self.text.rpartition(":")
        found: Any = self._module(place)
        for part in name.split("."):
            known = (
                [n for n in vars(found) if not n.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            if not hasattr(found, part):
                raise self._wrong(f"names no {part!r} in {place!r}{nearest(part, known)}")
            found = getattr(found, part)
        return found

    @contextmanager
    def running(self) -> Iterator[None]:
        """Say whose code it was that failed.

        Raises:
            CamlucidaError: in place of whatever it raised.
        """
        try:
            yield
        except (Exception, SystemExit) as error:
            if isinstance(error, self.error):
                raise
            raise self._wrong(f"failed with {type(error).__name__}: {first_line(error)}") from error

    def _wrong(self, words: str) -> CamlucidaError:
        return self.error(f"{self.what} {self.text!r} {words}")

    def _module(self, place: str) -> ModuleType:
        path = Path(place)
        if path.suffix == ".py" or "/" in place or "\\" in place:
            return self._file(path)
        if not all(part.isidentifier() for part in place.split(".")):
            raise self._wrong(f"names no module: {place!r} is no dotted name")
        try:
            with _importing_from(Path.cwd()), self.running():
                return importlib.import_module(place)
        except self.error as error:
            cause = error.__cause__
            if isinstance(cause, ModuleNotFoundError) and place.startswith(str(cause.name)):
                raise self._wrong(
                    f"cannot be found: there is no module {cause.name!r}; write {self.instead}"
                ) from cause
            raise

    def _file(self, path: Path) -> ModuleType:
        if not path.is_file():
            raise self._wrong(f"names no file: {str(path)!r} does not exist")
        name = f"camlucida_user_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise self._wrong(f"names {str(path)!r}, which is no Python file")
        module = importlib.util.module_from_spec(spec)
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses and pickle look their own module up
        try:
            with _importing_from(path.resolve().parent), self.running():
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name)
            if before is not None:
                sys.modules[name] = before
            raise
        return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let imports look into a folder too."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
