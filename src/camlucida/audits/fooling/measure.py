"""How far an attack moves the maps of each method, with every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from camlucida.audits.deadzone.activity import all_methods
from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import holm, mean_std, rank_sum, settled, signed_rank
from camlucida.data.preprocess import Preprocess
from camlucida.engine.maps import normalise, rectify, resize
from camlucida.explanation.explain import explain
from camlucida.methods import method_row
from camlucida.metrics.agreement import similarity, susceptibility
from camlucida.metrics.concentration import cam_entropy
from camlucida.targets import Logit, LogitMargin, Target
from camlucida.targets.classes import Aggregator

AGGREGATORS: tuple[Aggregator, ...] = ("mean", "max", "lse")

NAMES = {
    ("gradcam", "mean"): "MeanDiffGradCAM",
    ("gradcam", "max"): "MaxDiffGradCAM",
    ("gradcam", "lse"): "LSE-DiffGradCAM",
}
"""What the paper calls Grad-CAM on a margin."""

CORE: tuple[tuple[str, Aggregator | None], ...] = (
    ("gradcam", None), ("gradcam", "mean"), ("gradcam", "max"), ("gradcam", "lse"), ("eigencam", None),
    ("hirescam", None), ("hirescam", "mean"), ("layercam", None), ("layercam", "mean"), ("gradcam++", None),
    ("gradcam++", "mean"), ("xgradcam", None), ("cam", None), ("cam", "mean"),
)  # fmt: skip
"""What is measured under every condition: the paper's five methods, and others of one pass."""

# Methods of many passes: with --quick they explain fewer images, and one margin only.
_FEW = 12


@dataclass(frozen=True)
class Variant:
    """A method with a target.

    Attributes:
        method: registered name.
        aggregator: of the margin that is explained; ``None`` explains the logit.
        options: of the method.
        own_layers: whether it explains the layers that it chooses itself.
        images: how many images it is measured on at most; ``None`` for all.
    """

    method: str
    aggregator: Aggregator | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    own_layers: bool = False
    images: int | None = None

    @property
    def label(self) -> str:
        """For tables: the paper's name, or method and margin."""
        if self.aggregator is None:
            return self.method
        return NAMES.get((self.method, self.aggregator), f"{self.method}, {self.aggregator} margin")

    def target(self, classes: Tensor) -> Target:
        """What is explained."""
        if self.aggregator is None:
            return Logit(classes)
        return LogitMargin(classes, self.aggregator)


def core_variants() -> tuple[Variant, ...]:
    """The variants measured under every condition."""
    return tuple(Variant(method, aggregator) for method, aggregator in CORE)


def all_variants(*, quick: bool, names: Sequence[str] | None = None) -> tuple[Variant, ...]:
    """Every registered method with its logit and with each margin.

    Methods whose map is the same for every class, and names that stand for a target of their own
    (``diffgradcam`` is ``gradcam`` on a margin), appear once.

    Args:
        quick: fewer passes, images and margins for the methods that take many passes.
        names: only these methods.

    Raises:
        MethodError: for an unknown name.
    """
    found: list[Variant] = []
    seen = set()
    for one in all_methods(quick=quick, names=names):
        row = method_row(one.name)
        if one.label != one.name or row.name in seen:
            continue
        seen.add(row.name)
        slow = quick and bool(row.cost.times)
        margins: tuple[Aggregator | None, ...]
        if row.target is LogitMargin:
            if names is None:
                continue  # the same as gradcam and gradcam++ on margins, which are there
            found += [Variant(row.base.name, a) for a in AGGREGATORS]
            continue
        if not row.discriminative or row.target is not None:
            margins = (None,)
        else:
            margins = (None, "mean") if slow else (None, *AGGREGATORS)
        found += [
            Variant(row.name, a, one.options, one.own_layers, _FEW if slow else None)
            for a in margins
        ]
    # With gradcam among the names, diffgradcam brings nothing new.
    return tuple({variant.label: variant for variant in reversed(found)}.values())[::-1]


@dataclass(frozen=True)
class Subject:
    """Images that methods explain.

    Attributes:
        inputs: ``(N, C, H, W)``.
        labels: the explained classes ``(N,)``; to explain what the clean model predicts, put that here.
        layer: the explained layer.
        preprocess: for methods that work on pixels.
        seed: of methods that draw.
        batch_size: images at a time.
    """

    inputs: Tensor
    labels: Tensor
    layer: str
    preprocess: Preprocess | None = None
    seed: int = 0
    batch_size: int = 50

    def maps(self, model: nn.Module, variant: Variant) -> Tensor:
        """A variant's own maps ``(N', h, w)`` before enlarging, rectified where its formula rectifies.

        Raises:
            CamlucidaError: the method cannot explain this model.
        """
        count = (
            len(self.inputs) if variant.images is None else min(variant.images, len(self.inputs))
        )
        labels = self.labels[:count]
        row = method_row(variant.method)
        target: Any = labels.tolist() if row.target is not None else variant.target(labels)
        found = explain(
            model,
            self.inputs[:count],
            method=variant.method,
            target=target,
            layers=None if variant.own_layers else self.layer,
            preprocess=self.preprocess,
            seed=self.seed,
            batch_size=self.batch_size,
            **variant.options,
        )
        return found.raw.detach()


def moved(clean: Tensor, fooled: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
    """What an attack did to the maps of a method, per image, ready for JSON.

    Args:
        clean: ``(N, h, w)`` on the model as it was.
        fooled: the same on the attacked one.
        mask: where the attack wants them.

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
    clean: nn.Module | Tensor,
    fooled: nn.Module,
    subject: Subject,
    variant: Variant,
    mask: Tensor | None = None,
    reference: Tensor | None = None,
) -> dict[str, Any]:
    """:func:`moved` of a variant, or why it cannot be measured, ready for JSON.

    Args:
        clean: the model as it was, or its maps, where they are known.
        fooled: the attacked one.
        subject: images and classes.
        variant: method and target.
        mask: where the attack wants the maps.
        reference: Grad-CAM's maps of the clean model; the distance from them is added as ``similarity``.
    """
    try:
        before = clean if isinstance(clean, Tensor) else subject.maps(clean, variant)
        after = subject.maps(fooled, variant)
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
    """Tests of each row's numbers per image against those of one row.

    Args:
        values: per image, by label; a shorter row is compared on the images that it has.
        reference: the row that all others are compared with.

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
