"""Plug-ins: modules of other packages that register methods, metrics, targets, kinds of data or audits."""

from __future__ import annotations

import importlib
import os
import warnings
from importlib.metadata import entry_points

from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import first_line

GROUP = "camlucida.plugins"
"""Group of entry points under which a package names its plug-in modules."""

VARIABLE = "CAMLUCIDA_PLUGINS"
"""Environment variable with further modules, separated by commas."""

_LOADED: dict[str, bool] = {}


def load_plugins() -> tuple[str, ...]:
    """Import the plug-ins of all installed packages, and those that ``CAMLUCIDA_PLUGINS`` names.

    What they register is then known like our own. The command line does this before it runs a command; in Python it
    is done by this function, or by importing the modules. Each plug-in is imported once, in the order of its name.
    One of an installed package that cannot be imported is warned of and left out.

    Returns:
        The modules that were imported, now or before.

    Raises:
        CamlucidaError: a module that ``CAMLUCIDA_PLUGINS`` names cannot be imported.

    Example:
        >>> camlucida.load_plugins()
        ()
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.value):
        package = point.dist.name if point.dist else "an installed package"
        if point.value in _LOADED:
            continue
        _LOADED[point.value] = False
        try:
            point.load()
            _LOADED[point.value] = True
        except Exception as error:
            warnings.warn(
                f"the plug-in {point.value!r} of {package} is left out: it {_fault(error)}",
                stacklevel=2,
            )
    for name in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        if not _LOADED.get(name):
            try:
                importlib.import_module(name)
            except Exception as error:
                raise CamlucidaError(
                    f"the plug-in {name!r}, which {VARIABLE} names, {_fault(error)}"
                ) from error
            _LOADED[name] = True
    return tuple(name for name, loaded in _LOADED.items() if loaded)


def _fault(error: Exception) -> str:
    kind = "" if isinstance(error, ImportError | CamlucidaError) else f"{type(error).__name__}: "
    return f"cannot be imported ({kind}{first_line(error)})"
