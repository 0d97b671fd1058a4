"""Score-CAM and AblationCAM: ours and those of two peer libraries.

``python -m benchmarks.perturbation`` from the root; see ``benchmarks/README.md``. These methods cost
one forward pass per channel, so start small: ``--rounds 1 --batch 1``, and ``--only`` for single rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.command import main
from benchmarks.timing import Contender, Workload, peers
from torch import Tensor

from camlucida.methods import Method, RawMap, Task, build

OURS: dict[str, dict[str, Any]] = {
    "scorecam": {},
    "scorecam bf16": {"precision": "bf16"},
    "scorecam top_k=64": {"top_k": 64},
    "ablationcam": {},
}

PEERS = {"ScoreCAM": "scorecam", "AblationCAM": "ablationcam"}


def contenders(task: Workload) -> Iterator[Contender]:
    """All rows, ours first."""
    yield from _ours(task)
    yield from peers(
        task,
        ("pytorch-grad-cam", "pytorch_grad_cam", _pytorch_grad_cam),
        ("torch-cam", "torchcam.methods", _torch_cam),
    )


def _ours(task: Workload) -> Iterator[Contender]:
    def run(method: Method, target: Any) -> RawMap:
        return method.run(Task.of(task.model, task.inputs, target, task.layer))

    def rectified(method: Method, raw: RawMap) -> Tensor:
        return method.steps.layer(raw.fused)

    for label, options in OURS.items():
        method, target = build(label.partition(" ")[0], list(task.classes), **options)
        yield Contender(
            label,
            "camlucida",
            partial(run, method, target),
            maps=partial(rectified, method),
            like=label.partition(" ")[0] if options else None,
        )


def _pytorch_grad_cam(package: Any, library: str, task: Workload) -> Iterator[Contender]:
    _without_bars()
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    wanted = [targets.ClassifierOutputTarget(index) for index in task.classes]
    for name, ours in PEERS.items():
        yield Contender(
            name,
            library,
            lambda cam: cam(input_tensor=task.inputs, targets=wanted),
            build=partial(getattr(package, name), task.model, [task.module]),
            like=ours,
        )


def _without_bars() -> None:
    """Their progress bars cannot be switched off otherwise."""
    for name in ("score_cam", "ablation_cam"):
        module = importlib.import_module(f"pytorch_grad_cam.{name}")
        module.tqdm.tqdm = partial(module.tqdm.tqdm, disable=True)


def _torch_cam(package: Any, library: str, task: Workload) -> Iterator[Contender]:
    classes = list(task.classes)
    yield Contender(
        "ScoreCAM",
        library,
        lambda cam: cam(class_idx=classes, scores=task.model(task.inputs))[0],
        build=partial(package.ScoreCAM, task.model, task.layer),
        like="scorecam",
    )


if __name__ == "__main__":
    main(contenders, "Perturbation methods")
