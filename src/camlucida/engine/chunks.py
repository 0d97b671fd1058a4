"""Many forward passes within a memory budget: how many copies go through a model at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from camlucida.common.turns import here, watchable

_LOG = logging.getLogger("camlucida")

CPU_MEMORY = 120.0
"""Megabytes that one pass takes on a CPU, by default: larger batches leave the caches and are slower."""

GPU_MEMORY = 2048.0
"""The same on every other device."""

LARGEST = 64
"""No more copies than this go through at a time: larger batches gain nothing."""

_ALIVE = 4
"""How many tensors as large as the largest are alive at a time, roughly."""


class Footprint:
    """Measures, in a forward pass inside the block, the bytes of the largest tensor per image.

    Args:
        model: whose modules are watched.
        images: in that pass.
    """

    def __init__(self, model: nn.Module, images: int) -> None:
        self.model = model
        self.images = max(images, 1)
        self.largest = 0

    def __enter__(self) -> Self:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            for tensor in (*args, output):
                if isinstance(tensor, Tensor):
                    self.largest = max(self.largest, tensor.numel() * tensor.element_size())

        leaves = [m for _, m in watchable(self.model) if next(m.children(), None) is None]
        self._handles = [module.register_forward_hook(here(hook)) for module in leaves]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def per_image(self) -> int:
        """Bytes that one image needs on its way, roughly and rather too many."""
        return max(1, _ALIVE * self.largest // self.images)


class Chunks:
    """Splits work into passes that fit into memory.

    Args:
        chunk: copies in one pass, as asked for by the user; ``None`` to go by memory.
        memory: megabytes that the copies of one pass may take; ``None`` for what is fast on the device.
        per_copy: bytes that one copy needs.
        device: where the work is done.

    Attributes:
        size: copies in one pass; halved, for good, when the device runs out of memory.
    """

    def __init__(
        self, chunk: int | None, memory: float | None, per_copy: int, device: torch.device
    ) -> None:
        if memory is None:
            memory = CPU_MEMORY if device.type == "cpu" else GPU_MEMORY
        fits = max(1, min(LARGEST, int(memory * 1e6) // max(per_copy, 1)))
        self.size = fits if chunk is None else chunk

    def run(
        self,
        work: Callable[[int, int], Tensor],
        total: int,
        done: Callable[[int], None] | None = None,
    ) -> Tensor:
        """``work(start, stop)`` over ``range(total)``, its results concatenated.

        Args:
            work: from a range to a tensor with one row per position.
            total: positions, at least 1.
            done: called with the number of positions that are done.

        Raises:
            RuntimeError: what the device raised, when a single position does not fit.
        """
        parts: list[Tensor] = []
        start = 0
        while start < total:
            stop = min(start + self.size, total)
            part = self._try(work, start, stop)
            if part is None:
                # Only here has the failed pass let go of its tensors.
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            parts.append(part)
            start = stop
            if done is not None:
                done(start)
        return torch.cat(parts)

    def _try(self, work: Callable[[int, int], Tensor], start: int, stop: int) -> Tensor | None:
        try:
            return work(start, stop)
        except RuntimeError as error:
            if stop - start == 1 or not out_of_memory(error):
                raise
            self.size = (stop - start) // 2
            _LOG.warning("out of memory: going on with %d copies at a time", self.size)
            return None


_WORDS = "out of memory", "ALLOC_FAILED", "not enough memory", "can't allocate memory"
"""Of errors that mean the same: those of cuDNN, cuBLAS, Apple's GPUs and the CPU."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this says that the memory, of the device or the machine, is too small."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in _WORDS
    )
