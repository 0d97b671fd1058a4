"""Find the tensor in whatever a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from camlucida.common.arguments import Code, argument
from camlucida.common.errors import TargetError

KEYS = ("logits", "out", "image_embeds", "embeddings", "pooler_output", "pred", "output")


def first_tensor(output: Any) -> Tensor:
    """The logits, scores or embeddings in a model's output.

    A tensor is itself; of a mapping, or of an object with such attributes (``ModelOutput``), the first of
    ``logits, out, image_embeds, embeddings, pooler_output, pred, output`` that is a tensor, else its
    only tensor; of a tuple or list, the first tensor.

    Raises:
        TargetError: when there is no such tensor, naming what was found.
    """
    if isinstance(output, Tensor):
        return output
    entries = entries_of(output)
    for key in KEYS:
        if isinstance(found := entries.get(key), Tensor):
            return found
    if isinstance(output, tuple | list):
        for item in output:
            if isinstance(item, Tensor):
                return item
    tensors = [value for value in entries.values() if isinstance(value, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    listed = ", ".join(map(str, entries)) if entries else type(output).__name__
    raise TargetError(
        f"no logits were found in the model's output ({listed}); say which of them with "
        f"{argument('head', Code('NAME'))}, pass a function of the whole output as the target, or wrap the model so "
        f"that it returns a tensor, or a mapping with one of {', '.join(KEYS)}"
    )


def entries_of(output: Any) -> dict[Any, Any]:
    """What an output holds by name: of a mapping, a named tuple, a dataclass or another object."""
    if isinstance(output, Tensor):
        return {}
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "_asdict"):  # named tuples
        return dict(output._asdict())
    if is_dataclass(output) and not isinstance(output, type):  # with slots it has no dictionary
        return {one.name: getattr(output, one.name) for one in fields(output)}
    return dict(vars(output)) if hasattr(output, "__dict__") else {}


def all_tensors(output: Any) -> list[Tensor]:
    """Every floating-point tensor in a model's output, however it is nested."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    items = output if isinstance(output, tuple | list) else entries_of(output).values()
    return [tensor for item in items for tensor in all_tensors(item)]


def heads_of(output: Any) -> dict[str, Tensor]:
    """Every tensor of an output by the name, position or path that a head is chosen by; the same tensor once."""
    found: dict[str, Tensor] = {}

    def gather(inside: Any, path: str) -> None:
        if isinstance(inside, Tensor):
            if not any(inside is known for known in found.values()):
                found[path] = inside
            return
        listed = isinstance(inside, tuple | list) and not hasattr(inside, "_fields")
        for name, one in enumerate(inside) if listed else entries_of(inside).items():
            if isinstance(one, Tensor | Mapping | tuple | list):
                gather(one, f"{path}.{name}" if path else str(name))

    gather(output, "")
    return found


def outcome(output: Any) -> list[Tensor]:
    """What the model is asked for: its logits where they can be told, else all tensors that it returns."""
    try:
        return [first_tensor(output)]
    except TargetError:
        return all_tensors(output)
