"""One thread at a time has a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from camlucida.common.errors import ModelError

_CHANGED = threading.Condition()
_HELD: dict[int, int] = {}
"""Which thread has which module, by their identities."""
_WAITS: dict[int, int] = {}
"""Which thread waits for which."""
_MINE = threading.local()


@contextmanager
def turn(model: nn.Module) -> Iterator[None]:
    """Wait until no other thread has the model or shares a module with it, and have it inside the block.

    Threads may nest their turns. Models without a module in common do not wait for each other.

    Raises:
        ModelError: two threads would wait for each other for ever, as each has the model that the other wants.
    """
    me = threading.get_ident()
    wanted = {id(module) for module in model.modules()}
    with _CHANGED:
        while (other := _holder(wanted, me)) is not None:
            if _leads_to(me, other):
                raise ModelError(
                    "two threads have one model each and want the other's as well, so they would wait for ever; let "
                    "every thread take the models in the same order"
                )
            _WAITS[me] = other
            try:
                _CHANGED.wait()
            finally:
                del _WAITS[me]
        new = wanted - _HELD.keys()
        _HELD.update(dict.fromkeys(new, me))
    _MINE.turns = getattr(_MINE, "turns", 0) + 1
    try:
        yield
    finally:
        _MINE.turns -= 1
        with _CHANGED:
            for module in new:
                del _HELD[module]
            _CHANGED.notify_all()


def has_any() -> bool:
    """Whether this thread has a model."""
    return getattr(_MINE, "turns", 0) > 0


def watchable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of all of a model that can be watched as it runs: TorchScript takes no hooks."""
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            yield name, module


def here(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook for this thread's passes only: others may run the model meanwhile."""
    thread = threading.get_ident()
    return lambda *args: hook(*args) if threading.get_ident() == thread else None


def _holder(wanted: set[int], me: int) -> int | None:
    holders = {_HELD.get(module, me) for module in wanted} - {me}
    return min(holders, default=None)


def _leads_to(me: int, other: int) -> bool:
    """Whether a thread waits for this one, be it through others."""
    seen: set[int] = set()
    while other in _WAITS and other not in seen:
        seen.add(other)
        other = _WAITS[other]
        if other == me:
            return True
    return False
