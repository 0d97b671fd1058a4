"""FAME and I-CAM against the passes they are made of.

``python -m benchmarks.fame_icam`` from the repository's root; see ``benchmarks/README.md``. The passes are what a
careful user would write, as many as the method makes; all rows run with the memory settings of the command line. What
is found out about a model once, its fastest form, layout and compiled step, is found before the clock runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from benchmarks.command import main
from benchmarks.timing import Contender, Workload
from torch import Tensor

from camlucida.common.allocator import keep_freed_memory
from camlucida.methods import FAME, ICAM, Method, Task

ITERATIONS = 20
COPIES = 8


def contenders(task: Workload) -> Iterator[Contender]:
    """Each method after the bare passes that it should not cost much more than."""
    yield Contender(
        f"forward + backward to the pixels, x {ITERATIONS}",
        "torch",
        lambda: _passes(task, ITERATIONS),
    )
    yield Contender(
        f"fame ({ITERATIONS} iterations)", "camlucida", lambda: _run(task, FAME(ITERATIONS))
    )
    yield Contender(
        f"fame ({ITERATIONS} iterations, compiled step)",
        "camlucida",
        lambda: _run(task, FAME(ITERATIONS, compiled=True)),
    )
    yield Contender(
        f"fame ({ITERATIONS} iterations, bf16)",
        "camlucida",
        lambda: _run(task, FAME(ITERATIONS, precision="bf16")),
    )
    yield Contender(
        f"forward + backward to the pixels, x {COPIES + 2}",
        "torch",
        lambda: _passes(task, COPIES + 2),
    )
    yield Contender(
        f"icam (n = {COPIES})",
        "camlucida",
        lambda: _run(task, ICAM(n_perturb=COPIES)),
    )


def _passes(task: Workload, count: int) -> Tensor:
    """What a careful user would write: no gradient of a parameter is computed."""
    gradient = torch.zeros_like(task.inputs)
    required = [p for p in task.model.parameters() if p.requires_grad]
    rows = torch.arange(len(task.inputs))
    try:
        for parameter in required:
            parameter.requires_grad_(False)
        for _ in range(count):
            x = task.inputs.detach().clone().requires_grad_()
            score = task.model(x)[rows, list(task.classes)].sum()
            (gradient,) = torch.autograd.grad(score, x)
    finally:
        for parameter in required:
            parameter.requires_grad_(True)
    return gradient.sum(1)


def _run(task: Workload, method: Method) -> Tensor:
    layers = method.default_layers(task.model, task.inputs)
    asked = Task.of(task.model, task.inputs, list(task.classes), layers)
    return method.run(asked).fused


if __name__ == "__main__":
    keep_freed_memory()
    main(contenders, "FAME and I-CAM")
