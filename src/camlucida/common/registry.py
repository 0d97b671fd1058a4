"""Things that users call by name: methods, metrics, targets, kinds of data, audits."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import options_of, refuse_unknown

Made_co = TypeVar("Made_co", covariant=True)


@dataclass(frozen=True)
class Row(Generic[Made_co]):
    """What stands behind a name; each registry has rows of its own class, with further facts.

    A class of rows says in class variables what a row is (``what = "method"``), which error is raised for its
    names and options (``error``), and what Python users write instead of ``name:key=value`` (``in_python``).

    Attributes:
        name: what users type.
        make: makes the thing: a frozen dataclass, whose fields are its options, or a function, whose options are
            its keyword-only arguments.
    """

    what: ClassVar[str] = "name"
    error: ClassVar[type[CamlucidaError]] = CamlucidaError
    in_python: ClassVar[str] = "pass them as keyword arguments"

    name: str
    make: Callable[..., Made_co]

    @property
    def summary(self) -> str:
        """First line of the documentation."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the options; :func:`camlucida.common.grammar.options_of` knows their types too."""
        return {name: option.default for name, option in options_of(self.make).items()}

    def build(self, **options: Any) -> Made_co:
        """What the name stands for, with options.

        Raises:
            CamlucidaError: an option is unknown, or a value does not fit; the text begins with the name.
        """
        refuse_unknown(self.name, options, self.options, self.error)
        try:
            return self.make(**options)
        except CamlucidaError as error:
            kind = type(error) if isinstance(error, self.error) else self.error
            raise kind(f"{self.name}: {error}") from error


R = TypeVar("R", bound=Row[Any])


class Registry(Generic[R]):
    """Rows by name, in the order of registration. Case, spaces and underscores in names do not matter.

    Args:
        rows: the class of the rows.
    """

    def __init__(self, rows: type[R]) -> None:
        self.rows = rows
        self._known: dict[str, R] = {}

    def add(self, row: R) -> R:
        """Make a row known by its name; the same class or function may be added again.

        Raises:
            CamlucidaError: the name is taken by another class or function.
        """
        known = self._known.get(plain(row.name))
        if known is not None and known.make.__qualname__ != row.make.__qualname__:
            taken = known.make.__qualname__
            raise row.error(f"{row.what} name {row.name!r} is taken by {taken}")
        self._known[plain(row.name)] = row
        return row

    def remove(self, name: str) -> None:
        """Forget a row, as tests do; nothing happens where there is none."""
        self._known.pop(plain(name), None)

    def __iter__(self) -> Iterator[R]:
        """The rows in the order of registration."""
        return iter(tuple(self._known.values()))

    def __contains__(self, name: str) -> bool:
        """Whether a name is known."""
        return plain(name) in self._known

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of registration."""
        return tuple(row.name for row in self)

    def __getitem__(self, name: str) -> R:
        """The row of a name.

        Raises:
            CamlucidaError: the name is unknown; the text lists the nearest ones.
        """
        if (row := self._known.get(plain(name))) is not None:
            return row
        what, error = self.rows.what, self.rows.error
        if ":" in name:
            raise error(
                f"unknown {what} {name!r}: name:key=value is how the command line writes options; in Python "
                f"{self.rows.in_python}"
            )
        near = difflib.get_close_matches(plain(name), self._known, n=3, cutoff=0.5)
        listed = ", ".join(self._known[n].name for n in near or self._known)
        raise error(f"unknown {what} {name!r}; {'nearest' if near else 'known'}: {listed}")

    def row_of(self, made: object) -> R | None:
        """The first row whose class is that of an object."""
        return next((row for row in self if row.make is type(made)), None)


def plain(name: str) -> str:
    """A name as it is compared: small letters, with hyphens for spaces and underscores."""
    return name.strip().lower().replace("_", "-").replace(" ", "-")
