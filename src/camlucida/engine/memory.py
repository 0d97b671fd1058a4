"""How much memory a computation takes, on top of what is there already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Peak:
    """The most memory that tensors held together.

    Attributes:
        bytes: so far.
    """

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Watch the tensors that are made inside: on a GPU by its allocator, else by what every operation returns."""
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            yield found
        finally:
            found.bytes = torch.cuda.max_memory_allocated(device) - before
    else:
        with _Watch(found):
            yield found


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive after every operation."""

    def __init__(self, found: Peak) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and (key := _key(one)) not in given:
                storage = one.untyped_storage()
                self._alive[key] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}  # type: ignore[no-untyped-call]
        self._found.bytes = max(self._found.bytes, sum(size for _, size in self._alive.values()))
        return result


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - what tells storages apart
