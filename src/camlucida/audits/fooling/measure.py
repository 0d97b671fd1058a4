"""How far an attack moves the maps of each method, with every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from camlucida.audits.candidates import AGGREGATORS, Candidate
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import holm, mean_std, rank_sum, settled, signed_rank
from camlucida.engine.maps import normalise, rectify, resize
from camlucida.metrics.agreement import similarity, susceptibility
from camlucida.metrics.concentration import cam_entropy

CORE = tuple(
    Candidate(name, aggregator)
    for name, aggregators in {
        "gradcam": (None, *AGGREGATORS), "eigencam": (None,), "hirescam": (None, "mean"), "layercam": (None, "mean"),
        "gradcam++": (None, "mean"), "xgradcam": (None,), "cam": (None, "mean"),
    }.items()
    for aggregator in aggregators
)  # fmt: skip
"""What is measured under every condition: the paper's five methods, and others of one pass."""


def moved(clean: Tensor, fooled: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
    """What an attack did to the maps ``(N, h, w)`` of a method, per image, ready for JSON.

    Returns:
        ``susceptibility``; ``another``: how far each clean map is from that of the next image, what two honest
        maps differ by; ``entropy`` before and after in nats; ``blank``: how many maps are constant, before and
        after; ``to_mask``: distance from the mask before and
        after.
    """
    found: dict[str, Any] = {
        "susceptibility": susceptibility(clean, fooled).tolist(),
        "another": similarity(clean, clean.roll(1, 0)).tolist() if len(clean) > 1 else [],
        "entropy": [cam_entropy(clean).tolist(), cam_entropy(fooled).tolist()],
        "blank": [_blank(clean), _blank(fooled)],
        "cells": list(clean.shape[1:]),
    }
    if mask is not None:
        wanted = mask.to(clean)[None]
        size = (int(mask.shape[0]), int(mask.shape[1]))
        pair = [
            (normalise(resize(rectify(maps), size)) - wanted).square().mean((1, 2)).tolist()
            for maps in (clean, fooled)
        ]
        found["to_mask"] = pair
    return found


def _blank(maps: Tensor) -> int:
    return int((maps.flatten(1).amax(1) == maps.flatten(1).amin(1)).sum())


def measure_variant(
    trial: Trial,
    fooled: nn.Module,
    one: Candidate,
    mask: Tensor | None = None,
    clean: Tensor | None = None,
    reference: Tensor | None = None,
) -> dict[str, Any]:
    """:func:`moved` of a method with its target, or why it cannot be measured, ready for JSON.

    ``clean`` are the maps of the model as it was, where they are known; ``reference`` are those of Grad-CAM, the
    distance from which is added as ``similarity``.
    """
    try:
        before = trial.raw(one) if clean is None else clean
        after = trial.raw(one, fooled)
    except CamlucidaError as error:
        return {"error": str(error)}
    found = moved(before, after, mask)
    if reference is not None and before.shape[1:] == reference.shape[1:]:
        found["similarity"] = similarity(before, reference[: len(before)]).tolist()
    return found


def ratio(found: Mapping[str, Any]) -> float:
    """Mean susceptibility as a share of what the maps of two different images differ by; NaN where they do not."""
    another = mean_std(found["another"])[0]
    return mean_std(found["susceptibility"])[0] / another if another > 1e-9 else float("nan")


def compare_with(
    values: Mapping[str, Sequence[float]], reference: str
) -> dict[str, dict[str, float]]:
    """Tests of each row's numbers per image against those of one row; a shorter row is compared on its images.

    Returns:
        Of each other row: ``rank_sum`` as published (for unpaired samples), ``signed_rank`` (which is what paired
        samples need) and the latter corrected by ``holm``.
    """
    own = np.asarray(values[reference], np.float64)
    found: dict[str, dict[str, float]] = {}
    for label, numbers in values.items():
        if label == reference:
            continue
        one = np.asarray(numbers, np.float64)
        both = min(len(one), len(own))
        known = np.isfinite(one[:both]) & np.isfinite(own[:both])
        a, b = one[:both][known], own[:both][known]
        found[label] = {
            "rank_sum": rank_sum(a, b),
            "signed_rank": signed_rank(settled(a - b, a, b)),
        }
    corrected = holm([row["signed_rank"] for row in found.values()])
    for row, p in zip(found.values(), corrected, strict=True):
        row["holm"] = float(p)
    return found
