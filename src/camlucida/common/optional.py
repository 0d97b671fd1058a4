"""Optional packages, and words about what is missing."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from camlucida.common.errors import ModelError


def require(package: str, extra: str = "models") -> Any:
    """Import an optional package.

    Args:
        package: Name of the module to import.
        extra: The extra of camlucida that installs it.

    Returns:
        The module.

    Raises:
        ModelError: It is not installed, or its import fails.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package.partition(".")[0]:
            reason = f"{package} is not installed"
        else:
            reason = f"{package} cannot be imported ({first_line(error)})"
        raise ModelError(f'{reason}; install it with: pip install "camlucida[{extra}]"') from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters, or the error's type.

    PyTorch's page on weights_only is not passed on: it advises to run the file's code.
    """
    lines = str(error).strip().splitlines()
    if lines and "weights_only" in lines[0]:
        return "it contains code, which is never run, or cannot be read as plain weights"
    return lines[0][:200].rstrip(" .") if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error for an unknown name: up to three similar names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
