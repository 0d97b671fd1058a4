"""Layers by name or by module."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn

from camlucida.common.errors import LayerError
from camlucida.engine.borrow import unwrap

INPUT = "input"
"""The name under which the model's input itself is a layer."""

Layer: TypeAlias = str | nn.Module
Layers: TypeAlias = Layer | Sequence[Layer]


def resolve(model: nn.Module, layer: Layer) -> tuple[str, nn.Module | None]:
    """Name and module of a layer.

    Args:
        model: the model, wrapped or not.
        layer: a dotted name, where negative indices count from the end (``"layer4.-1"``); a module of the
            model; or ``"input"``.

    Returns:
        The dotted name and the module, ``None`` for the input.

    Raises:
        LayerError: when the model has no such layer, naming the nearest ones, or when it never runs
            by itself (``ModuleList``, ``ModuleDict``).
    """
    model = unwrap(model)
    if layer == INPUT:
        return INPUT, None
    if isinstance(layer, str):
        # Names taken from a wrapped model start with "module.", which some models' own names do too.
        wanted = _walk(model, layer) or _walk(model, layer.removeprefix("module."))
        if wanted is None:
            raise LayerError(_unknown(model, layer))
    elif isinstance(layer, nn.Module):
        wanted = unwrap(layer)
    else:
        raise LayerError(f"a layer is a dotted name or a module, got {type(layer).__name__}")
    for name, module in model.named_modules():
        if module is wanted:
            return _runnable(name, module)
    raise LayerError(
        f"the given {type(layer).__name__} is not a module of this {type(model).__name__}; "
        "pass one of its own modules or a dotted name"
    )


def _walk(model: nn.Module, layer: str) -> nn.Module | None:
    """The module of a name whose negative parts count from the end; ``None`` where there is none."""
    module = model
    for part in layer.split("."):
        # A module that is used in two places has a name in each; named_children() tells the first only.
        own = module._modules  # noqa: SLF001
        children = {name: child for name, child in own.items() if child is not None}
        if part.startswith("-") and part[1:].isdecimal() and 0 < int(part[1:]) <= len(children):
            module = list(children.values())[int(part)]
        elif part in children:
            module = children[part]
        else:
            return None
    return module


def resolve_all(model: nn.Module, layers: Layers) -> dict[str, nn.Module | None]:
    """Names and modules of one or several layers, in the order given.

    Raises:
        LayerError: for an unknown layer, none at all, or the same one twice.
    """
    if not isinstance(layers, str | nn.Module | Sequence):
        raise LayerError(
            f"layers must be names or modules of the model, got {type(layers).__name__}; "
            "`camlucida layers --tree` lists the names"
        )
    chosen = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not chosen:
        raise LayerError(
            "no layer was given; pass a name, a module, or leave the choice to camlucida"
        )
    found: dict[str, nn.Module | None] = {}
    for layer in chosen:
        name, module = resolve(model, layer)
        if name in found:
            raise LayerError(f"layer {name!r} was given twice")
        found[name] = module
    return found


def _runnable(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    if isinstance(module, torch.jit.ScriptModule):
        raise LayerError(
            f"layer {name!r} is a TorchScript module, whose output cannot be observed; choose one that is none, such "
            "as the block around it"
        )
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        raise LayerError(
            f"layer {name!r} ({type(module).__name__}) never runs by itself; "
            f"choose one of its members, e.g. {name + '.-1'!r}"
        )
    return name, module


def _unknown(model: nn.Module, layer: str) -> str:
    names = [name for name, _ in model.named_modules() if name]
    near = difflib.get_close_matches(layer, names, n=3, cutoff=0.5) or names[-3:]
    return (
        f"{type(model).__name__} has no layer {layer!r}; nearest: {', '.join(map(repr, near))} "
        "(`camlucida layers --tree` lists them all)"
    )
