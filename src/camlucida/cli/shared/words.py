"""Arguments of the functions behind a command in the words of its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from typer.core import TyperOption

from camlucida.common.arguments import Writer, in_python

_NAMES: Mapping[str, tuple[str, str]] = {
    "target": ("class_", "{}"),
    "layers": ("layer", "{}"),
    "head": ("outputs", "head={}"),
    "size": ("size", "{}"),
    "preprocess": ("size", ""),
}
"""Of arguments that a command calls otherwise: the parameter, and how its value is written."""


def option_words(parameters: Iterable[Any]) -> Writer:
    """Names arguments as the options of a command; what it has no option for is said to be for Python."""
    options = {p.name: p.opts[0] for p in parameters if isinstance(p, TyperOption)}

    def write(name: str, value: Any) -> str:
        own, form = _NAMES.get(name, (name, "{}"))
        if own not in options:
            return f"{in_python(name, value)} in Python"
        if isinstance(value, Mapping):
            return " ".join(f"--{key} {written}" for key, written in value.items())
        if name == "preprocess":
            return "--size, --resize, --crop, --mean and --std"
        written = form.format("" if value is None else value)
        return f"{options[own]} {written}".strip()

    return write
