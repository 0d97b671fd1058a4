"""What is said about a map beside the map itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from camlucida.engine.reading import Outputs
from camlucida.methods import RawMap
from camlucida.targets import (
    ClassTarget,
    ExpLogit,
    Label,
    Logit,
    LogProbability,
    Probability,
    Target,
)

_SATURATED = 1e-6


@dataclass(frozen=True)
class Prediction:
    """A class that the model considers.

    Attributes:
        index: index of the class.
        name: its name, or ``"class 7"`` where names are not known.
        probability: the model's own probability, in [0, 1]: of classes that exclude each other the softmax, of a
            label its sigmoid.
        logit: the class's logit; of a model that returns probabilities only, the logarithm of the softmax.

    Example:
        >>> best = camlucida.explain(model, images).predictions[0][0]
        >>> best.name == f"class {best.index}"
        True
    """

    index: int
    name: str
    probability: float
    logit: float


@dataclass(frozen=True)
class Diagnostics:
    """What a reader of one image's map has to know.

    Attributes:
        raw_min: smallest value of the signed map, before anything is rectified or scaled.
        raw_max: largest value.
        all_negative: no value is positive although some are negative, and rectifying leaves nothing.
        constant: every cell has the same value (a zero map, or a 1x1 map).
        finite: ``False`` when the map holds NaN or infinite values; it is then drawn as zeros.
        dead_channels: per layer, the number of channels that are zero everywhere and their total.
        disconnected: layers that the target does not depend on.
        saturated: the softmax rounds to 0 or 1, so that gradients of probabilities vanish.
        notes: remarks of the method.
        broken: where the model's weights, its outputs or the target's value are NaN or infinite, in words; the map
            is then drawn as zeros.
        assumed: what was assumed about the model, its outputs and the image.

    Example:
        >>> camlucida.explain(model, images).diagnostics[0].finite
        True
    """

    raw_min: float
    raw_max: float
    all_negative: bool
    constant: bool
    finite: bool
    dead_channels: dict[str, tuple[int, int]]
    disconnected: tuple[str, ...]
    saturated: bool
    notes: tuple[str, ...] = ()
    broken: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """Warnings and assumptions in words; empty where nothing is wrong and all is known."""
        found = [
            f"the target does not depend on layer {name!r}: the map is empty"
            for name in self.disconnected
        ]
        if self.broken:
            found.append(f"{self.broken}, so nothing is explained and the map is drawn as zeros")
        elif not self.finite:
            found.append("the map held NaN or infinite values and is drawn as zeros")
        elif self.all_negative:
            found.append(
                f"every value is negative ({self.raw_min:.3g} to {self.raw_max:.3g}): the layer holds only "
                "evidence against the target, so that the map, which shows what speaks for it, is empty"
            )
        elif self.constant and not self.disconnected:
            found.append(f"the map is constant ({self.raw_max:.3g}): it singles out no place")
        for name, (dead, total) in self.dead_channels.items():
            if dead == total:
                found.append(f"all {total} channels of layer {name!r} are zero")
        return (*found, *self.notes, *self.assumed)


def broken_weights(module: nn.Module) -> str:
    """That a weight of the model is NaN or infinite, in words; empty where none is."""
    for name, weight in module.named_parameters():
        odd = is_lazy(weight) or weight.is_meta or weight.layout != torch.strided
        if odd or not weight.is_floating_point():
            continue
        # A sum is cheap, and finite unless a weight is not, or it overflows.
        if not weight.detach().sum().isfinite() and not weight.detach().isfinite().all():
            return f"the model's weight {name!r} holds NaN or infinite values"
    return ""


def broken_images(raw: RawMap, weights: str) -> list[str]:
    """Of each image: that weights, outputs or the target's value are NaN or infinite; empty where none is."""
    outputs = (
        raw.outputs.isfinite().flatten(1).all(1) if raw.outputs.ndim > 1 else raw.outputs.isfinite()
    )
    said = []
    for whole, value in zip(outputs.tolist(), raw.values.isfinite().tolist(), strict=True):
        found = "" if value else "the target's value is NaN or infinite"
        found = found if whole else "the model's output holds NaN or infinite values"
        said.append(weights or found)
    return said


