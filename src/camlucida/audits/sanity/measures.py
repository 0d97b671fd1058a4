"""What sanity checks measure: maps before and after something that should, or should not, change them.

Everything is returned ready for JSON, by method label; ``{"error": text}`` where a method cannot explain a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.sanity.models import shifted_input, shifted_logits
from camlucida.audits.trial import Trial, copied
from camlucida.common.errors import ModelError
from camlucida.common.provenance import fingerprint
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import correlation
from camlucida.data.preprocess import Preprocess
from camlucida.engine.maps import normalise, resize
from camlucida.engine.outputs import first_tensor
from camlucida.engine.redraw import randomise
from camlucida.explanation import Explanation
from camlucida.metrics.agreement import rank_correlation, similarity, ssim
from camlucida.targets import LogitMargin

Found = dict[str, Any]
"""Numbers by method label."""

_SMALLEST = 11  # side of SSIM's window


def compared(
    before: Mapping[str, Explanation | str], after: Mapping[str, Explanation | str], compare: Any
) -> Found:
    """Two explanations of each method compared, or why one of them cannot be made."""
    found: Found = {}
    for label, a in before.items():
        b = after[label]
        if isinstance(a, str) or isinstance(b, str):
            found[label] = {"error": a if isinstance(a, str) else str(b)}
        else:
            found[label] = compare(a, b)
    return found


# ------------------------------------------------------------------------------------------- measures


def alike(before: Explanation, after: Explanation) -> dict[str, Any]:
    """How alike two explanations of the same images are, per image.

    ``signed`` and ``absolute`` are rank correlations of the signed maps and of their absolute values at the
    layer's resolution, ``ssim`` that of the finished maps; ``None`` where a map is constant. ``chance`` is
    ``absolute`` between different images, ``blank`` how many maps of the second are constant, ``cells`` how many
    values are compared for each image.
    """
    a, b = _same_size(before.signed, after.signed)
    found: dict[str, Any] = {
        "signed": _numbers(rank_correlation(a, b)),
        "absolute": _numbers(rank_correlation(a.abs(), b.abs())),
        "ssim": [],
        "chance": [],
        "blank": int((b.flatten(1).amax(1) == b.flatten(1).amin(1)).sum()),
        "cells": a[0].numel(),
    }
    if min(before.maps.shape[1:]) >= _SMALLEST:
        found["ssim"] = _numbers(ssim(normalise(before.maps), normalise(after.maps)))
    if len(a) > 1:
        found["chance"] = _numbers(rank_correlation(a.abs(), b.roll(1, 0).abs()))
    return found


def parameters(
    trial: Trial,
    group: Sequence[Candidate],
    base: Mapping[str, Explanation | str],
    names: Sequence[str],
) -> Found:
    """How alike the maps stay when the weights of some modules are redrawn (Adebayo et al. 2018, section 3)."""
    twin = copied(trial.model)
    randomise(twin, names, trial.seed)
    return compared(base, replace(trial, model=twin).maps(group), alike)


def other_class(
    trial: Trial, group: Sequence[Candidate], base: Mapping[str, Explanation | str]
) -> Found:
    """How alike the maps of the most and the least probable class are; ``rival``, of the two most probable.

    The second class is often a sibling of the first, for which the same places may rightly count; the last one
    hardly is.
    """
    last = compared(base, trial.maps(group, trial.others), alike)
    second = compared(base, trial.maps(group, trial.rivals), alike)
    return {k: {**v, "rival": second[k].get("signed", [])} for k, v in last.items()}


def reproducible(
    trial: Trial, group: Sequence[Candidate], base: Mapping[str, Explanation | str]
) -> Found:
    """How the finished maps correlate with those of images whose pixels differ by at most one grey level.

    Raises:
        ModelError: it is not known how pixels become inputs, nor therefore what a grey level is.
    """
    if trial.preprocess is None:
        raise ModelError("what a grey level is, is not known without the model's preprocessing")
    near = trial.preprocess.jittered(trial.inputs, ImageGenerators(trial.seed + 1, trial.inputs))
    again = replace(trial, inputs=near).maps(group)

    def compare(a: Explanation, b: Explanation) -> dict[str, Any]:
        return {"again": _numbers(correlation(a.maps.flatten(1), b.maps.flatten(1)))}

    return compared(base, again, compare)


def input_shift(
    exact: Trial, group: Sequence[Candidate], base: Mapping[str, Explanation | str]
) -> Found:
    """How far maps move when images and first bias are shifted so that nothing else changes.

    ``exact`` is in double precision, and so are its maps ``base``; the shift is the standard deviation of the images,
    1 where they are constant. ``change`` is the largest change of the signed map over its largest value, per image,
    ``output`` the same of the logits. A known preprocessing is shifted too, so that methods on pixels see the same
    pixels.
    """
    shift = float(exact.inputs.std()) or 1.0
    twin = shifted_input(exact.model, exact.inputs, shift)
    moved = replace(
        exact,
        model=twin,
        inputs=exact.inputs + shift,
        preprocess=_moved(exact.preprocess, shift),
    )
    with torch.no_grad():
        before = first_tensor(exact.model(exact.inputs))
        after = first_tensor(twin(moved.inputs))
    apart = float((after - before).abs().max() / before.abs().max())

    def compare(a: Explanation, b: Explanation) -> dict[str, Any]:
        return {"change": _relative(a.signed, b.signed), "output": apart, "shift": shift}

    return compared(base, moved.maps(group), compare)


def logit_shift(
    exact: Trial,
    group: Sequence[Candidate],
    base: Mapping[str, Explanation | str],
    scale: float = 3.0,
) -> Found:
    """How far maps move when all logits are raised equally, which changes no probability.

    ``exact`` is in double precision, and so are its maps ``base``. ``own`` is the mean squared difference of the maps
    scaled to [0, 1], per image, for the target that the method explains by itself, ``margin`` for the margin over the
    other classes' mean logit; ``output`` is the largest change of a probability.
    """
    twin = shifted_logits(exact.model, exact.inputs, scale, exact.seed)
    moved = replace(exact, model=twin)
    with torch.no_grad():
        before = first_tensor(exact.model(exact.inputs)).softmax(1)
        after = first_tensor(twin(exact.inputs)).softmax(1)
    apart = float((after - before).abs().max())

    def compare(a: Explanation, b: Explanation) -> dict[str, Any]:
        # Two blank maps are alike, which proves nothing.
        blank = [_flat(m.raw) for m in (a, b)]
        values = torch.where(blank[0] & blank[1], math.nan, similarity(a.raw, b.raw))
        return {"values": _numbers(values), "output": apart}

    own = compared(base, moved.maps(group), compare)
    plain = [t for t in group if t.row.target is None]
    margins: dict[str, Any] = {}
    if plain:
        target = LogitMargin(classes=exact.classes)
        margins = compared(exact.maps(plain, target), moved.maps(plain, target), compare)
    found: Found = {}
    for label, values in own.items():
        if "error" in values:
            found[label] = values
            continue
        margin = margins.get(label) or values
        found[label] = {
            "own": values["values"], "margin": margin.get("values", []), "output": apart, "scale": scale,
        }  # fmt: skip
    return found


def behaviour(
    trial: Trial, group: Sequence[Candidate], base: Mapping[str, Explanation | str]
) -> Found:
    """Whether maps are usable, come out the same again and alone, and whether the model is left as it was.

    Shares of maps ``blank`` (constant), ``negative`` (nothing left after rectifying), ``broken`` (NaN or
    infinite) and ``cut`` (the target does not depend on the layer); ``repeat``, the largest difference of a map
    in [0, 1] between two runs with one seed, ``single``, between an image alone and in its batch, ``None`` where
    no batch had two images; ``changed``, what of the model is not as it was.
    """
    found: Found = {}
    one = trial.few(1)
    several = min(len(trial.inputs), trial.batch_size) > 1
    for tested in group:
        e = base[tested.label]
        if isinstance(e, str):
            found[tested.label] = {"error": e}
            continue
        before = _state(trial.model)
        first, again = (one.maps([tested])[tested.label] for _ in range(2))
        changed = [k for k, v in _state(trial.model).items() if v != before[k]]
        if isinstance(first, str) or isinstance(again, str):
            found[tested.label] = {"error": str(first)}
            continue
        notes = e.diagnostics
        found[tested.label] = {
            "images": len(notes),
            "blank": _share([d.constant and not d.disconnected for d in notes]),
            "negative": _share([d.all_negative and e.method.steps.rectify for d in notes]),
            "broken": _share([not d.finite for d in notes]),
            "cut": _share([bool(d.disconnected) for d in notes]),
            "saturated": _share([d.saturated for d in notes]),
            "repeat": _apart(first.maps, again.maps),
            "single": _apart(first.maps, e.maps[:1]) if several else None,
            "changed": changed,
        }
    return found


# ------------------------------------------------------------------------------------------- pieces


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    size = (max(a.shape[1], b.shape[1]), max(a.shape[2], b.shape[2]))
    return resize(a, size), resize(b, size)


def _numbers(values: Tensor) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values.double().tolist()]


def _relative(before: Tensor, after: Tensor) -> list[float | None]:
    a, b = _same_size(before, after)
    top = a.flatten(1).abs().amax(1)
    apart = (b - a).flatten(1).abs().amax(1)
    return _numbers(torch.where(top > 0, apart / top, apart))


def _flat(maps: Tensor) -> Tensor:
    return maps.flatten(1).amax(1) == maps.flatten(1).amin(1)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _moved(preprocess: Preprocess | None, shift: float) -> Preprocess | None:
    if preprocess is None:
        return None
    mean = tuple(m - shift * s for m, s in zip(preprocess.mean, preprocess.std, strict=True))
    return replace(preprocess, mean=mean)


def _state(model: nn.Module) -> dict[str, Any]:
    return {
        "weights and buffers": fingerprint(model),
        "training flags": [m.training for m in model.modules()],
        "requires_grad of parameters": [p.requires_grad for p in model.parameters()],
        "gradients of parameters": [
            None
            if p.grad is None
            else str(float(p.grad.double().sum()))  # NaN too is equal to itself
            for p in model.parameters()
        ],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))  # noqa: SLF001
            for m in model.modules()
        ],
        "random state": torch.get_rng_state().sum().item(),
    }
