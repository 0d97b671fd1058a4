"""How messages name an argument that the reader can give: in Python's words, or in those of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Writer: TypeAlias = Callable[[str, Any], str]
"""From an argument's name and value, ``None`` for any value, to what the user writes."""


class Code(str):
    """A value that Python's words show as it is, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def in_python(name: str, value: Any = None) -> str:
    """An argument as a call of a function has it."""
    return f"{name}={'' if value is None else repr(value)}"


_WRITERS: list[Writer] = [in_python]


def argument(name: str, value: Any = None) -> str:
    """An argument of the public functions, as the reader of a message writes it.

    Args:
        name: in Python.
        value: what it would be; ``None`` leaves it open.

    Example:
        >>> from camlucida.common.arguments import argument
        >>> argument("outputs", "labels")
        "outputs='labels'"
    """
    return _WRITERS[-1](name, value)


@contextmanager
def written_by(writer: Writer) -> Iterator[None]:
    """Inside the block, messages name arguments as this writer does: what the command line sets as it starts."""
    _WRITERS.append(writer)
    try:
        yield
    finally:
        _WRITERS.remove(writer)
