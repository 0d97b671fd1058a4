"""What the SHAM audit says: verdicts and sentences made of its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.measure import ratio
from camlucida.audits.verdicts import UNEXPLAINED, Outcome, Verdict, by_outcome, decided, sentences
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

_SAY = sentences("""
numbers: susceptibility {mean:.3f} ± {std:.3f}, {value:.0 %} of what the maps of two images differ by{control}
model broken: The attack broke the model, whose maps explain another behaviour now: {numbers}. That says little of the
    method.
mere training: Its maps move as far in mere training, without an attack: {numbers}.
moved: The attack changes its maps: {numbers}; the bound is {fail:.0 %}.{blank}
moved in part: It resists in part: {numbers}; up to {most:.0 %} passes.
weak attack: Its maps stay ({numbers}), but the attack did not move the map that it was aimed at either, so that says
    little.
resists: It resists: {numbers}; the bound is {most:.0 %}. Another attack may do better.
maps alike: Its maps are {alike}, so nothing can be told.
no scale: Its honest maps are {alike}; the attack moves them by {mean:.3f}, and there is no scale for that.
""")


def verdict(
    one: Candidate,
    found: Mapping[str, Any],
    control: Mapping[str, Any] | None,
    *,
    worked: bool,
    broke: bool = False,
) -> Verdict:
    """The verdict on a method with a target.

    ``worked`` says whether the attack moved the map that it attacked, ``broke`` whether it cost more accuracy than
    :data:`KEPT`.
    """
    if "error" in found:
        return Verdict(one.label, "not tested", UNEXPLAINED(error=found["error"]))
    value, (mean, std) = ratio(found), mean_std(found["susceptibility"])
    count, (before, after) = len(found["susceptibility"]), found["blank"]
    if math.isnan(value):
        alike = "blank" if before == count else "the same for all images"
        if mean > 1e-6:
            return Verdict(one.label, "warn", _SAY["no scale"](alike=alike, mean=mean))
        return Verdict(one.label, "not tested", _SAY["maps alike"](alike=alike))
    base = ratio(control) if control and "error" not in control else math.nan
    outcome, kind = _judged(value, base, worked=worked, broke=broke)
    another = mean_std(found["another"])[0]
    shares = [moved / another for moved in found["susceptibility"]]
    evidence = decided(shares, most=FAIL if outcome == "fail" else PASS)
    if outcome in {"pass", "fail"}:
        outcome = evidence.outcome
    known = "" if math.isnan(base) else f" (the control: {100 * base:.0f} %)"
    numbers = _SAY["numbers"](mean=mean, std=std, value=value, control=known)
    blank = f" {after} of {count} maps went blank." if after - before >= count / 10 else ""
    said = _SAY[kind](numbers=numbers, fail=FAIL, most=PASS, blank=blank)
    measure = "susceptibility, as a share of what the maps of two images differ by"
    details = {"susceptibility": mean, "std": std, "control": base}
    return Verdict(one.label, outcome, said, value, PASS, measure, details, evidence=evidence)


def _judged(value: float, base: float, *, worked: bool, broke: bool) -> tuple[Outcome, str]:
    if broke:
        return "warn", "model broken"
    if value >= PASS and base >= MERE * value:
        return "warn", "mere training"
    if value >= FAIL:
        return "fail", "moved"
    if value >= PASS:
        return "warn", "moved in part"
    return ("pass", "resists") if worked else ("warn", "weak attack")


def said_of_gap(grad: float, mean: float, p: float, hit: float, *, kept: bool = True) -> str:
    """Whether MeanDiffGradCAM moved clearly less than Grad-CAM, as published.

    ``grad`` and ``mean`` are their mean susceptibilities, ``p`` is that of the signed-rank test between them, and
    ``hit`` by which share the attack shortened the way of its map to the mask.
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

    ``broke`` is the accuracy before and after an attack that cost more than :data:`KEPT`; ``aimed`` are the maps that
    an attack aimed at them brought to the mask while the model stayed whole.
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
    if by["unclear"]:
        parts.append(f"Not enough to tell of {len(by['unclear'])}: {_some(by['unclear'])}.")
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
