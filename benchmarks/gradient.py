"""Gradient methods and the forward-only ones beside them: ours and those of three peer libraries.

``python -m benchmarks.gradient`` from the repository's root; see ``benchmarks/README.md``.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from benchmarks.command import main
from benchmarks.timing import Contender, Workload, built, peers
from torch import Tensor

import camlucida
from camlucida.methods import Method, RawMap, Task, build

STEPS = 4
"""Steps of the methods that repeat the backward pass; their cost is proportional to it."""

OURS: dict[str, dict[str, Any]] = {
    "gradcam": {},
    "diffgradcam": {},
    "gradcam++": {},
    "xgradcam": {},
    "hirescam": {},
    "gradcam-ew": {},
    "layercam": {},
    "eigencam": {},
    "cam": {},
    "fullgrad": {},
    "saliency": {},
    "inputxgradient": {},
    "integrated-gradients": {"n_steps": STEPS},
    "smoothgrad": {"n_samples": STEPS},
}

PYTORCH_GRAD_CAM = {
    "GradCAM": "gradcam",
    "GradCAMPlusPlus": "gradcam++",
    "XGradCAM": "xgradcam",
    "HiResCAM": "hirescam",
    "GradCAMElementWise": "gradcam-ew",
    "LayerCAM": "layercam",
    "EigenCAM": "eigencam",
    "FullGrad": "fullgrad",
}

TORCH_CAM = {
    "GradCAM": "gradcam",
    "GradCAMpp": "gradcam++",
    "XGradCAM": "xgradcam",
    "LayerCAM": "layercam",
}


def contenders(task: Workload) -> Iterator[Contender]:
    """All rows, ours first."""
    yield from _ours(task)
    yield from peers(
        task,
        ("pytorch-grad-cam", "pytorch_grad_cam", _pytorch_grad_cam),
        ("torch-cam", "torchcam.methods", _torch_cam),
        ("captum", "captum.attr", _captum),
    )


def _ours(task: Workload) -> Iterator[Contender]:
    def run(method: Method, target: Any) -> RawMap:
        # As explain does: the generators are part of the price.
        return method.run(Task.of(task.model, task.inputs, target, task.layer))

    def rectified(method: Method, raw: RawMap) -> Tensor:
        return method.steps.layer(raw.fused)

    classes = list(task.classes)
    for name, options in OURS.items():
        method, target = build(name, classes, **options)
        label = name + "".join(f" ({value} steps)" for value in options.values())
        yield Contender(
            label,
            "camlucida",
            partial(run, method, target.resolve(lambda _: 0)),
            maps=partial(rectified, method),
        )
        if name == "gradcam":
            yield Contender(
                "explain(model, tensor)",
                "camlucida",
                lambda: camlucida.explain(task.model, task.inputs, target=classes),
                maps=lambda explanation: explanation.maps,
                like="gradcam",
            )


def _pytorch_grad_cam(package: Any, library: str, task: Workload) -> Iterator[Contender]:
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    wanted = [targets.ClassifierOutputTarget(index) for index in task.classes]
    for name, ours in PYTORCH_GRAD_CAM.items():
        layers = [] if name == "FullGrad" else [task.module]
        yield Contender(
            name,
            library,
            lambda cam: cam(input_tensor=task.inputs, targets=wanted),
            build=partial(getattr(package, name), task.model, layers),
            like=ours,
        )


def _torch_cam(package: Any, library: str, task: Workload) -> Iterator[Contender]:
    classes = list(task.classes)
    for name, ours in TORCH_CAM.items():
        yield Contender(
            name,
            library,
            lambda cam: cam(class_idx=classes, scores=task.model(task.inputs))[0],
            build=partial(getattr(package, name), task.model, task.layer),
            like=ours,
        )


def _captum(package: Any, library: str, task: Workload) -> Iterator[Contender]:
    classes = torch.tensor(task.classes, device=task.inputs.device)

    def attribute(method: Any, **options: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the inputs had no gradients
            return method.attribute(task.inputs, target=classes, **options)

    yield Contender(
        "LayerGradCam",
        library,
        lambda method: attribute(method, relu_attributions=True)[:, 0],
        build=lambda: built(package.LayerGradCam(task.model, task.module)),
        like="gradcam",
    )
    yield Contender(
        "Saliency",
        library,
        lambda method: attribute(method).amax(1),
        build=lambda: built(package.Saliency(task.model)),
        like="saliency",
    )
    yield Contender(
        "InputXGradient",
        library,
        lambda method: attribute(method).abs().sum(1),
        build=lambda: built(package.InputXGradient(task.model)),
        like="inputxgradient",
    )


if __name__ == "__main__":
    main(contenders, "Gradient methods")
