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
net = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 1), torch.nn.BatchNorm2d(16), torch.nn.ReLU()) * 3).eval()
x = torch.ones(2, 16, 200, 200)
with torch.inference_mode():
    for _ in range(10):
        net(x)
    before = faults()
    for _ in range(20):
        net(x)
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
    assert kept * 3 < usual
