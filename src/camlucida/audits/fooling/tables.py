"""The tables of the SHAM audit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.measure import compare_with, ratio
from camlucida.audits.fooling.verdicts import KEPT, WORKED, said_of_gap
from camlucida.common.statistics import mean_std
from camlucida.report import Column, Table

Moves = Mapping[str, Mapping[str, Any]]
"""What an attack did to the maps of each method, by label."""

PAPER = ("gradcam", "eigencam", "MeanDiffGradCAM", "MaxDiffGradCAM", "LSE-DiffGradCAM")
"""The methods of DiffGradCAM's Table 3."""

_SIGNED = ("cam", "cam, mean margin")


def susceptibility_table(
    methods: Sequence[Candidate], found: Moves, control: Moves, reference: str = "gradcam"
) -> Table:
    """Clean against fooled maps of every method, with tests against one of them."""
    values = _values(found)
    tests = compare_with(values, reference) if reference in values else {}
    rows: list[tuple[Any, ...]] = []
    for label in (one.label for one in methods):
        if label not in values:
            rows.append((label, *(None,) * 12))
            continue
        numbers, test = found[label], tests.get(label, {})
        sides = [[mean_std(side)[0] for side in numbers[k]] for k in ("to_mask", "entropy")]
        rows.append(
            (
                label,
                *mean_std(values[label]),
                _share(ratio(numbers)),
                mean_std(control.get(label, {}).get("susceptibility", []))[0],
                mean_std(numbers.get("similarity", []))[0],
                *(f"{before:.2f} → {after:.2f}" for before, after in sides),
                f"{numbers['blank'][0]} → {numbers['blank'][1]}",
                *(_p(test.get(k)) for k in ("rank_sum", "signed_rank", "holm")),
                len(values[label]),
            )
        )
    return Table.of_rows(
        "susceptibility",
        "Susceptibility: clean against fooled maps",
        (
            "method and target", *(Column(k, places=4) for k in ("mean", "std")), "share of another image's",
            *(Column(k, places=4) for k in ("control", "similarity to gradcam")), "distance from the mask",
            "entropy, nats", "blank maps", "p, rank-sum", "p, signed-rank", "p, Holm", "images",
        ),
        rows,
        f"Tests compare with {reference}: two-sided Wilcoxon rank-sum, as published, signed-rank, which paired "
        "samples need, and the latter corrected by Holm. Similarity is the mean squared distance from Grad-CAM on "
        "the clean model. Entropies are of maps at their own resolution and compare only where that is the same. "
        "A method that perturbs explains fewer images with --quick.",
    )  # fmt: skip


def model_table(rows: Sequence[tuple[str, float, float, float, float]]) -> Table:
    """Accuracy and CAM entropy of each model.

    A row is a name, accuracy, mean and std of the CAM entropy, and distance of the attacked map from the mask.
    """
    return Table.of_rows(
        "models",
        "The models",
        (
            "model",
            Column("accuracy", places=3),
            Column("CAM entropy", unit="nats", places=2),
            Column("std", places=4),
            Column("distance of the attacked map from the mask", places=4),
        ),
        rows,
        "Accuracy on images that nothing was trained on. CAM entropy is that of the class-weight map at the layer's "
        "resolution, without ReLU; of Grad-CAM where the model has no such weights.",
    )


def condition_row(
    name: str, found: Moves, accuracies: tuple[float, float], hit: float
) -> tuple[Any, ...]:
    """One condition of the map: susceptibilities of the paper's methods, and whether their gap appears."""
    values = _values(found)
    means = {label: mean_std(numbers)[0] for label, numbers in values.items()}
    grad, mean = means.get("gradcam", math.nan), means.get("MeanDiffGradCAM", math.nan)
    test = compare_with(
        {k: values[k] for k in ("gradcam", "MeanDiffGradCAM") if k in values}, "gradcam"
    )
    p = test.get("MeanDiffGradCAM", {}).get("signed_rank", math.nan)
    gap = grad / mean if mean > 0 else math.nan
    kept = accuracies[1] >= accuracies[0] - KEPT
    return (
        name,
        f"{accuracies[0]:.3f} → {accuracies[1]:.3f}",
        _share(hit),
        *(means.get(label, math.nan) for label in (*PAPER, *_SIGNED)),
        f"{gap:.2f}" if math.isfinite(gap) else None,
        _p(p),
        said_of_gap(grad, mean, p, hit, kept=kept),
    )


