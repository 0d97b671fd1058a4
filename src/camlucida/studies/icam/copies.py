"""The perturbed copies of a photo that I-CAM scores its layers with (its Figure 1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.common.seeds import ImageGenerators
from camlucida.explanation import overlays
from camlucida.explanation.explain import explain
from camlucida.explanation.photos import Photo
from camlucida.explanation.subject import prepare
from camlucida.methods.build import build_as
from camlucida.methods.icam import ICAM
from camlucida.methods.icam.scores import perturb
from camlucida.models import LoadedModel
from camlucida.report import Column, Table
from camlucida.targets import TargetLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW = 5


@dataclass(frozen=True)
class PerturbedCopies:
    """The copies of one photo, and how much each counts.

    Attributes:
        pixels: of the photo and then of each copy, ``(1 + n, C, H, W)``, not clamped.
        ssim: how similar each copy is to the photo.
        agreement: MDS, one minus the divergence of the model's outputs, at least 0.
        weight: how much it counts.
        channels: whose order the pixels have, ``"rgb"`` or ``"bgr"``.

    Example:
        >>> found = camlucida.studies.icam.copies(loaded, photo, method="icam:n_perturb=2")
        >>> len(found.weight)
        2
    """

    pixels: Tensor = field(repr=False)
    ssim: tuple[float, ...]
    agreement: tuple[float, ...]
    weight: tuple[float, ...]
    channels: str = "rgb"

    @property
    def table(self) -> Table:
        """A row per copy."""
        columns = (
            "copy", Column("SSIM", places=3), Column("agreement of outputs", places=3), Column("weight", places=3),
        )  # fmt: skip
        rows = (
            (str(i), *numbers)
            for i, numbers in enumerate(zip(self.ssim, self.agreement, self.weight, strict=True), 1)
        )
        return Table.of_rows("copies", "Perturbed copies, and how much each counts", columns, rows)

    def figure(self) -> Figure:
        """The photo and its copies, each with its numbers."""
        told = ["photo"] + [
            f"SSIM {s:.2f}, outputs {a:.2f}\nweight {w:.2f}"
            for s, a, w in zip(self.ssim, self.agreement, self.weight, strict=True)
        ]
        drawn = [_picture(one, self.channels) for one in self.pixels]
        blank = Image.new("RGB", drawn[0].size, "white")
        drawn += [blank] * (-len(drawn) % _ROW)
        rows = [drawn[i : i + _ROW] for i in range(0, len(drawn), _ROW)]
        figure = overlays.grid(rows, bar=None, cell=2.0)
        for axis, text in zip(figure.axes, told, strict=False):
            axis.set_title(text, fontsize=8)
        return figure


def _picture(pixels: Tensor, channels: str) -> Image.Image:
    values = (255 * pixels.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
    if channels == "gray":
        return Image.fromarray(values[..., 0]).convert("RGB")
    return Image.fromarray(values[..., ::-1].copy() if channels == "bgr" else values)


def copies(
    model: nn.Module | LoadedModel,
    photo: Photo,
    target: TargetLike = None,
    *,
    method: ICAM | str = "icam",
    seed: int = 0,
    **options: Any,
) -> PerturbedCopies:
    """Draw the perturbed copies of a photo, with their weights.

    Args:
        model: the model, as for :func:`camlucida.explain`; it must know how photos are prepared.
        photo: one photo.
        target: what is explained.
        method: I-CAM with its options, also as ``"icam:n_perturb=16"``.
        seed: the seed of the copies.
        **options: further options of :func:`camlucida.explain`.

    Raises:
        MethodError: the preprocessing is not known.

    Example:
        >>> camlucida.studies.icam.copies(loaded, photo, method="icam:n_perturb=2").figure().savefig("copies.png")
    """
    icam = replace(build_as(ICAM, method), runs=1)
    _, inputs, _, used = prepare(model, photo, options.get("preprocess"))
    if used is None:
        raise MethodError("pictures of the copies need the model's preprocessing")
    found = explain(model, photo, method=icam, target=target, seed=seed, **options)
    in_pixels = icam.perturb_space != "input"
    images = used.denormalise(inputs) if in_pixels else inputs
    stream = ImageGenerators(seed, inputs)
    how = {"alpha": icam.alpha, "mask_convention": icam.mask_convention}
    drawn = [images[0]] + [perturb(images, stream, **how)[0] for _ in range(icam.n_perturb)]  # type: ignore[arg-type]
    ssim, agreement, weight = (
        tuple(found.details[name][0, 0].tolist()) for name in ("ssim", "mds", "perturbation_weight")
    )
    pixels = torch.stack([one if in_pixels else used.denormalise(one) for one in drawn])
    return PerturbedCopies(pixels, ssim, agreement, weight, used.channels)
