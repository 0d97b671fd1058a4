"""The registry of methods: feeds ``camlucida methods``, the documentation and the benchmark."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from camlucida.common.errors import MethodError
from camlucida.methods.base import Method
from camlucida.targets import Target

M = TypeVar("M", bound=type[Method])


@dataclass(frozen=True)
class Entry:
    """A row of the registry.

    Attributes:
        name: what users type.
        method: the class, a frozen dataclass whose fields are the method's options.
        paper: authors and year.
        year: year of publication.
        equation: where in the paper the formula stands.
        needs: what the model or target must have.
        discriminative: whether the map depends on the explained class.
        passes: cost per image, in forward and backward passes.
        target: the kind of target that the name stands for, where it does (``diffgradcam``).
        remark: anything a user must know.
    """

    name: str
    method: type[Method]
    paper: str
    year: int
    equation: str
    needs: str
    discriminative: bool
    passes: str
    target: type[Target] | None = None
    remark: str = ""

    @property
    def summary(self) -> str:
        """First line of the method's documentation."""
        return (inspect.getdoc(self.method) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the method's options."""
        return {
            f.name: f.default_factory() if f.default_factory is not MISSING else f.default
            for f in fields(self.method)
        }

    @property
    def target_options(self) -> dict[str, Any]:
        """Names and defaults of the options that go to the target."""
        if self.target is None:
            return {}
        return {f.name: f.default for f in fields(self.target) if f.name != "classes"}  # type: ignore[arg-type]


_REGISTRY: dict[str, Entry] = {}


def register(
    name: str,
    *,
    paper: str,
    year: int,
    equation: str,
    needs: str = "a layer, gradients",
    discriminative: bool = True,
    passes: str = "1 forward + head backward",
    target: type[Target] | None = None,
    remark: str = "",
) -> Callable[[M], M]:
    """Class decorator that makes a method known by name; also for methods outside the package.

    Args:
        name: the name, unique.
        paper: authors and year of the source.
        year: year of the source.
        equation: equation or section of the formula.
        needs: what the model or the target must have.
        discriminative: whether the map depends on the class.
        passes: cost per image.
        target: kind of target that the name implies.
        remark: anything a user must know.

    Raises:
        MethodError: when the name is taken by another class.
    """

    def add(method: M) -> M:
        known = _REGISTRY.get(name)
        if known is not None and known.method.__qualname__ != method.__qualname__:
            raise MethodError(f"method name {name!r} is taken by {known.method.__qualname__}")
        _REGISTRY[name] = Entry(
            name, method, paper, year, equation, needs, discriminative, passes, target, remark
        )
        return method

    return add


def methods() -> tuple[Entry, ...]:
    """All registered methods, in the order of registration."""
    return tuple(_REGISTRY.values())


def entry(name: str) -> Entry:
    """The registry's row of a name; case, spaces and underscores do not matter.

    Raises:
        MethodError: for an unknown name, with the nearest ones.
    """
    plain = {_plain(known): row for known, row in _REGISTRY.items()}
    if (row := plain.get(_plain(name))) is not None:
        return row
    if ":" in name:
        raise MethodError(
            f"unknown method {name!r}: name:key=value is how the command line writes options; in Python pass "
            "them as keyword arguments, or a method object such as camlucida.methods.FAME(iterations=5)"
        )
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    names = [plain[n].name for n in near] or list(_REGISTRY)
    raise MethodError(
        f"unknown method {name!r}; {'nearest' if near else 'known'}: {', '.join(names)}"
    )


def entry_of(method: Method) -> Entry | None:
    """The first row registered for the class of a method object."""
    return next((row for row in _REGISTRY.values() if row.method is type(method)), None)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
