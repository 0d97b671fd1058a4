"""The registry of kinds of data: what stands before the colon of ``kind:path,option=value``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from camlucida.common.registry import Registry, Row
from camlucida.data.samples import DataSet

Opener = TypeVar("Opener", bound=Callable[..., DataSet])


@dataclass(frozen=True)
class DataKind(Row[DataSet]):
    """A row of the registry.

    ``make`` is called with the path or name as a text, where the kind takes one, and the class names of the model
    (``None`` where it has none); its keyword-only arguments are the options.

    Attributes:
        needs_path: whether a path or name belongs to it.
        fits: called with a ``Path`` that the user gave without a kind: whether such data lie there; ``None`` for never.
        of_model: whether it is the usual data of the model of the same name.

    Example:
        >>> camlucida.data.KINDS["digits"].needs_path
        False
    """

    what: ClassVar[str] = "kind of data"

    needs_path: bool = True
    fits: Callable[[Path], bool] | None = None
    of_model: bool = False


KINDS = Registry(DataKind)


def list_data() -> tuple[DataKind, ...]:
    """The kinds of data sets, in the order of registration.

    Example:
        >>> [row.name for row in camlucida.list_data()][:2]
        ['folder', 'imagenet']
    """
    return tuple(KINDS)


def register(
    name: str,
    *,
    needs_path: bool = True,
    fits: Callable[[Path], bool] | None = None,
    of_model: bool = False,
) -> Callable[[Opener], Opener]:
    """Decorator that makes a kind of data known to :func:`camlucida.data.open_data` and the command line.

    Args:
        name: what is written before the colon.
        needs_path: whether a path or name belongs to it.
        fits: called with a ``Path`` that comes without a kind: whether such data lie there; kinds that were registered
            later are asked first.
        of_model: whether it is the usual data of the model of the same name.

    Raises:
        CamlucidaError: the name is taken by another function.

    Example:
        >>> @camlucida.data.register("one-photo")
        ... def one_photo(path, class_names, *, label: int = 0):
        ...     sample = camlucida.data.Sample("photo", label, path=path)
        ...     return camlucida.data.SampleList("one-photo", [sample])
        >>> camlucida.data.open_data(f"one-photo:{photo},label=3")[0].label
        3
    """

    def add(opener: Opener) -> Opener:
        KINDS.add(DataKind(name, opener, needs_path, fits, of_model))
        return opener

    return add
