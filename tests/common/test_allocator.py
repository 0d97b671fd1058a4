"""Freed memory is kept where asked, and only there."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from camlucida.common.allocator import keep_freed_memory, keeps_freed_memory
assert not keeps_freed_memory()
done = keep_freed_memory()
assert done == keeps_freed_memory()
import torch
def faults():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
kept = [torch.ones(2**22) for _ in range(8)]
del kept
before = faults()
for _ in range(20):
    torch.ones(2**22)
print(done, faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_tensors_are_not_given_back_and_faulted_in_again():
    def run(**environment):
        found = subprocess.run(  # noqa: S603
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **environment},
        )
        done, faults = found.stdout.split()
        return done == "True", int(faults)

    done, kept = run()
    assert done
    refused, usual = run(CAMLUCIDA_ALLOCATOR="system")
    assert not refused
    assert kept * 10 < usual
