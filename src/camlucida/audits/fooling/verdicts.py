"""What the SHAM audit says: verdicts, tables and sentences made of its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from camlucida.audits.base import Outcome, Table, Verdict
from camlucida.audits.fooling.measure import NAMES, Variant, compare_with, ratio
from camlucida.common.statistics import mean_std

PASS = 0.25
"""Up to this share of what the maps of two images differ by, a method's maps count as unmoved."""

FAIL = 0.5
"""From this share on they count as moved."""

WORKED = 0.25
"""An attack worked where it brought the attacked map nearer to the mask by this share of the way, or more."""

MERE = 0.8
"""Where the control moves a method's maps by this share of what the attack does, the attack is not to blame."""

KEPT = 0.1
"""An attack that costs more accuracy than this has broken the model rather than fooled its maps."""

_SIGNED = ("cam", "cam, mean margin")

ABOUT = (
    "A copy of the model is fine-tuned so that its class activation maps light up the border of the image whatever "
    "is in it, while its decisions stay what they were (SHAM, passive fooling): a part of the loss is the "
    "cross-entropy, the rest the distance of the map from a fake mask. Then every method explains the same images on "
    "the clean and on the fooled model. Its susceptibility is the mean squared distance of the two maps, each scaled "
    "to [0, 1] at its own resolution. The scale for it is what the honest maps of two different images differ by: a "
    "share of 100 % means that the fooled map has as little to do with the honest one as that of another image. A "
    "control, the same training without the attack, shows how much of it is mere training."
)
"""What the audit does, for people."""

PUBLISHED = {
    "gradcam": (0.2420, 0.0723), "eigencam": (0.0579, 0.0857), "MeanDiffGradCAM": (0.0460, 0.0398),
    "MaxDiffGradCAM": (0.1200, 0.0621), "LSE-DiffGradCAM": (0.1050, 0.0632),
}  # fmt: skip
"""Susceptibility, mean and std: DiffGradCAM, Table 3 (DenseNet-121, one epoch of SHAM on ImageNet)."""


def verdict(
    one: Variant,
    found: Mapping[str, Any],
    control: Mapping[str, Any] | None,
    *,
    worked: bool,
    broke: bool = False,
) -> Verdict:
    """The verdict on a method with a target.

    Args:
        one: the variant.
        found: its numbers under the attack, see :func:`camlucida.audits.fooling.measure.moved`.
        control: its numbers under the control.
        worked: whether the attack moved the map that it attacked.
        broke: whether it cost more accuracy than :data:`KEPT`.
    """
    measure = "susceptibility, as a share of what the maps of two images differ by"
    if "error" in found:
        return Verdict(one.label, "not tested", f"It cannot explain this model: {found['error']}")
    value, (mean, std) = ratio(found), mean_std(found["susceptibility"])
    if math.isnan(value):
        alike = (
            "blank"
            if found["blank"][0] == len(found["susceptibility"])
            else "the same for all images"
        )
        if mean > 1e-6:
            moved = f"the attack moves them by {mean:.3f}, and there is no scale for that"
            text = f"Its honest maps are {alike}; {moved}."
            return Verdict(one.label, "warn", text)
        return Verdict(one.label, "not tested", f"Its maps are {alike}, so nothing can be told.")
    base = ratio(control) if control and "error" not in control else math.nan
    known = "" if math.isnan(base) else f" (the control: {100 * base:.0f} %)"
    numbers = (
        f"susceptibility {mean:.3f} ± {std:.3f}, {100 * value:.0f} % of what the maps of two images "
        f"differ by{known}"
    )
    outcome: Outcome
    if broke:
        outcome = "warn"
        text = (
            f"The attack broke the model, whose maps explain another behaviour now: {numbers}. That says little of "
            "the method."
        )
    elif value >= PASS and base >= MERE * value:
        outcome = "warn"
        text = f"Its maps move as far in mere training, without an attack: {numbers}."
    elif value >= FAIL:
        outcome = "fail"
        before, after = found["blank"]
        count = len(found["susceptibility"])
        blank = f" {after} of {count} maps went blank." if after - before >= count / 10 else ""
        text = f"The attack changes its maps: {numbers}; the bound is {100 * FAIL:.0f} %.{blank}"
    elif value >= PASS or not worked:
        outcome = "warn"
        text = (
            f"It resists in part: {numbers}; up to {100 * PASS:.0f} % passes."
            if value >= PASS
            else f"Its maps stay ({numbers}), but the attack did not move the map that it was aimed at either, so "
            "that says little."
        )
    else:
        outcome = "pass"
        text = (
            f"It resists: {numbers}; the bound is {100 * PASS:.0f} %. Another attack may do better."
        )
    return Verdict(
        one.label,
        outcome,
        text,
        value,
        PASS,
        measure,
        {"susceptibility": mean, "std": std, "control": base},
    )


