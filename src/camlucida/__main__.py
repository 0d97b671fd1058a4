"""The start of the command line: ``camlucida`` and ``python -m camlucida``."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line.

    Ctrl-C while it is being imported ends it with one line. Freed memory is kept for the next allocation (see
    :mod:`camlucida.common.allocator`), which makes forward passes on the CPU about twice as fast.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    from camlucida.cli import main as run
    from camlucida.common.allocator import keep_freed_memory

    keep_freed_memory()
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    return run()


def _stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.stderr.write("camlucida: stopped\n")
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
