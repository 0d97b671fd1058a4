"""What code of others left of a model: all is put back, and what was changed is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def put_back(module: nn.Module) -> Iterator[list[str]]:
    """Put back a model's weights, statistics, gradients, hooks and attributes at the end of the block.

    What parameters require is kept by :func:`camlucida.engine.borrow.borrowed`.

    Args:
        module: the model, borrowed.

    Yields:
        A list that names the weights, statistics and modules that had been changed, when the block has ended.
    """
    changed: list[str] = []
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    modules = dict(module.named_modules())
    tables: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
    for own in map(vars, module.modules()):
        # Its attributes, and the tables of hooks, weights and submodules among them.
        tables += [(t, dict(t)) for t in (own, *own.values()) if isinstance(t, dict)]
    try:
        yield changed
    finally:
        now = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        there = dict(module.named_modules())
        with torch.no_grad():
            for name, tensor in tensors.items():
                if not _same(tensor, copies[name]):
                    tensor.data = copies[name]
                    changed.append(name)
                elif now.get(name) is not tensor and not _same(now.get(name), tensor):
                    changed.append(name)
        changed += [name for name, one in modules.items() if there.get(name) is not one]
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for table, before in tables:
            table.clear()
            table.update(before)


def _same(one: Tensor | None, other: Tensor) -> bool:
    if (
        one is None
        or one.shape != other.shape
        or one.dtype != other.dtype
        or one.device != other.device
    ):
        return False
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
