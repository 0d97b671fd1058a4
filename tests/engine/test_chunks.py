"""How many copies go through a model at a time."""

import pytest
import torch
from torch import nn

from camlucida.engine.chunks import Chunks, Footprint
from reference import networks


def test_memory_bounds_the_chunk():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Tanh()).double()
    x = networks.images(2, 3, (9, 11))
    with Footprint(net, 2) as footprint, torch.no_grad():
        net(x)
    # The largest tensor is what the first convolution returns, (2, 5, 5, 6) in double precision, or its input.
    assert footprint.per_image == 4 * max(5 * 5 * 6, 3 * 9 * 11) * 8
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert Chunks(None, 1.0, 250_000, cpu).size == 4
    assert Chunks(None, 1.0, 10**9, cpu).size == 1
    assert Chunks(None, 10**6, 1, cpu).size == 64
    assert Chunks(100, 1.0, 10**9, cpu).size == 100
    assert Chunks(None, None, 60 * 10**6, cpu).size == 2
    assert Chunks(None, None, 60 * 10**6, gpu).size == 34


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
    ],
    ids=str,
)
def test_out_of_memory_in_all_its_words(error):
    ranges, done = [], []

    def work(start, stop):
        ranges.append((start, stop))
        if stop - start > 2:
            raise error
        return torch.arange(start, stop)

    chunks = Chunks(5, None, 1, torch.device("cpu"))
    assert chunks.run(work, 6, done.append).tolist() == list(range(6))
    assert ranges == [(0, 5), (0, 2), (2, 4), (4, 6)]
    assert done == [2, 4, 6]
    assert chunks.size == 2


def test_other_errors_are_no_reason_to_halve():
    def work(start, stop):
        raise RuntimeError(f"a broken model, {start}, {stop}")

    with pytest.raises(RuntimeError, match="broken model, 0, 5"):
        Chunks(5, None, 1, torch.device("cpu")).run(work, 6)