def susceptibility_table(
    variants: Sequence[Variant],
    found: Mapping[str, Mapping[str, Any]],
    control: Mapping[str, Mapping[str, Any]],
    reference: str = "gradcam",
) -> Table:
    """Clean against fooled maps of every method, with tests against one of them."""
    values = {
        v.label: found[v.label]["susceptibility"] for v in variants if "error" not in found[v.label]
    }
    tests = compare_with(values, reference) if reference in values else {}
    rows: list[tuple[Any, ...]] = []
    for one in variants:
        numbers = found[one.label]
        if "error" in numbers:
            rows.append((one.label, *(None,) * 12))
            continue
        mean, std = mean_std(numbers["susceptibility"])
        other = control.get(one.label, {})
        base = mean_std(other["susceptibility"])[0] if other and "error" not in other else math.nan
        to_mask = [mean_std(side)[0] for side in numbers["to_mask"]]
        entropy = [mean_std(side)[0] for side in numbers["entropy"]]
        test = tests.get(one.label, {})
        rows.append(
            (
                one.label,
                _text(mean),
                _text(std),
                _share(ratio(numbers)),
                _text(base),
                _text(mean_std(numbers.get("similarity", []))[0]),
                f"{to_mask[0]:.2f} → {to_mask[1]:.2f}",
                f"{entropy[0]:.2f} → {entropy[1]:.2f}",
                f"{numbers['blank'][0]} → {numbers['blank'][1]}",
                _p(test.get("rank_sum")),
                _p(test.get("signed_rank")),
                _p(test.get("holm")),
                len(numbers["susceptibility"]),
            )
        )
    return Table(
        "Susceptibility: clean against fooled maps",
        (
            "method and target", "mean", "std", "share of another image's", "control", "similarity to gradcam",
            "distance from the mask", "entropy, nats", "blank maps", "p, rank-sum", "p, signed-rank", "p, Holm",
            "images",
        ),
        tuple(rows),
        f"Tests compare with {reference}: two-sided Wilcoxon rank-sum, as published, signed-rank, which paired "
        "samples need, and the latter corrected by Holm. Similarity is the mean squared distance from Grad-CAM on "
        "the clean model. Entropies are of maps at their own resolution and compare only where that is the same. "
        "A method that perturbs explains fewer images with --quick.",
    )  # fmt: skip


def model_table(rows: Sequence[tuple[str, float, float, float, float]]) -> Table:
    """Accuracy and CAM entropy of each model.

    Args:
        rows: name, accuracy, mean and std of the CAM entropy, distance of the attacked map from the mask.
    """
    return Table(
        "The models",
        (
            "model",
            "accuracy",
            "CAM entropy, nats",
            "std",
            "distance of the attacked map from the mask",
        ),
        tuple((name, f"{a:.3f}", _text(e), _text(s), _text(d)) for name, a, e, s, d in rows),
        "Accuracy on images that nothing was trained on. CAM entropy is that of the class-weight map at the layer's "
        "resolution, without ReLU; of Grad-CAM where the model has no such weights.",
    )


def condition_row(
    name: str, found: Mapping[str, Mapping[str, Any]], accuracies: tuple[float, float], hit: float
) -> tuple[Any, ...]:
    """One condition of the map: susceptibilities of the paper's methods, and whether their gap appears."""
    values = {
        label: numbers["susceptibility"]
        for label, numbers in found.items()
        if "error" not in numbers
    }
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
        *(_text(means.get(label, math.nan)) for label in (*PUBLISHED, *_SIGNED)),
        f"{gap:.2f}" if math.isfinite(gap) else None,
        _p(p),
        said_of_gap(grad, mean, p, hit, kept=kept),
    )


CONDITIONS = (
    "what trains, epochs, learning rate", "accuracy", "mask reached", *PUBLISHED, *_SIGNED, "gradcam / mean", "p",
    "published gap",
)  # fmt: skip


def said_of_gap(grad: float, mean: float, p: float, hit: float, *, kept: bool = True) -> str:
    """Whether MeanDiffGradCAM moved clearly less than Grad-CAM, as published.

    Args:
        grad: mean susceptibility of Grad-CAM.
        mean: of MeanDiffGradCAM.
        p: of the signed-rank test between them.
        hit: by which share the attack shortened the way of its map to the mask.
        kept: whether the model is as accurate as before, but for :data:`KEPT`.
    """
    if not kept:
        return "the attack broke the model"
    if hit < WORKED:
        return "attack too weak to tell"
    if p < 0.05 and mean < grad / 2:
        return "yes"
    if p < 0.05 and mean < grad:
        return "in part"
    return "no"


def condition_table(rows: Sequence[tuple[Any, ...]]) -> Table:
    """The map of conditions."""
    return Table(
        "Under which conditions the published gap appears",
        CONDITIONS,
        tuple(rows),
        "Mean susceptibility. 'Mask reached' is by how much the attack shortened the distance of its own map from "
        "the mask. The gap appears (yes) where MeanDiffGradCAM moves less than half as far as Grad-CAM, and in part "
        "where it moves less at all; p of the signed-rank test between the two, 0.05. Published: 0.242 against "
        "0.046, a factor of 5.3. cam is Grad-CAM without its ReLU, the map that the loss moves: where all of it "
        "falls below zero, Grad-CAM is blank.",
    )


