"""Pictures of the fooling audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.audits.fooling.measure import Subject, Variant
from camlucida.engine.maps import normalise, rectify, resize
from camlucida.explanation.overlays import View, colourise, grid, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 224  # pixels of a drawn map


def panel_figure(
    clean: nn.Module,
    fooled: nn.Module,
    subject: Subject,
    variants: Sequence[Variant],
    mask: Tensor,
) -> Figure:
    """Each image with its maps before and after an attack, and the mask that the maps were pushed to.

    Args:
        clean: the model as it was.
        fooled: the attacked one.
        subject: few images.
        variants: what is drawn, a pair of columns each.
        mask: ``(h, w)``.
    """
    drawn = [(v.label, subject.maps(clean, v), subject.maps(fooled, v)) for v in variants]
    pictures = []
    for i, image in enumerate(subject.inputs):
        seen = _photo(image, subject)
        row = [seen]
        for _, before, after in drawn:
            row += [_laid(seen, before[i]), _laid(seen, after[i])]
        pictures.append([*row, colourise(resize(mask[None].float(), (_SIDE, _SIDE), "nearest")[0])])
    columns = ["image"]
    for label, _, _ in drawn:
        short = label.replace("DiffGradCAM", "Diff")
        columns += [f"{short}\nclean", f"{short}\nfooled"]
    rows = [f"class {int(c)}" for c in subject.labels]
    return grid(pictures, columns=[*columns, "mask"], rows=rows, cell=1.15)


def bar_figure(rows: Sequence[tuple[str, float, float, float]], control: str) -> Figure:
    """Susceptibility of each method, beside what the same training does without an attack.

    Args:
        rows: label, mean, standard deviation, and the mean under the control.
        control: what the control is called.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 0.8 + 0.24 * len(rows)), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(rows))[::-1]
    axis.barh(place, [r[1] for r in rows], 0.66, color="0.62", label="after the attack")
    axis.errorbar(
        [r[1] for r in rows], place, xerr=_whiskers(rows), fmt="none", ecolor="0.25", elinewidth=1
    )
    axis.plot([r[3] for r in rows], place, "k|", markersize=9, markeredgewidth=2, label=control)
    axis.set_yticks(place, [r[0] for r in rows], fontsize=8)
    axis.set_xlim(left=0)
    axis.set_ylim(-0.8, len(rows) - 0.2)
    axis.set_xlabel(
        "mean squared distance of the maps before and after (whiskers: std over images)"
    )
    axis.legend(fontsize=8, loc="lower right")
    return figure


def matrix_figure(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]
) -> Figure:
    """Which attack moves which method: numbers on grey, dark for far.

    Args:
        rows: attacks.
        columns: evaluated methods.
        values: susceptibilities.
    """
    from matplotlib.figure import Figure

    numbers = np.asarray(values, float)
    figure = Figure(
        figsize=(2.0 + 0.62 * len(columns), 1.9 + 0.34 * len(rows)), layout="constrained"
    )
    axis = figure.subplots()
    top = np.nanmax(numbers) if np.isfinite(numbers).any() else 1.0
    axis.imshow(numbers, cmap="Greys", vmin=0, vmax=max(top, 1e-9), aspect="auto")
    for i, j in np.ndindex(numbers.shape):
        dark = numbers[i, j] > 0.55 * top
        text = f"{numbers[i, j]:.3f}" if np.isfinite(numbers[i, j]) else "–"
        axis.text(j, i, text, ha="center", va="center", fontsize=7, color="w" if dark else "k")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.set_xlabel("evaluated method")
    axis.set_ylabel("attacked map")
    return figure


def residual_figure(found: Mapping[str, Any]) -> Figure:
    """Variance of each aggregator against the number of classes, measured and by formula."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = {"mean": "o", "lae": "s", "max": "^"}
    names = {"mean": "mean", "lae": "log of average exp", "max": "maximum"}
    rows = [r for r in found["by_classes"] if r["sigma"] == found["sigma"]]
    classes = [r["classes"] for r in rows]
    for key, marker in styles.items():
        left.loglog(
            classes, [r[f"var_{key}"] for r in rows], f"k{marker}", label=names[key], mfc="0.8"
        )
    left.loglog(classes, [r["formula_mean"] for r in rows], "k-", lw=1, label="σ² / (M − 1)")
    left.loglog(
        classes, [r["formula_max"] for r in rows], "k--", lw=1, label="π²σ² / (12 ln(M − 1))"
    )
    left.loglog(
        classes, [r["published_max"] for r in rows], ":", color="0.4", lw=1,
        label="as published: twice that",
    )  # fmt: skip
    left.set_xlabel(f"classes M, residuals of standard deviation {found['sigma']:g}")
    left.set_ylabel("variance of what is subtracted")
    left.legend(fontsize=7)
    spread = found["by_sigma"]
    sigma = [r["sigma"] for r in spread]
    right.loglog(sigma, [r["gap"] for r in spread], "ko", mfc="0.8", label="measured")
    right.loglog(sigma, [s * s / 2 for s in sigma], "k-", lw=1, label="σ² / 2")
    right.set_xlabel(f"σ, {spread[0]['classes']} classes")
    right.set_ylabel("mean distance of soft\nmaximum and mean")
    right.legend(fontsize=7)
    return figure


def _whiskers(rows: Sequence[tuple[str, float, float, float]]) -> list[list[float]]:
    return [[min(r[1], r[2]) for r in rows], [r[2] for r in rows]]


def _photo(image: Tensor, subject: Subject) -> Image.Image:
    pixels = image.detach().to("cpu", torch.float32)
    if subject.preprocess is not None:
        pixels = subject.preprocess.denormalise(pixels)
    elif pixels.amin() < 0 or pixels.amax() > 1:
        pixels = (pixels - pixels.amin()) / (pixels.amax() - pixels.amin()).clamp_min(1e-9)
    if len(pixels) not in {1, 3}:  # no colours that could be shown
        pixels = pixels.mean(0, keepdim=True)
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).convert("RGB")
    return picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _laid(picture: Image.Image, attribution: Tensor) -> Image.Image:
    finished = normalise(resize(rectify(attribution[None].float()), (_SIDE, _SIDE)))[0]
    return overlay(View(picture, (0, 0, _SIDE, _SIDE)), finished)