CONDITIONS = (
    "what trains, epochs, learning rate", "accuracy", "mask reached", *PAPER, *_SIGNED, "gradcam / mean", "p",
    "published gap",
)  # fmt: skip


def condition_table(rows: Sequence[tuple[Any, ...]]) -> Table:
    """The map of conditions."""
    return Table.of_rows(
        "conditions",
        "Under which conditions the published gap appears",
        [Column(title, places=4) for title in CONDITIONS],
        rows,
        "Mean susceptibility. 'Mask reached' is by how much the attack shortened the distance of its own map from "
        "the mask. The gap appears (yes) where MeanDiffGradCAM moves less than half as far as Grad-CAM, and in part "
        "where it moves less at all; p of the signed-rank test between the two, 0.05. Published: 0.242 against "
        "0.046, a factor of 5.3. cam is Grad-CAM without its ReLU, the map that the loss moves: where all of it "
        "falls below zero, Grad-CAM is blank.",
    )


def matrix_table(
    attackers: Sequence[str],
    columns: Sequence[str],
    found: Mapping[str, Moves],
    accuracies: Mapping[str, float],
    hits: Mapping[str, float],
    clean: float,
) -> Table:
    """Attacked map by evaluated method."""
    rows = []
    for attacker in attackers:
        broken = accuracies[attacker] < clean - KEPT
        weak = hits[attacker] < WORKED  # never so for the control, whose share is NaN
        rows.append(
            (
                attacker + (" (broke the model)" if broken else " (too weak)" if weak else ""),
                accuracies[attacker],
                _share(hits[attacker]),
                *(mean_std(found[attacker][c].get("susceptibility", []))[0] for c in columns),
            )
        )
    return Table.of_rows(
        "attackers",
        "Attacker against evaluated method: mean susceptibility",
        (
            "attacked map",
            Column("accuracy", places=3),
            "mask reached",
            *(Column(c, places=4) for c in columns),
        ),
        rows,
        "Each row is a copy fine-tuned against one method's map; the first, without an attack, is the control. Read "
        "along the row of a margin's own attack to see what a margin does not protect against. Margins and "
        "other methods are attacked adaptively: before the map's ReLU, divided by its maximum, with Adam, clipped "
        "gradients and a fifth of the loss for the cross-entropy. These settings were found for gradcam:mean on the "
        "small network; for gradcam, gradcam:max and gradcam:lse none that was tried there moved the shown map a "
        "quarter of the way to the mask and left the model whole. A copy whose accuracy "
        f"fell by more than {KEPT:g} from {clean:.3f} is broken, not fooled: its maps explain another behaviour.",
    )


def tail_table(found: Moves, labels: Sequence[int], classes: int) -> Table:
    """Susceptibility by how frequent a class was in training."""
    groups = ("frequent", "middle", "rare")
    third = max(1, math.ceil(classes / len(groups)))
    rows: list[list[Any]] = []
    for label, values in _values(found).items():
        if label in PAPER:
            pairs = list(zip(values, labels, strict=False))
            thirds = [[v for v, c in pairs if min(c // third, 2) == g] for g in range(len(groups))]
            rows.append([label, *(n for own in thirds for n in mean_std(own))])
    titles = [f"{g}{s}" for g in groups for s in (" classes", ", std")]
    return Table.of_rows(
        "tail",
        "Susceptibility by how frequent a class was in training",
        ("method", *(Column(title, places=4) for title in titles)),
        rows,
        "The classes in thirds. A long tail of rare classes is a limitation that the paper names.",
    )


def _values(found: Moves) -> dict[str, list[float]]:
    """Susceptibilities per image of the variants that could be measured."""
    return {k: v["susceptibility"] for k, v in found.items() if "error" not in v}


def _share(value: float) -> str | None:
    return None if math.isnan(value) else f"{100 * value:.0f} %"


def _p(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return None
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
