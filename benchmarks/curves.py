"""Deletion and insertion: few heights chosen as the curve asks for them, and every step as published.

``python -m benchmarks.curves`` from the root; see ``benchmarks/README.md``. The exact curves take 448 forward passes
an image, so start small: ``--rounds 1 --batch 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.command import main
from benchmarks.timing import Contender, Workload
from torch import Tensor

from camlucida import explain
from camlucida.metrics import Deletion, Insertion, Scene


def contenders(task: Workload) -> Iterator[Contender]:
    """Both curves of Grad-CAM's maps, in both ways; what is compared are the two areas."""
    explanation = explain(task.model, task.inputs, target=list(task.classes), layers=task.layer)
    count, _, height, width = task.inputs.shape
    nothing = torch.zeros(count, height, width, dtype=torch.bool)
    with torch.no_grad():
        logits = task.model(task.inputs)
    classes = torch.tensor(task.classes)

    def run(*, exact: bool) -> Tensor:
        scene = Scene(
            task.model, task.inputs, logits, classes, classes, (torch.empty(0, 4),) * count, nothing, nothing[:, 0, 0]
        )  # fmt: skip
        areas = [
            metric.measure(scene, explanation).values[metric.names[0]]
            for metric in (Deletion(exact=exact), Insertion(exact=exact))
        ]
        return torch.stack(areas, 1)[:, None]

    yield Contender("both curves", "camlucida", partial(run, exact=False))
    yield Contender("both curves, exact", "camlucida", partial(run, exact=True))


if __name__ == "__main__":
    main(contenders, "Deletion and insertion")
