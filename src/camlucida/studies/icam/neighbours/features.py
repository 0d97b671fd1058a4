"""I-CAM-weighted features of images, and the distance between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.engine.layers import Layers
from camlucida.engine.maps import normalise
from camlucida.engine.tap import tap
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.explanation.subject import prepare
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel

Feature = npt.NDArray[np.float32]


def describe(
    model: nn.Module | LoadedModel,
    pictures: Sequence[Image.Image],
    classes: Sequence[int] | None,
    *,
    method: ICAM,
    layers: Layers | None = None,
    seed: int = 0,
) -> tuple[Explanation, Feature]:
    """I-CAM of some pictures, and the I-CAM-weighted features of :mod:`camlucida.studies.icam.neighbours`.

    Features are ``(N, D)``, each of length 1 (0 where nothing is active). By default the predicted classes are
    explained.
    """
    explanation = explain(
        model,
        list(pictures),
        method=method,
        target=None if classes is None else list(classes),
        layers=layers,
        seed=seed,
        batch_size=len(pictures),
    )
    module, inputs, _, _ = prepare(model, list(pictures))
    seen = tap(module, inputs, list(explanation.layers), gradients=False)
    return explanation, weighted_features(
        seen.activations, explanation.layer_maps, explanation.details["layer_weight"]
    )


def weighted_features(
    activations: dict[str, Tensor], maps: dict[str, Tensor], weights: Tensor
) -> Feature:
    """The features of images, given what I-CAM found.

    Args:
        activations: the activations of each layer, ``(N, K, h, w)``.
        maps: the maps of each layer, ``(N, h, w)``.
        weights: the weights of the layers, ``(N, L)``, in the order of ``maps``.

    Returns:
        ``(N, D)``, D the number of channels of all layers together.
    """
    parts = []
    for position, (name, one) in enumerate(maps.items()):
        where = normalise(one.double())
        total = where.sum(dim=(1, 2), keepdim=True)
        where = torch.where(total > 0, where, 1)
        where = where / where.sum(dim=(1, 2), keepdim=True)
        mean = torch.einsum("nhw,nkhw->nk", where, activations[name].double())
        unit = nn.functional.normalize(mean, dim=1)
        parts.append(weights[:, position, None].to(unit).sqrt() * unit)
    whole = nn.functional.normalize(torch.cat(parts, 1), dim=1)
    return whole.cpu().numpy().astype(np.float32)


def distance(a: Feature, b: Feature) -> float:
    """One minus the cosine of two features, 0 to 2; NaN where one of them is."""
    return float(np.maximum(0.0, 1 - np.dot(a.astype(np.float64), b.astype(np.float64))))
