"""The four cases, confident or unsure and right or wrong, over a labelled folder, explained by I-CAM."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from camlucida import render
from camlucida.data.folders import Box, LabelledFolder, Skipped, labelled_folder, read_photos
from camlucida.errors import CamlucidaError, ImageError, MethodError
from camlucida.explain import explain
from camlucida.layers import Layers
from camlucida.methods.base import Progress
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel, class_names_of
from camlucida.pages import data_uri, jpeg, page
from camlucida.patchiness import VARIANTS, Numerics, islands, numerics, patchiness
from camlucida.subject import prepare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from camlucida.explanation import Explanation

Array = npt.NDArray[np.float64]

CASES = {
    "confident-right": "confident and right",
    "confident-wrong": "confident and wrong",
    "unsure-right": "unsure and right",
    "unsure-wrong": "unsure and wrong",
}
HIGH = 0.98
"""Above this confidence the I-CAM authors see patchy maps."""

DIALLED = (0.1, 0.4, 0.6, 0.9, 0.98, 0.99, 0.999, 0.9999)
"""Confidences that images are dialled to."""

_SIDE = 224
_PERMUTATIONS = 9999
_MARKERS = {"exact": "o", "float32 bias": "x", "no alpha": "^", "no alpha, float32 bias": "+"}
_LINES = {"exact": "-", "float32 bias": "--", "no alpha": ":", "no alpha, float32 bias": "-."}


@dataclass(frozen=True)
class Case:
    """One photo.

    Attributes:
        file: the photo.
        case: a key of :data:`CASES`.
        true_class: name of its label's class.
        predicted_class: name of the most probable class, which is explained.
        confidence: its probability.
        saliency: share of the map inside the boxes (I-CAM eq. 32); ``None`` without boxes that the model sees.
        patchiness: Geary's C of the map in each of :data:`camlucida.patchiness.VARIANTS`; ``None`` for a
            constant map.
        levels: different values in the layer maps, as a share of their cells, likewise.
        islands: regions of the map above half its maximum.
        pole_share: entries of positive gradient beyond a pole of alpha.
        same: correlation of each variant's map with the exact one.
        messages: warnings about the map.
        seen: what the model saw, as JPEG, boxes drawn.
        mapped: the same under its map.
    """

    file: str
    case: str
    true_class: str
    predicted_class: str
    confidence: float
    saliency: float | None
    patchiness: dict[str, float | None]
    levels: dict[str, float]
    islands: int
    pole_share: float
    same: dict[str, float | None]
    messages: tuple[str, ...] = ()
    seen: bytes = field(default=b"", repr=False)
    mapped: bytes = field(default=b"", repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        return {k: v for k, v in vars(self).items() if k not in {"seen", "mapped"}}


@dataclass(frozen=True)
class Dial:
    """Means over images whose confidence was dialled.

    Attributes:
        images: their number.
        confidences: the confidences.
        patchiness: of each variant, one mean per confidence, without constant maps; ``None`` if all are.
        levels: of each variant, likewise.
        same: correlation with the exact map at the same confidence, likewise.
        constant: of each variant, the number of constant maps at each confidence.
        pole_share: one mean per confidence.
    """

    images: int
    confidences: tuple[float, ...]
    patchiness: dict[str, list[float | None]]
    levels: dict[str, list[float | None]]
    same: dict[str, list[float | None]]
    constant: dict[str, list[int]]
    pole_share: list[float | None]


@dataclass(frozen=True)
class CaseStudy:
    """All photos of a folder, by case.

    Attributes:
        photos: in the folder's order.
        threshold: confidence from which on a prediction is confident.
        dial: the experiment on confidence alone; ``None`` if it was not run.
        skipped: what could not be used, with the reason.
        model: its name.
        method: I-CAM's options.
        seed: of the perturbed copies and the permutation tests.
    """

    photos: tuple[Case, ...]
    threshold: float
    dial: Dial | None
    skipped: tuple[Skipped, ...]
    model: str
    method: dict[str, Any]
    seed: int

    def of(self, case: str) -> tuple[Case, ...]:
        """The photos of a case: the most confident first, of unsure ones the least."""
        found = [photo for photo in self.photos if photo.case == case]
        sign = -1 if case.startswith("confident") else 1
        return tuple(sorted(found, key=lambda photo: sign * photo.confidence))

    def table(self) -> list[dict[str, Any]]:
        """One row per case: number, mean confidence, saliency and patchiness."""
        return [
            {
                "case": case,
                "photos": len(found := self.of(case)),
                "confidence": _mean([p.confidence for p in found]),
                "saliency": _mean([p.saliency for p in found]),
                "with_boxes": sum(p.saliency is not None for p in found),
                "patchiness": _mean([p.patchiness["exact"] for p in found]),
                "islands": _mean([float(p.islands) for p in found]),
            }
            for case in CASES
        ]

    def patchy(self) -> list[dict[str, Any]]:
        """One row per variant: how patchiness goes with confidence, and how far maps are from the exact ones.

        ``p`` is that of a permutation test (two-sided) of the difference of the means above and up to 0.98;
        ``None`` where one of the two groups is empty.
        """
        rows = []
        for variant in VARIANTS:
            pairs = [
                (p.confidence, c) for p in self.photos if (c := p.patchiness[variant]) is not None
            ]
            confidence = np.array([c for c, _ in pairs])
            value = np.array([v for _, v in pairs])
            above, below = value[confidence > HIGH], value[confidence <= HIGH]
            rows.append({
                "variant": variant,
                "photos": len(pairs),
                "constant_maps": len(self.photos) - len(pairs),
                "spearman": _spearman(confidence, value),
                "above": _mean(above.tolist()),
                "above_photos": len(above),
                "below": _mean(below.tolist()),
                "p": _permutation_p(above, below, self.seed),
                "same": _mean([p.same[variant] for p in self.photos]),
                "levels": _mean([p.levels[variant] for p in self.photos]),
            })  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        right = [p.saliency for p in self.photos if p.case.endswith("right")]
        return {
            "model": self.model,
            "method": self.method,
            "seed": self.seed,
            "threshold": self.threshold,
            "cases": self.table(),
            "saliency_of_right_predictions": _mean(right),
            "patchiness_and_confidence": self.patchy(),
            "confidence_dialled": None if self.dial is None else vars(self.dial),
            "photos": [photo.to_dict() for photo in self.photos],
            "skipped": [{"file": str(path), "reason": reason} for path, reason in self.skipped],
        }

    def figure(self) -> Figure:
        """Patchiness against confidence: over the photos, and with confidence dialled."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for variant in VARIANTS:
            points = [(p.confidence, p.patchiness[variant]) for p in self.photos]
            left.plot(
                [_stretched(c) for c, v in points if v is not None],
                [v for _, v in points if v is not None],
                _MARKERS[variant],
                color="black",
                fillstyle="none",
                markersize=5,
                label=variant,
            )
            if self.dial is not None:
                line = [math.nan if v is None else v for v in self.dial.patchiness[variant]]
                right.plot(
                    [_stretched(c) for c in self.dial.confidences],
                    line,
                    _LINES[variant],
                    marker=_MARKERS[variant],
                    color="black",
                    fillstyle="none",
                    markersize=4,
                    linewidth=0.9,
                    label=variant,
                )
        for axis, title in ((left, "each photo"), (right, _dial_title(self.dial))):
            _confidence_axis(axis)
            axis.set_title(title, fontsize=9)
        left.set_ylabel("patchiness (Geary's C)\nsmooth at 0, no order at 1", fontsize=8)
        left.legend(fontsize=7, frameon=False)
        return figure

    def html(self, most: int = 24) -> str:
        """The page: a section per case, and what was measured about patchiness; nothing is fetched.

        Args:
            most: photos shown per case, the clearest ones; all are counted.
        """
        sections = [
            {
                "id": case,
                "title": title,
                "count": len(found := self.of(case)),
                "photos": [
                    {
                        **photo.to_dict(),
                        "name": os.path.basename(photo.file),  # noqa: PTH119
                        "seen": data_uri(photo.seen, "image/jpeg"),
                        "mapped": data_uri(photo.mapped, "image/jpeg"),
                    }
                    for photo in found[:most]
                ],
            }
            for case, title in CASES.items()
        ]
        return page(
            "cases.html",
            study=self,
            sections=sections,
            table=self.table(),
            titles=CASES,
            patchy=self.patchy(),
            variants=VARIANTS,
            high=HIGH,
            plot=data_uri(render.png(self.figure()), "image/png"),
        )

    def __rich__(self) -> Any:
        """A table for the terminal."""
        from rich.table import Table

        table = Table(box=None, header_style="bold")
        for name in ("case", "photos", "confidence", "saliency", "patchiness"):
            table.add_column(name, justify="left" if name == "case" else "right")
        for row in self.table():
            table.add_row(
                CASES[row["case"]],
                str(row["photos"]),
                *(
                    "-" if row[k] is None else f"{row[k]:.3f}"
                    for k in ("confidence", "saliency", "patchiness")
                ),
            )
        return table


