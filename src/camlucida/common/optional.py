"""Optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import re
import textwrap
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


def has(package: str) -> bool:
    """Whether an optional package is installed."""
    return importlib.util.find_spec(package) is not None


def first_line(error: BaseException) -> str:
    """The first sentence of an error's text, at most 200 characters in whole words, or the error's type.

    PyTorch's page on weights_only is not passed on: it advises to run the file's code.
    """
    said = str(error).strip()
    if "weights_only" in said:
        return "it contains code, which is never run, or cannot be read as plain weights"
    # A line that goes on in small letters, or after a colon or comma, was broken within the sentence.
    ends = r"(?<=[.!?;])\s+(?=[A-Z])|(?<![:,])\n\s*(?=[^a-z\s])"
    first = " ".join(re.split(ends, said, maxsplit=1)[0].split())
    return textwrap.shorten(first, 200, placeholder=" ...").rstrip(" .;:") or type(error).__name__