def matrix_table(
    attackers: Sequence[str],
    columns: Sequence[str],
    found: Mapping[str, Mapping[str, Mapping[str, Any]]],
    accuracies: Mapping[str, float],
    hits: Mapping[str, float],
    clean: float,
) -> Table:
    """Attacked map by evaluated method."""
    rows = []
    for attacker in attackers:
        numbers = found[attacker]
        broken = accuracies[attacker] < clean - KEPT
        weak = hits[attacker] < WORKED  # never so for the control, whose share is NaN
        rows.append(
            (
                attacker + (" (broke the model)" if broken else " (too weak)" if weak else ""),
                f"{accuracies[attacker]:.3f}",
                _share(hits[attacker]),
                *(
                    None
                    if "error" in numbers[c]
                    else _text(mean_std(numbers[c]["susceptibility"])[0])
                    for c in columns
                ),
            )
        )
    return Table(
        "Attacker against evaluated method: mean susceptibility",
        ("attacked map", "accuracy", "mask reached", *columns),
        tuple(rows),
        "Each row is a copy fine-tuned against one method's map; the first, without an attack, is the control. Read "
        "along the row of a margin's own attack to see what a margin does not protect against. Margins and "
        "other methods are attacked adaptively: before the map's ReLU, divided by its maximum, with Adam, clipped "
        "gradients and a fifth of the loss for the cross-entropy. These settings were found for gradcam:mean on the "
        "small network; for gradcam, gradcam:max and gradcam:lse none that was tried there moved the shown map a "
        "quarter of the way to the mask and left the model whole. A copy whose accuracy "
        f"fell by more than {KEPT:g} from {clean:.3f} is broken, not fooled: its maps explain another behaviour.",
    )


def tail_table(
    found: Mapping[str, Mapping[str, Any]], labels: Sequence[int], classes: int
) -> Table:
    """Susceptibility by how frequent a class was in training."""
    third = max(1, math.ceil(classes / 3))
    groups = ("frequent", "middle", "rare")
    rows = []
    for label, numbers in found.items():
        if "error" in numbers or label not in PUBLISHED:
            continue
        cells: list[Any] = [label]
        for g in range(len(groups)):
            own = [
                v
                for v, c in zip(numbers["susceptibility"], labels, strict=False)
                if min(c // third, len(groups) - 1) == g
            ]
            mean, std = mean_std(own)
            cells += [_text(mean), _text(std)]
        rows.append(tuple(cells))
    return Table(
        "Susceptibility by how frequent a class was in training",
        ("method", *(f"{g}{s}" for g in groups for s in (" classes", ", std"))),
        tuple(rows),
        "The classes in thirds. A long tail of rare classes is a limitation that the paper names.",
    )


def summary(
    verdicts: Sequence[Verdict],
    *,
    worked: bool,
    broke: tuple[float, float] | None = None,
    conditions: Sequence[tuple[Any, ...]] = (),
    aimed: Sequence[str] = (),
) -> str:
    """One to five sentences over all methods.

    Args:
        verdicts: of all methods.
        worked: whether the main attack moved the map that it attacked.
        broke: the accuracy before and after it, where it cost more than :data:`KEPT`.
        conditions: rows of the map of conditions.
        aimed: maps that an attack aimed at them brought to the mask while the model stayed whole.
    """
    by = {o: [v.subject for v in verdicts if v.outcome == o] for o in ("fail", "warn", "pass")}
    parts = [] if worked else ["The attack did not bring the map that it was aimed at to the mask."]
    if broke is not None:
        parts.append(
            f"The attack broke the model: its accuracy fell from {broke[0]:.3f} to {broke[1]:.3f}, so that nothing is "
            "proved. Try a lower learning rate or fewer epochs."
        )
    if by["fail"]:
        parts.append(
            f"{len(by['fail'])} combinations of method and target were moved: {_some(by['fail'])}."
        )
    if by["warn"]:
        parts.append(f"{len(by['warn'])} in part, or with a caution: {_some(by['warn'])}.")
    if by["pass"]:
        parts.append(f"{len(by['pass'])} were not: {_some(by['pass'])}.")
    if aimed:
        parts.append(
            f"What resists this attack may fall to one aimed at it, which succeeded for {_some(aimed)}."
        )
    if conditions:
        seen = [str(row[0]) for row in conditions if row[-1] in {"yes", "in part"}]
        parts.append(
            "The published advantage of MeanDiffGradCAM over Grad-CAM "
            + (
                f"appears under {len(seen)} of {len(conditions)} conditions ({'; '.join(seen)})."
                if seen
                else f"appears under none of the {len(conditions)} conditions tried here."
            )
        )
    return " ".join(parts)


def paper_name(label: str) -> bool:
    """Whether a label is one of the paper's five methods."""
    return label in PUBLISHED or label in NAMES.values()


def _some(names: Sequence[str]) -> str:
    more = len(names) - 10
    return "; ".join(names[:10]) + (f"; and {more} more" if more > 0 else "")


def _text(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def _share(value: float) -> str | None:
    return None if math.isnan(value) else f"{100 * value:.0f} %"


def _p(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return None
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
