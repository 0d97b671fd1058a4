"""What the SHAM audit says: verdicts and sentences made of its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.measure import ratio
from camlucida.audits.verdicts import UNEXPLAINED, Outcome, Sentence, Verdict, by_outcome
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

_NUMBERS = "susceptibility {mean:.3f} ± {std:.3f}, {value:.0 %} of what the maps of two images differ by{control}"
_BROKE = Sentence(
    "model broken",
    f"The attack broke the model, whose maps explain another behaviour now: {_NUMBERS}. That says little of the "
    "method.",
)
_MERE = Sentence(
    "mere training", f"Its maps move as far in mere training, without an attack: {_NUMBERS}."
)
_MOVED = Sentence(
    "moved", f"The attack changes its maps: {_NUMBERS}; the bound is {{fail:.0 %}}.{{blank}}"
)
_IN_PART = Sentence("moved in part", f"It resists in part: {_NUMBERS}; up to {{most:.0 %}} passes.")
_WEAK = Sentence(
    "weak attack",
    f"Its maps stay ({_NUMBERS}), but the attack did not move the map that it was aimed at either, so that says "
    "little.",
)
_RESISTS = Sentence(
    "resists", f"It resists: {_NUMBERS}; the bound is {{most:.0 %}}. Another attack may do better."
)
_ALIKE = Sentence("maps alike", "Its maps are {alike}, so nothing can be told.")
_NO_SCALE = Sentence(
    "no scale",
    "Its honest maps are {alike}; the attack moves them by {mean:.3f}, and there is no scale for that.",
)


def verdict(
    one: Candidate,
    found: Mapping[str, Any],
    control: Mapping[str, Any] | None,
    *,
    worked: bool,
    broke: bool = False,
) -> Verdict:
    """The verdict on a method with a target.

    Args:
        one: the method.
        found: its numbers under the attack, see :func:`camlucida.audits.fooling.measure.moved`.
        control: its numbers under the control.
        worked: whether the attack moved the map that it attacked.
        broke: whether it cost more accuracy than :data:`KEPT`.
    """
    if "error" in found:
        return Verdict(one.label, "not tested", UNEXPLAINED(error=found["error"]))
    value, (mean, std) = ratio(found), mean_std(found["susceptibility"])
    count, (before, after) = len(found["susceptibility"]), found["blank"]
    if math.isnan(value):
        alike = "blank" if before == count else "the same for all images"
        if mean > 1e-6:
            return Verdict(one.label, "warn", _NO_SCALE(alike=alike, mean=mean))
        return Verdict(one.label, "not tested", _ALIKE(alike=alike))
    base = ratio(control) if control and "error" not in control else math.nan
    outcome, said = _judged(value, base, worked=worked, broke=broke)
    said = said(
        mean=mean, std=std, value=value, fail=FAIL, most=PASS,
        control="" if math.isnan(base) else f" (the control: {100 * base:.0f} %)",
        blank=f" {after} of {count} maps went blank." if after - before >= count / 10 else "",
    )  # fmt: skip
    measure = "susceptibility, as a share of what the maps of two images differ by"
    details = {"susceptibility": mean, "std": std, "control": base}
    return Verdict(one.label, outcome, said, value, PASS, measure, details)


def _judged(value: float, base: float, *, worked: bool, broke: bool) -> tuple[Outcome, Sentence]:
    if broke:
        return "warn", _BROKE
    if value >= PASS and base >= MERE * value:
        return "warn", _MERE
    if value >= FAIL:
        return "fail", _MOVED
    if value >= PASS:
        return "warn", _IN_PART
    return ("pass", _RESISTS) if worked else ("warn", _WEAK)


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
    by = by_outcome(verdicts)
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


def _some(names: Sequence[str]) -> str:
    more = len(names) - 10
    return "; ".join(names[:10]) + (f"; and {more} more" if more > 0 else "")
