"""Optimised, masked and newer methods: Opti-CAM, RISE, SS-CAM, IS-CAM, the relatives of Grad-CAM, smoothing.

``python -m benchmarks.relatives`` from the root; see ``benchmarks/README.md``. With a transformer,
``--model vit_b_16``, it is the methods that read attention.
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
from camlucida.methods.attention import AttentionMethod

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "opticam, 10 steps": ("opticam", {"iterations": 10}),
    "rise, 100 masks": ("rise", {"masks": 100}),
    "sscam, top_k=32, 2 samples": ("sscam", {"top_k": 32, "samples": 2}),
    "iscam, top_k=32, 2 samples": ("iscam", {"top_k": 32, "samples": 2}),
    "eigengradcam": ("eigengradcam", {}),
    "finercam": ("finercam", {}),
    "shapleycam": ("shapleycam", {}),
    "refinecam": ("refinecam", {}),
    "gradcam, augmentation smoothing": ("gradcam", {"aug_smooth": True}),
    "gradcam, eigen smoothing": ("gradcam", {"eigen_smooth": True}),
}
"""What is slow runs with few steps; its cost is proportional to them."""

ATTENTION = {"attention rollout": "rollout", "attention legrad": "legrad"}

PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "EigenGradCAM": ("eigengradcam", {}),
    "FinerCAM": ("finercam", {}),
    "ShapleyCAM": ("shapleycam", {}),
    "GradCAM, aug_smooth": ("gradcam, augmentation smoothing", {"aug_smooth": True}),
    "GradCAM, eigen_smooth": ("gradcam, eigen smoothing", {"eigen_smooth": True}),
}
"""Of pytorch-grad-cam: the row of ours that it is held against, and the options of the call."""


def contenders(task: Workload) -> Iterator[Contender]:
    """All rows, ours first."""
    attends = (
        "vit" in type(task.model).__name__.lower() or "vision" in type(task.model).__name__.lower()
    )
    rows = {row: (name, {}) for row, name in ATTENTION.items()} if attends else OURS
    for row, (name, options) in rows.items():
        method, target = build(name, list(task.classes), **options)
        yield Contender(
            row, "camlucida", partial(_run, task, method, target), maps=partial(_rectified, method)
        )
    torch_cam = ("torch-cam", "torchcam.methods", partial(_torch_cam, attends=attends))
    pytorch_grad_cam = ("pytorch-grad-cam", "pytorch_grad_cam", _pytorch_grad_cam)
    yield from peers(task, torch_cam, *([] if attends else [pytorch_grad_cam]))


def _run(task: Workload, method: Method, target: Any) -> RawMap:
    layers = (task.layer,) if method.uses_layers else ("input",)
    if isinstance(method, AttentionMethod):
        layers = method.default_layers(task.model, task.inputs)
    return method.run(Task.of(task.model, task.inputs, target, layers))


def _rectified(method: Method, raw: RawMap) -> Tensor:
    return method.steps.layer(raw.fused)


def _pytorch_grad_cam(package: Any, library: str, task: Workload) -> Iterator[Contender]:
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    wanted = [targets.ClassifierOutputTarget(index) for index in task.classes]
    for row, (ours, options) in PEERS.items():
        name = row.partition(",")[0]
        yield Contender(
            row,
            library,
            lambda cam, name=name, options=options: cam(
                input_tensor=task.inputs, targets=None if name == "FinerCAM" else wanted, **options
            ),
            build=partial(getattr(package, name), task.model, [task.module]),
            like=ours,
        )


def _torch_cam(package: Any, library: str, task: Workload, *, attends: bool) -> Iterator[Contender]:
    classes = list(task.classes)
    names = {"LeGrad": "attention legrad"} if attends else {"FinerCAM": "finercam"}
    for name, ours in names.items():
        yield Contender(
            name,
            library,
            lambda cam: cam(class_idx=classes, scores=task.model(task.inputs))[0],
            build=partial(getattr(package, name), task.model, task.layer),
            like=ours,
        )


if __name__ == "__main__":
    main(contenders, "Optimised, masked and newer methods")
