"""Optional packages."""

from __future__ import annotations

import importlib
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


def first_line(error: BaseException) -> str:
    """The first sentence of an error's text, at most 200 characters in whole words, or the error's type.

    PyTorch's page on weights_only is not passed on: it advises to run the file's code.
    """
    said = " ".join(str(error).split())
    if "weights_only" in said:
        return "it contains code, which is never run, or cannot be read as plain weights"
    first = re.split(r"(?<=[.!?;])\s+(?=[A-Z])", said, maxsplit=1)[0]
    return textwrap.shorten(first, 200, placeholder=" ...").rstrip(" .;:") or type(error).__name__
