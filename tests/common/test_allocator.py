"""Freed memory is kept where asked, and only there."""

import os
import subprocess
import sys

import pytest

CODE = """
from camlucida.common.allocator import keep_freed_memory, keeps_freed_memory
assert not keeps_freed_memory()
done = keep_freed_memory()
assert done == keeps_freed_memory()
def heap():
    with open('/proc/self/maps') as file:
        ends = [line.split()[0].split('-') for line in file if line.rstrip().endswith('[heap]')]
    return sum(int(b, 16) - int(a, 16) for a, b in ends)
def grown(count):
    before = heap()
    blocks = [bytearray(2**20) for _ in range(count)]
    while_held = heap() - before
    del blocks
    return while_held, heap() - before
print(done, *grown(200))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_blocks_come_from_memory_that_is_kept():
    """By default each is a mapping of its own, which the system takes back at once."""

    def run(**environment):
        found = subprocess.run(  # noqa: S603
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **environment},
        )
        done, held, kept = found.stdout.split()
        return done == "True", int(held), int(kept)

    done, held, kept = run()
    assert done
    assert held >= 200 * 2**20
    assert kept >= 200 * 2**20
    done, held, _ = run(CAMLUCIDA_ALLOCATOR="system")
    assert not done
    assert held < 20 * 2**20
