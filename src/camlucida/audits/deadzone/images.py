"""Images as the dead-zone audit and its table put them in front of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.common.errors import CamlucidaError
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet
from camlucida.data.stack_mix import StackGen, StackMix
from camlucida.explanation.subject import Subject, prepare
from camlucida.models import LoadedModel


def prepared(
    model: nn.Module | LoadedModel, images: Any, count: int
) -> tuple[nn.Module, Tensor, Preprocess | None]:
    """The unwrapped module, its inputs ``(N, C, H, W)``, and how photos become them.

    Images that were stacked for the model's size are not resized once more: their seam is where the wall is
    (Taimeskhanov, Sicre and Garreau, ECML 2024, section 3.2).

    Args:
        model: the model.
        images: photos, a data set, or a tensor that is ready.
        count: at most.

    Raises:
        CamlucidaError: stacked images are of another size than the model's, or images cannot be read.
    """
    preprocess = Subject.of(model, None, None).preprocess
    if isinstance(images, StackMix | StackGen) and preprocess is not None:
        if preprocess.size != (images.size, images.size):
            height, width = preprocess.size
            raise CamlucidaError(
                f"{images.name} has images of {images.size} x {images.size} pixels, but the model takes {height} x "
                f"{width}; make them with size={height}"
                + ("" if height == width else ", which needs a square model")
            )
        preprocess = replace(preprocess, resize=None, crop=True, cover=False)
    module, inputs, _, known = prepare(model, _photos(images, count), preprocess)
    return module, inputs[:count], known


def described(inputs: Tensor) -> dict[str, Any]:
    """Number, size and hash of images that are ready, for JSON."""
    values = inputs.detach().cpu().contiguous().view(torch.uint8).numpy()
    return {
        "used": len(inputs),
        "size": list(inputs.shape[1:]),
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
    }


def _photos(images: Any, count: int) -> Any:
    if isinstance(images, DataSet):
        return [_still(images[i].picture()) for i in range(min(count, len(images)))]
    several = isinstance(images, Tensor | Sequence) and not isinstance(images, str)
    return images[:count] if several else images


def _still(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("RGB")))
