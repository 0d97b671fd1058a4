"""Work out the next results while the last ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 2
"""That read photos, unless told otherwise."""


def ahead(
    items: Iterable[T], function: Callable[[T], R], threads: int, depth: int
) -> Generator[tuple[T, R], None, None]:
    """Results of a function in the items' order, worked out in threads at most ``depth`` items ahead."""
    pending: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="camlucida-read")
    try:
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > depth:
                known, future = pending.popleft()
                yield known, future.result()
        while pending:
            known, future = pending.popleft()
            yield known, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
