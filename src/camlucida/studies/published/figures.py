"""Published figures and analyses on the user's own model and photos, as pages with tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from camlucida.explanation.overlays import png
from camlucida.explanation.photos import Images, Photo
from camlucida.methods import Progress
from camlucida.models import LoadedModel
from camlucida.studies import fame, icam
from camlucida.studies.fame.smoothing import ITERATIONS, SIGMAS
from camlucida.studies.fame.starts import SETTINGS
from camlucida.studies.published.base import Reproduced


def fame_figure1(
    model: nn.Module | LoadedModel,
    photo: Photo,
    *,
    iterations: Sequence[int] = ITERATIONS,
    sigmas: Sequence[float] = SIGMAS,
    **options: Any,
) -> Reproduced:
    """FAME, Figure 1: what iterations and blur do to a map; see :func:`camlucida.studies.fame.iterations`."""
    found = fame.iterations(model, photo, iterations=iterations, sigmas=sigmas, **options)
    return Reproduced(
        "fame-figure1", "FAME, Figure 1: the effect of smoothing and iterations",
        ("One run; its map after several counts of iterations, blurred by several Gaussians.",),
        (found.table,), {"model": _name(model)},
        pictures={"Iterations down, blur across": png(found.figure())},
    )  # fmt: skip


def fame_starts(
    model: nn.Module | LoadedModel,
    images: Images,
    *,
    settings: Sequence[tuple[int, int]] = SETTINGS,
    seed: int = 0,
    **options: Any,
) -> Reproduced:
    """Which FAME maps come out again, by starts and iterations; see :func:`camlucida.studies.fame.starts`."""
    table = fame.starts(model, images, settings=settings, seed=seed, **options)
    return Reproduced(
        "fame-starts", "FAME by starts and iterations",
        (
            "Each image is explained twice, every pixel changed by at most one grey level.",
            "Short paths come out again, and converge on another map than long ones: the last column says how near.",
        ),
        (table,), {"model": _name(model), "seed": seed},
    )  # fmt: skip


def icam_figure1(
    model: nn.Module | LoadedModel, photo: Photo, *, seed: int = 0, **options: Any
) -> Reproduced:
    """I-CAM, Figure 1: the perturbed copies; see :func:`camlucida.studies.icam.copies`."""
    found = icam.copies(model, photo, seed=seed, **options)
    return Reproduced(
        "icam-figure1", "Integrative CAM, Figure 1: the perturbed copies",
        (
            "Noise is added and pixels are set to 0, the mean colour.",
            "A copy counts more the nearer its SSIM is to a half and the model's outputs to those for the photo.",
        ),
        (found.table,), {"model": _name(model), "seed": seed},
        pictures={"The photo and its copies": png(found.figure())},
    )  # fmt: skip


def icam_layers(
    model: nn.Module | LoadedModel,
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    **options: Any,
) -> Reproduced:
    """I-CAM: how much each layer matters for each class; see :func:`camlucida.studies.icam.layer_importance`."""
    found = icam.layer_importance(model, folder, seed=seed, **options)
    return Reproduced(
        "icam-layers", "Integrative CAM: which layers matter for which class",
        ("Scores of the layers, as shares of their sum on each image, averaged over the images of a class.",),
        (found.summary,), {"model": _name(model), "seed": seed, **found.to_dict()},
        pictures={"Share of each layer, with its standard deviation": png(found.figure())},
    )  # fmt: skip


def icam_ablation(
    model: nn.Module | LoadedModel,
    images: Images,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Reproduced:
    """I-CAM part by part; see :func:`camlucida.studies.icam.ablation`."""
    found = icam.ablation(model, images, seed=seed, progress=progress, **options)
    return Reproduced(
        "icam-ablation", "Integrative CAM, part by part",
        ("One part is changed at a time, and the maps are held against the unchanged ones.",),
        (found.table,), {"model": _name(model), "seed": seed, **found.to_dict()},
    )  # fmt: skip


def _name(model: nn.Module | LoadedModel) -> str:
    return model.name if isinstance(model, LoadedModel) else type(model).__name__
