"""What belongs to the whole process and is kept while models are borrowed, by whatever number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor

from camlucida.common.turns import has_any

_LOCK = threading.Lock()


class _Random:
    """The random state at the first of several overlapping loans, which the last one puts back."""

    loans = 0
    states: dict[torch.device, Tensor]


@contextmanager
def random_state(inputs: Tensor | None) -> Iterator[None]:
    """Keep the random state of the CPU and of the inputs' GPU."""
    with _LOCK:
        if _Random.loans == 0:
            _Random.states = {torch.device("cpu"): torch.get_rng_state()}
        if (
            inputs is not None
            and inputs.device.type == "cuda"
            and inputs.device not in _Random.states
        ):
            _Random.states[inputs.device] = torch.cuda.get_rng_state(inputs.device)
        _Random.loans += 1
    try:
        yield
    finally:
        with _LOCK:
            _Random.loans -= 1
            if _Random.loans == 0:
                for device, state in _Random.states.items():
                    if device.type == "cuda":
                        torch.cuda.set_rng_state(state, device)
                    else:
                        torch.set_rng_state(state)


# ------------------------------------------------------------------------------------- gradient checkpointing


class _Straight:
    """In place of torch's reentrant checkpoint: runs the function as it stands, where a model is borrowed."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def apply(self, function: Any, preserve: Any, *args: Any) -> Any:
        if has_any():
            return function(*args)
        return self.original.apply(function, preserve, *args)


class _Patched:
    loans = 0
    originals: dict[str, Any]


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Inside the block ``torch.utils.checkpoint`` recomputes nothing in threads that have borrowed a model.

    Its function runs once, with a graph of its own: the same numbers, and layers run once.
    """
    with _LOCK:
        if _Patched.loans == 0:
            _patch()
        _Patched.loans += 1
    try:
        yield
    finally:
        with _LOCK:
            _Patched.loans -= 1
            if _Patched.loans == 0:
                for name, original in _Patched.originals.items():
                    setattr(torch_checkpoint, name, original)


def _patch() -> None:
    """Exchange what torch looks up when a checkpoint begins."""
    straight: dict[str, Callable[[Any], Any]] = {
        "CheckpointFunction": _Straight,
        "_checkpoint_hook": lambda hook: lambda *args: nullcontext() if has_any() else hook(*args),
    }
    _Patched.originals = {
        name: getattr(torch_checkpoint, name)
        for name in straight
        if hasattr(torch_checkpoint, name)
    }
    for name, original in _Patched.originals.items():
        setattr(torch_checkpoint, name, straight[name](original))