def four_cases(
    model: nn.Module | LoadedModel,
    folder: str | os.PathLike[str] | LabelledFolder,
    *,
    boxes: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    method: ICAM | None = None,
    layers: Layers | None = None,
    seed: int = 0,
    dial: int = 8,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> CaseStudy:
    """Explain the predicted class of every photo, and sort the photos into the four cases.

    Args:
        model: as for :func:`camlucida.explain`; it must know how photos are prepared.
        folder: one subfolder of photos per class, see :func:`camlucida.data.folders.labelled_folder`.
        boxes: a table of boxes, see there.
        threshold: confidence from which on a prediction counts as confident.
        method: I-CAM with its options.
        layers: the layers; all blocks by default.
        seed: of the perturbed copies and the permutation tests.
        dial: number of photos, spread over the folder, that take part in the experiment on confidence; 0
            for none.
        batch_size: photos at a time.
        progress: called with the number of photos done and their total.

    Raises:
        ImageError: no photo can be read.
        MethodError: the model has no classes, or the threshold or batch size is out of range.
    """
    if not 0 < threshold < 1 or batch_size < 1 or dial < 0:
        raise MethodError(
            f"threshold must lie in (0, 1), batch_size be >= 1 and dial >= 0, got {threshold}, {batch_size} "
            f"and {dial}"
        )
    method = method or ICAM()
    names = model.class_names if isinstance(model, LoadedModel) else class_names_of(model)
    if not isinstance(folder, LabelledFolder):
        folder = labelled_folder(folder, names, boxes=boxes)
    elif boxes is not None:
        raise CamlucidaError("give the boxes to labelled_folder, as the folder was read already")
    total = len(folder.photos)
    count = min(dial, total)
    dialled = {folder.photos[i * total // count].path for i in range(count)}
    skipped = list(folder.skipped)
    found: list[Case] = []
    turned: list[list[dict[str, Any]]] = []
    done = 0
    for read in read_photos(folder.photos, batch_size, skipped):
        done += min(batch_size, total - done)
        if read:
            pictures = [picture for _, picture in read]
            explanation = explain(
                model,
                pictures,
                method=method,
                layers=layers,
                seed=seed,
                batch_size=len(pictures),
            )
            if not explanation.predictions:
                raise MethodError("the four cases need a model with two or more classes")
            module, inputs, _, preprocess = prepare(model, pictures)
            (computed,) = numerics(module, inputs, explanation)
            for i, (photo, picture) in enumerate(read):
                mask = None
                if photo.boxes and preprocess is not None:
                    view = preprocess.crop_box(*picture.size)
                    mask = box_mask(
                        photo.boxes, view, (int(inputs.shape[-2]), int(inputs.shape[-1]))
                    )
                true = names[photo.class_index] if names else f"class {photo.class_index}"
                right = explanation.predictions[i][0].index == photo.class_index
                found.append(
                    _case(
                        explanation[i],
                        _at(computed, i),
                        str(photo.path),
                        true,
                        right,
                        threshold,
                        mask,
                        photo.boxes,
                    )
                )
                if photo.path in dialled:
                    one = numerics(module, inputs[i : i + 1], explanation[i], DIALLED)
                    turned.append([_measure(n) for n in one])
        if progress is not None:
            progress(done, total)
    if not found:
        raise ImageError(f"no photo in {str(folder.root)!r} can be read: {skipped[-1][1]}")
    name = model.name if isinstance(model, LoadedModel) else type(model).__name__
    return CaseStudy(
        tuple(found),
        threshold,
        _dial(turned) if turned else None,
        tuple(skipped),
        name,
        method.describe(),
        seed,
    )


# ------------------------------------------------------------------------------------------ one photo


def box_mask(
    boxes: Sequence[Box], view: tuple[float, float, float, float], size: tuple[int, int]
) -> Tensor:
    """The union of boxes as the model sees it.

    Args:
        boxes: ``(xmin, ymin, xmax, ymax)`` in pixels of the photo.
        view: the part of the photo that the model sees, ``(left, top, right, bottom)``, see
            :meth:`camlucida.Preprocess.crop_box`.
        size: (H, W) of the input.

    Returns:
        bool ``(H, W)``: the pixels whose centre lies in a box.
    """
    left, top, right, bottom = view
    x = left + (torch.arange(size[1], dtype=torch.float64) + 0.5) * (right - left) / size[1]
    y = top + (torch.arange(size[0], dtype=torch.float64) + 0.5) * (bottom - top) / size[0]
    mask = torch.zeros(size, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        mask |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    return mask


def saliency_score(attribution: Tensor, mask: Tensor) -> float:
    """The share of a map ``(H, W)`` that lies in a mask (I-CAM eq. 32); 0 for an empty map."""
    total = float(attribution.double().sum())
    return float(attribution.double()[mask.to(attribution.device)].sum()) / total if total else 0.0


def _at(computed: Numerics, i: int) -> Numerics:
    return Numerics(
        {name: m[i : i + 1] for name, m in computed.maps.items()},
        {name: v[i : i + 1] for name, v in computed.levels.items()},
        computed.pole_share[i : i + 1],
    )


def _measure(computed: Numerics) -> dict[str, Any]:
    """The numbers about one image's maps."""
    return {
        "patchiness": {n: _number(patchiness(m)[0]) for n, m in computed.maps.items()},
        "levels": {n: float(v[0]) for n, v in computed.levels.items()},
        "same": {n: _correlation(m[0], computed.maps["exact"][0]) for n, m in computed.maps.items()},
        "pole_share": float(computed.pole_share[0]),
    }  # fmt: skip


def _case(
    explanation: Explanation,
    computed: Numerics,
    file: str,
    true: str,
    right: bool,
    threshold: float,
    mask: Tensor | None,
    boxes: Sequence[Box],
) -> Case:
    predicted = explanation.predictions[0][0]
    sure = "confident" if predicted.probability >= threshold else "unsure"
    attribution = explanation.maps[0]
    visible = mask is not None and bool(mask.any())
    seen, mapped = _drawn(explanation, boxes)
    return Case(
        file=file,
        case=f"{sure}-{'right' if right else 'wrong'}",
        true_class=true,
        predicted_class=predicted.name,
        confidence=predicted.probability,
        saliency=saliency_score(attribution, mask) if mask is not None and visible else None,
        islands=islands(attribution),
        messages=explanation.diagnostics[0].messages,
        seen=jpeg(seen),
        mapped=jpeg(mapped),
        **_measure(computed),
    )


def _drawn(explanation: Explanation, boxes: Sequence[Box]) -> tuple[Image.Image, Image.Image]:
    """What the model saw, with the boxes in black and white, and the same under its map."""
    view: render.View = explanation.views[0]
    picture = view.cropped().resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    mapped = render.overlay(render.View(picture, (0, 0, _SIDE, _SIDE)), explanation.maps[0])
    left, top, right, bottom = view.box
    for drawing in (ImageDraw.Draw(picture), ImageDraw.Draw(mapped)):
        for x0, y0, x1, y1 in boxes:
            corners = (
                (x0 - left) / (right - left) * _SIDE,
                (y0 - top) / (bottom - top) * _SIDE,
                (x1 - left) / (right - left) * _SIDE,
                (y1 - top) / (bottom - top) * _SIDE,
            )
            drawing.rectangle(corners, outline="black", width=4)
            drawing.rectangle(corners, outline="white", width=2)
    return picture, mapped


# -------------------------------------------------------------------------------------------- numbers


def _dial(turned: Sequence[Sequence[dict[str, Any]]]) -> Dial:
    def means(what: str, variant: str) -> list[float | None]:
        return [_mean([one[i][what][variant] for one in turned]) for i in range(len(DIALLED))]

    return Dial(
        images=len(turned),
        confidences=DIALLED,
        patchiness={v: means("patchiness", v) for v in VARIANTS},
        levels={v: means("levels", v) for v in VARIANTS},
        same={v: means("same", v) for v in VARIANTS},
        constant={
            v: [sum(one[i]["patchiness"][v] is None for one in turned) for i in range(len(DIALLED))]
            for v in VARIANTS
        },
        pole_share=[_mean([one[i]["pole_share"] for one in turned]) for i in range(len(DIALLED))],
    )


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, ``None`` where a map is constant."""
    x, y = (t.double().flatten() - t.double().mean() for t in (a, b))
    length = float(x.norm() * y.norm())
    return float(x @ y) / length if length > 0 else None


def _ranks(values: Array) -> Array:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = counts.cumsum() - (counts - 1) / 2
    return np.asarray(middle[which], dtype=np.float64)


def _spearman(x: Array, y: Array) -> float | None:
    if len(x) < 3:
        return None
    return _correlation(torch.from_numpy(_ranks(x)), torch.from_numpy(_ranks(y)))


def _permutation_p(a: Array, b: Array, seed: int) -> float | None:
    """Two-sided p of the difference of two means, by reassigning the values at random."""
    if not len(a) or not len(b):
        return None
    both, generator = np.concatenate([a, b]), np.random.default_rng(seed)
    observed = abs(a.mean() - b.mean())
    reached = 1
    for _ in range(_PERMUTATIONS):
        shuffled = generator.permutation(both)
        reached += abs(shuffled[: len(a)].mean() - shuffled[len(a) :].mean()) >= observed - 1e-12
    return float(reached / (_PERMUTATIONS + 1))


# -------------------------------------------------------------------------------------------- drawing


def _stretched(confidence: float) -> float:
    """Confidences by their odds, so that those near 1 are told apart."""
    kept = min(max(confidence, 1e-5), 1 - 1e-5)
    return math.log10(kept / (1 - kept))


def _confidence_axis(axis: Axes) -> None:
    ticks = (0.01, 0.1, 0.5, 0.9, 0.98, 0.999, 0.9999)
    axis.set_xticks([_stretched(t) for t in ticks], [f"{t:g}" for t in ticks], fontsize=7)
    axis.axvline(_stretched(HIGH), color="grey", linewidth=0.8, linestyle=":")
    axis.set_xlabel("confidence (by odds)", fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)


def _dial_title(dial: Dial | None) -> str:
    if dial is None:
        return "confidence dialled: not run"
    return f"confidence dialled, mean of {dial.images} photos"
