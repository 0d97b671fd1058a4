"""Deletion and insertion: few heights chosen as the curve asks for them, every step as published, and Quantus.

``python -m benchmarks.curves`` from the root; see ``benchmarks/README.md``. Every step takes 224 forward passes
an image, so start small: ``--rounds 1 --batch 1``. Random weights give flat curves: use ``--model embedded``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmarks.command import main
from benchmarks.timing import Contender, Workload, peers
from torch import Tensor

from camlucida import Explanation, explain
from camlucida.metrics import Deletion, Insertion, Scene
from camlucida.metrics.curves import _Way

STEP = 224
"""Pixels that change at a time."""


def contenders(task: Workload) -> Iterator[Contender]:
    """The curves of Grad-CAM's maps in both ways; Quantus's call of deletion is PixelFlipping."""
    explanation = explain(task.model, task.inputs, target=list(task.classes), layers=task.layer)
    for way in (Deletion, Insertion):
        name = way.__name__.lower()
        yield Contender(
            f"{name}, every step", "camlucida", partial(_curve, way(exact=True), task, explanation)
        )
        yield Contender(
            name, "camlucida", partial(_curve, way(), task, explanation), like=f"{name}, every step"
        )
    yield from peers(task, ("Quantus", "quantus", partial(_quantus, explanation)))


def _curve(metric: _Way, task: Workload, explanation: Explanation) -> Tensor:
    count, _, height, width = task.inputs.shape
    nothing = torch.zeros(count, height, width, dtype=torch.bool)
    with torch.no_grad():
        logits = task.model(task.inputs)
    classes = torch.tensor(task.classes)
    scene = Scene(
        task.model, task.inputs, logits, classes, classes, (torch.empty(0, 4),) * count, nothing, nothing[:, 0, 0]
    )  # fmt: skip
    return metric.measure(scene, explanation).curves[metric.names[0]][:, None]


def _quantus(
    explanation: Explanation, package: Any, library: str, task: Workload
) -> Iterator[Contender]:
    metric = package.PixelFlipping(
        features_in_step=STEP, perturb_baseline=0.0, normalise=False, disable_warnings=True
    )
    classes = np.array(task.classes)

    def run() -> Tensor:
        curves = metric(
            model=task.model,
            x_batch=task.inputs.numpy(),
            y_batch=classes,
            a_batch=explanation.maps[:, None].numpy(),
            batch_size=len(classes),
        )
        return torch.tensor(np.array(curves))[:, None]

    yield Contender("PixelFlipping", library, run, like="deletion, every step")


if __name__ == "__main__":
    main(contenders, "Deletion and insertion")
