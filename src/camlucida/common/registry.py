"""Things that users call by name: methods, metrics, targets, kinds of data, audits."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import Option, options_of, read_values, refuse_unknown, split

Made_co = TypeVar("Made_co", covariant=True)


@dataclass(frozen=True)
class Row(Generic[Made_co]):
    """What stands behind a name; each registry has rows of its own class, with further facts.

    A class of rows says in class variables what a row is (``what = "method"``), and which error is raised for its
    names and options (``error``).

    Attributes:
        name: what users type.
        make: makes the thing: a frozen dataclass, whose fields are its options, or a function, whose options are
            its keyword-only arguments.
    """

    what: ClassVar[str] = "name"
    error: ClassVar[type[CamlucidaError]] = CamlucidaError

    name: str
    make: Callable[..., Made_co]

    @property
    def summary(self) -> str:
        """First line of the documentation."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the options."""
        return {name: option.default for name, option in options_of(self.make).items()}

    @property
    def settable(self) -> dict[str, Option]:
        """All that ``name:key=value`` may set, with types."""
        return options_of(self.make)

    def read(self, written: Mapping[str, str]) -> dict[str, Any]:
        """The values of options that were written as text.

        Raises:
            CamlucidaError: an option is unknown, or a value does not fit its type.
        """
        return read_values(self.name, written, self.settable, self.error)

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

    def key(self, name: str) -> str:
        """A name as it is compared."""
        return plain(name)

    def add(self, row: R) -> R:
        """Make a row known by its name; the same class or function may be added again.

        Raises:
            CamlucidaError: the name is taken by another class or function.
        """
        known = self._known.get(self.key(row.name))
        if known is not None and known.make.__qualname__ != row.make.__qualname__:
            taken = known.make.__qualname__
            raise row.error(f"{row.what} name {row.name!r} is taken by {taken}")
        self._known[self.key(row.name)] = row
        return row

    def remove(self, name: str) -> None:
        """Forget a row, as tests do; nothing happens where there is none."""
        self._known.pop(self.key(name), None)

    def __iter__(self) -> Iterator[R]:
        """The rows in the order of registration."""
        return iter(tuple(self._known.values()))

    def __contains__(self, name: str) -> bool:
        """Whether a name is known."""
        return self.key(name) in self._known

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of registration."""
        return tuple(row.name for row in self)

    def __getitem__(self, name: str) -> R:
        """The row of a name.

        Raises:
            CamlucidaError: the name is unknown; the text lists the nearest ones.
        """
        if (row := self._known.get(self.key(name))) is not None:
            return row
        place = self.key(name).rpartition(":")[0]
        known = [key for key in self._known if key.rpartition(":")[0] == place]
        near = difflib.get_close_matches(self.key(name), known, n=3, cutoff=0.5)
        listed = ", ".join(self._known[n].name for n in near or known)
        raise self.rows.error(
            f"unknown {self.rows.what} {name!r:.60}; {'nearest' if near else 'known'}: {listed}"
        )

    def read(self, text: str) -> tuple[R, dict[str, Any]]:
        """The row and the options of a text ``name`` or ``name:key=value,key=value``.

        Raises:
            CamlucidaError: the name or an option is unknown, with the nearest ones, or a value does not fit.
        """
        name, written = split(text, self.rows.error)
        row = self[name]
        return row, row.read(written)

    def row_of(self, made: object) -> R | None:
        """The first row whose class is that of an object."""
        return next((row for row in self if row.make is type(made)), None)


def plain(name: str) -> str:
    """A name as it is compared: small letters, with hyphens for spaces and underscores."""
    return name.strip().lower().replace("_", "-").replace(" ", "-")
