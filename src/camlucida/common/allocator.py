"""The C library's memory, kept by the process for its next tensors."""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = "CAMLUCIDA_ALLOCATOR"
"""Set to ``system``, this environment variable leaves the C library's memory as it is."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of <malloc.h>
_KEPT = 2**31 - 1  # bytes; mallopt takes an int
_PAD = 64 * 2**20

_KEEPS: list[bool] = []


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory instead of giving each large tensor back to the system.

    By default every tensor of more than 128 kB to 32 MB is a mapping of its own, which the system clears page by page
    each time: a forward pass on the CPU can take twice as long. The command line does this for its own processes;
    the library never does it unasked, since it holds for the whole process, which then gives less memory back.

    Returns:
        Whether it was done: only on Linux with glibc, and not where :data:`SWITCH` says ``system``.

    Example:
        >>> from camlucida.common.allocator import keep_freed_memory
        >>> done = keep_freed_memory()
    """
    if sys.platform != "linux" or os.environ.get(SWITCH, "") == "system":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _PAD))
    done = all(int(mallopt(name, value)) for name, value in settings)
    _KEEPS.append(done)
    return done


def keeps_freed_memory() -> bool:
    """Whether this process does; workers that it starts are to do the same."""
    return any(_KEEPS)