def predictions_of(
    logits: Tensor | None,
    probabilities: Tensor | None,
    outputs: Outputs,
    top: int,
    names: Sequence[str] | None,
    images: int,
) -> tuple[tuple[Prediction, ...], ...]:
    """The most probable classes of each image, of labels all that are present; none where there are no classes."""
    if logits is None or probabilities is None:
        return ((),) * images
    labels = outputs.kind == "labels"
    count = probabilities.shape[1]
    best = probabilities.topk(count if labels else min(top, count), dim=1)
    scores = logits.gather(1, best.indices)
    named = names if names and len(names) == logits.shape[1] else None
    return tuple(
        tuple(
            Prediction(index, named[index] if named else f"class {index}", p, z)
            for index, p, z in zip(*row, strict=True)
            if math.isfinite(p) and (not labels or p >= outputs.threshold)
        )
        for row in zip(best.indices.tolist(), best.values.tolist(), scores.tolist(), strict=True)
    )


def diagnose(
    raw: RawMap,
    finite: Tensor,
    probabilities: Tensor | None,
    outputs: Outputs,
    broken: Sequence[str],
    assumed: Sequence[tuple[str, ...]],
    remarks: Mapping[int, str],
    *,
    rectified: bool,
) -> tuple[Diagnostics, ...]:
    """What a reader of each image's map has to know.

    Args:
        raw: the maps.
        finite: whether each image's map is finite, ``(N,)``.
        probabilities: the model's own, ``(N, M)``, where it has some.
        outputs: what the model's outputs are.
        broken: of each image, what of the model is not finite.
        assumed: of each image, what was assumed.
        remarks: of the target, about single images by their position.
        rectified: whether negative values are dropped.
    """
    flat = raw.fused.flatten(1)
    lowest, highest = flat.amin(1).tolist(), flat.amax(1).tolist()
    peak = [0.0] * len(flat) if probabilities is None else probabilities.amax(1).tolist()
    flat_label = [False] * len(flat)
    if isinstance(raw.target, Label) and probabilities is not None:
        own = probabilities.gather(
            1, torch.as_tensor(raw.target.classes, device=flat.device)[:, None]
        )
        flat_label = ((own < _SATURATED) | (own > 1 - _SATURATED))[:, 0].tolist()
    dead = {name: counts.tolist() for name, counts in raw.dead_channels.items()}
    found = []
    for i in range(len(flat)):
        saturated = peak[i] > 1 - _SATURATED
        notes = [*([remarks[i]] if i in remarks else []), *raw.notes.get(i, ())]
        notes += _of_probabilities(
            raw.target, peak[i], outputs, saturated=saturated or flat_label[i]
        )
        found.append(
            Diagnostics(
                raw_min=lowest[i],
                raw_max=highest[i],
                all_negative=rectified and lowest[i] < 0 and highest[i] <= 0,
                constant=lowest[i] == highest[i],
                finite=bool(finite[i]),
                dead_channels={
                    name: (counts[i], raw.channels[name]) for name, counts in dead.items()
                },
                disconnected=tuple(name for name, is_on in raw.connected.items() if not is_on),
                saturated=saturated,
                notes=tuple(notes),
                broken=broken[i],
                assumed=assumed[i],
            )
        )
    return tuple(found)


def _of_probabilities(
    target: Target, peak: float, outputs: Outputs, *, saturated: bool
) -> list[str]:
    """What has to be known of a saturated softmax, and of labels none of which is present."""
    found = []
    through = isinstance(target, Logit | ExpLogit | Label)
    if saturated and isinstance(target, Probability | LogProbability):
        found.append(
            f"the softmax is saturated (p = {peak:.7f}): the model is so sure that small changes of the image do not "
            "change the probability, and the map says nothing; explain LogitMargin(aggregator='lse') instead, on the "
            "command line --target margin:aggregator=lse"
        )
    elif saturated and through and outputs.activation in ("softmax", "sigmoid"):
        found.append(
            f"the model's own {outputs.activation} is saturated: it is so sure that small changes of the image change "
            "nothing, and the map says nothing; explain the model without its last activation"
        )
    if outputs.kind == "labels" and peak < outputs.threshold and isinstance(target, ClassTarget):
        found.append(
            f"no label reaches the threshold of {outputs.threshold:g}; the most probable one has p = {peak:.3f}"
        )
    return found


CASES = {
    "confident-right": "confident and right",
    "confident-wrong": "confident and wrong",
    "unsure-right": "unsure and right",
    "unsure-wrong": "unsure and wrong",
}
