"""What the numbers of sanity checks mean: a bound for each, its reason, and sentences that need no paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from camlucida.audits.base import Outcome, Verdict, rounded
from camlucida.common.statistics import mean_std
from camlucida.methods import method_row

ALIKE = 0.5
"""Largest mean rank correlation with the map of a network that knows nothing: a quarter of the ranks' variance."""

SAME_CLASS = 0.9
"""Largest mean rank correlation of the maps of two classes."""

SHIFTED = 1e-3
"""Largest mean change of a map, as a share of its largest value, when nothing that matters has changed."""

COMMON = 1e-6
"""Largest mean squared difference of maps in [0, 1] when no probability has changed: a thousandth of the range."""

USABLE = 0.1
"""Largest share of the maps that may hold nothing."""

ROUNDING = 1e-3
"""Largest difference of a map in [0, 1] between an image alone and in its batch."""


@dataclass(frozen=True)
class Check:
    """A sanity check.

    Attributes:
        name: short, for records.
        title: for tables.
        asks: the question, in words.
        bound: what the number is held against, and why, in words.
        measure: what the number is.
        serious: whether failing it says that the map cannot be trusted; else that it is to be read with caution.
    """

    name: str
    title: str
    asks: str
    bound: str
    measure: str
    serious: bool = True


@dataclass(frozen=True)
class Result:
    """How a method did in a check.

    Attributes:
        check: which.
        outcome: ``"pass"``, ``"fail"`` or ``"not tested"``.
        text: why, with the number and the bound.
        value: the number.
        threshold: the bound.
        details: what else was measured.
    """

    check: Check
    outcome: Outcome
    text: str
    value: float | None = None
    threshold: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "outcome": self.outcome,
            "value": self.value,
            "threshold": self.threshold,
            "measure": self.check.measure,
            "text": self.text,
            "details": dict(self.details),
        }


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "parameters", "weights redrawn",
            "Does the map depend on what the model has learned?",
            f"At most {ALIKE:g} in size: with more, over a quarter of the map's order would come from architecture and "
            "image alone. Unrelated maps of a few images scatter around 0 by 0.1 to 0.2.",
            "rank correlation with the map of the model with all weights redrawn",
        ),
        Check(
            "data", "labels shuffled",
            "Does the map depend on what the labels mean?",
            f"At most {ALIKE:g} in size, as for the weights. Measured on two small networks, not on the audited model.",
            "rank correlation between two small networks that learned true and shuffled labels",
            serious=False,
        ),
        Check(
            "class", "other class",
            "Does the map of another class look different?",
            f"At most {SAME_CLASS:g}: with more, the two maps order the places almost alike.",
            "rank correlation of the maps of the most and the least probable class",
        ),
        Check(
            "usable", "usable maps",
            "Do the maps hold anything?",
            f"At most {100 * USABLE:g} % of the maps may be constant, blank after rectifying, not finite, or of a "
            "layer that the score does not depend on.",
            "share of maps that hold nothing",
        ),
        Check(
            "repeat", "same again",
            "Does the same seed give the same map?",
            "No difference at all.",
            "largest difference of a map in [0, 1] between two runs",
        ),
        Check(
            "single", "alone as in a batch",
            "Does an image alone get the map that it gets in a batch?",
            f"At most {ROUNDING:g}, which leaves room for rounding. Needs two images and a batch size of 2.",
            "largest difference of a map in [0, 1]",
        ),
        Check(
            "state", "model untouched",
            "Is the model afterwards what it was?",
            "Weights, buffers, training flags, gradients, hooks and random state are all unchanged.",
            "number of kinds of things that were changed",
        ),
        Check(
            "input shift", "input shifted",
            "Does the map stay when all pixels are shifted by a constant and the first layer makes up for it?",
            f"At most {SHIFTED:g} of the map's largest value; in double precision rounding is far below.",
            "largest change over largest value of the map",
            serious=False,
        ),
        Check(
            "logit shift", "logits shifted",
            "Does the map stay when all classes get the same amount more, so that no probability changes?",
            f"At most {COMMON:g}, a thousandth of the map's range; in double precision rounding is far below.",
            "mean squared difference of the maps in [0, 1]",
            serious=False,
        ),
        Check(
            "completeness", "sum kept",
            "Does the map sum to what the method promises?",
            "At most 0.1 % of the explained score may be missing, for integrated gradients 5 % (its authors' "
            "rule). Judged only where the method's formula promises the sum for this model.",
            "share of the explained score that is missing",
            serious=False,
        ),
    )
}  # fmt: skip
"""In the order in which they are shown."""


def results(name: str, measured: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Result]:
    """Every check of a method.

    Args:
        name: registered name of the method.
        measured: by part: ``parameters`` (all weights redrawn), ``data``, ``class``, ``behaviour``,
            ``input shift``, ``logit shift``, ``completeness``; ``None`` or missing where nothing was measured.
    """
    found = {}
    for key, check in CHECKS.items():
        part = measured.get("behaviour" if key in _BEHAVIOUR else key)
        if part is None:
            text = (
                "The method promises no sum for this model."
                if key == "completeness"
                else "Was not tested."
            )
            found[key] = Result(check, "not tested", text)
        elif "error" in part:
            said = f"Could not be tested: {part['error']}"
            found[key] = Result(check, "not tested", said, details={"error": part["error"]})
        else:
            found[key] = _JUDGES[key](check, name, part)
    return found


def verdict(label: str, found: Mapping[str, Result]) -> Verdict:
    """All checks of a method in one verdict.

    A method whose dependence on the weights could not be tested, while other checks could, does not pass.
    """
    failed = [r for r in found.values() if r.outcome == "fail"]
    tested = [r for r in found.values() if r.outcome != "not tested"]
    outcome: Outcome = "pass"
    if not tested:
        first = next(iter(found.values()))
        return Verdict(label, "not tested", first.text)
    if any(r.check.serious for r in failed):
        outcome = "fail"
    elif failed or found["parameters"].outcome == "not tested":
        outcome = "warn"
    said = f"Passed {len(tested) - len(failed)} of {len(tested)} checks. "
    said += " ".join(r.text for r in sorted(failed, key=lambda r: not r.check.serious))
    if found["parameters"].outcome == "not tested":
        said += f" Whether its map depends on the weights is not known. {found['parameters'].text}"
    if found["class"].outcome == "not tested" and found["class"].value is not None:
        said += " By its formula its map is the same for every class: it is no evidence for one."
    unable = [r.check.title for k, r in found.items() if "error" in r.details and k != "parameters"]
    if unable:
        said += f" Could not be tested on this model: {', '.join(unable)}."
    return Verdict(
        label,
        outcome,
        " ".join(said.split()),
        float(len(failed)),
        0.0,
        "failed checks",
        {key: result.to_dict() for key, result in found.items()},
    )


def mark(result: Result) -> str:
    """An outcome and its number for a cell."""
    sign = {"pass": "✓", "fail": "✗", "warn": "!", "not tested": "–"}[result.outcome]
    if result.value is None:
        return sign
    return f"{sign} {beside(result.value, result.threshold, short(result.value))}"


def short(value: float) -> str:
    """A number of any size in a few letters."""
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 1000:
        return f"{value:.2f}"
    return f"{value:.4f}" if 0.0005 <= abs(value) < 1 else f"{value:.0e}"


def beside(value: float, bound: float | None, plain: str = "") -> str:
    """A number with two places, or with more where these would hide on which side of its bound it lies."""
    plain = plain or f"{value:.2f}"
    if bound is None or value == bound or f"{value:.2f}" != f"{bound:.2f}" or bound < 0.01:
        return plain
    return f"{value:.4f}"


# ------------------------------------------------------------------------------------------- judges


def known(values: Sequence[float | None]) -> list[float]:
    """Those that are numbers."""
    return [v for v in values if v is not None]


def likeness(part: Mapping[str, Any]) -> float | None:
    """The number that decides: the mean rank correlation, signed or of absolute values, that is further from 0.

    ``None`` where all maps are constant.
    """
    means = [mean_std(known(part[k]))[0] for k in ("signed", "absolute") if known(part[k])]
    return max(means, key=abs, default=None)


def _alike(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    value = likeness(part)
    if value is None:
        return Result(
            check, "not tested",
            "Without what was learned all maps are constant, so nothing can be compared.",
            details=part,
        )  # fmt: skip
    count, cells = len(known(part["absolute"])), part.get("cells")
    # Ranks of n unrelated values correlate by 1/sqrt(n - 1) on the average of squares (Kendall and Gibbons 1990).
    chance = 1.0 if cells == 1 else (count * ((cells or math.inf) - 1)) ** -0.5
    if 2 * chance > ALIKE:
        text = (
            f"Too little to compare: {count} map{'s' if count > 1 else ''} of {cells} cells, of which unrelated ones "
            f"would often get a rank correlation of {2 * chance:.2f} too."
        )
        return Result(check, "not tested", text, None, ALIKE, part)
    fails = abs(value) > ALIKE
    said = beside(value, ALIKE)
    passes = f"-{ALIKE:g} to {ALIKE:g} passes: the inverted map would be as much alike"
    if check.name == "parameters":
        learned, other, where = "the weights", "a model with random weights", ""
    else:
        learned, other = "the labels", "a network that learned shuffled labels"
        where = " Measured on two small networks, not on this model."
    text = (
        f"Much of its map has nothing to do with {learned}: {other} gets one with rank correlation {said} "
        f"({passes})."
        if fails
        else f"{other[0].upper()}{other[1:]} gets another map: rank correlation {said} ({passes})."
    ) + where
    return Result(check, "fail" if fails else "pass", text, value, ALIKE, part)


def _class(check: Check, name: str, part: Mapping[str, Any]) -> Result:
    values, second = known(part["signed"]), known(part.get("rival", ()))
    if not values:
        return Result(check, "not tested", "All maps are constant.", details=part)
    value = mean_std(values)[0]
    rival = mean_std(second)[0] if second else None
    part = {**part, "rival_mean": rival}
    outcome: Outcome = "fail" if value > SAME_CLASS else "pass"
    said = "are nearly the same" if outcome == "fail" else "differ"
    if not method_row(name).discriminative:
        outcome, said = "not tested", "are not claimed to differ"
    text = (
        f"The maps of the most and the least probable class {said}: rank correlation {beside(value, SAME_CLASS)} (at "
        f"most {SAME_CLASS:g} passes"
    )
    text += (
        ")." if rival is None else f"; of the two most probable, which may be akin, {rival:.2f})."
    )
    return Result(check, outcome, text, value, SAME_CLASS, part)


def _usable(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    kinds = {
        "blank": "constant",
        "negative": "blank after rectifying, all evidence being negative",
        "broken": "not finite",
        "cut": "of a layer that the score does not depend on",
    }
    value = min(sum(part[k] for k in kinds), 1.0)
    why = ", ".join(f"{100 * part[k]:.0f} % {text}" for k, text in kinds.items() if part[k])
    fails = value > USABLE
    text = (
        f"{100 * value:.0f} % of the maps hold nothing ({why}; at most {100 * USABLE:g} % passes)."
        if value
        else f"All {part['images']} maps hold something."
    )
    return Result(check, "fail" if fails else "pass", text, value, USABLE, part)


def _difference(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    bound = ROUNDING if check.name == "single" else 0.0
    if part[check.name] is None:
        text = "One image is no batch: there is nothing to compare it with."
        return Result(check, "not tested", text)
    value = float(part[check.name])
    fails = not value <= bound
    what = (
        "The same seed gives another map"
        if check.name == "repeat"
        else "An image alone gets another map than in its batch"
    )
    text = (
        f"{what}: they differ by up to {short(value)} (at most {bound:g} passes)."
        if fails
        else f"Maps come out the same, to {short(value)} (at most {bound:g} passes)."
    )
    return Result(check, "fail" if fails else "pass", text, value, bound)


def _state(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    changed = part["changed"]
    text = (
        f"Running it changed the model's {' and '.join(changed)}."
        if changed
        else "The model is left exactly as it was."
    )
    return Result(check, "fail" if changed else "pass", text, float(len(changed)), 0.0)


def _input(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    if part["output"] is None or not known(part["change"]):
        return Result(check, "not tested", _BROKEN, details=part)
    if part["output"] > 1e-9:
        return Result(
            check, "not tested",
            f"The shifted model is no equal of the model: its logits differ by {part['output']:.1e}.",
            details=part,
        )  # fmt: skip
    value = mean_std(known(part["change"]))[0]
    fails = not value <= SHIFTED
    text = (
        f"A constant added to all pixels, which the first layer takes off again, changes the map by "
        f"{100 * value:.1f} % of its largest value (at most {100 * SHIFTED:g} % passes): it depends on what counts "
        "as zero."
        if fails
        else f"A constant that the first layer takes off again leaves the map as it is, to {short(value)} of its "
        f"largest value (at most {SHIFTED:g} passes)."
    )
    return Result(check, "fail" if fails else "pass", text, value, SHIFTED, part)


def _logits(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    if part["output"] is None or not known(part["own"]):
        return Result(check, "not tested", _BROKEN, details=part)
    if part["output"] > 1e-9:
        return Result(
            check, "not tested",
            f"The probabilities changed by {part['output']:.1e}, so that the maps may too.",
            details=part,
        )  # fmt: skip
    value = mean_std(known(part["own"]))[0]
    margins = known(part["margin"])
    margin = mean_std(margins)[0] if margins else None
    fails = not value <= COMMON
    if fails:
        text = (
            f"Its map can be changed without changing any probability, by giving all classes the same amount more: "
            f"mean squared change {short(value)} (at most {COMMON:g} passes)."
        )
        if margin is not None and margin <= COMMON:
            text += " On a margin target (target margin) it stays the same."
        elif margin is not None:
            text += f" On a margin target it changes too, by {short(margin)}."
    else:
        text = (
            f"All classes getting the same amount more leaves the map as it is, to {short(value)} (at most {COMMON:g} "
            "passes)."
        )
    return Result(
        check, "fail" if fails else "pass", text, value, COMMON, {**part, "margin_mean": margin}
    )


def _sums(check: Check, _: str, part: Mapping[str, Any]) -> Result:
    shares, bound = known(part["missing"]), float(part["tolerance"])
    if not shares:
        return Result(check, "not tested", _BROKEN, details=part)
    value = max(shares)
    if part.get("unpromised"):
        text = (
            f"The method does not promise for this model that {part['promise']}: {part['unpromised']}. Up to "
            f"{short(100 * value)} % is missing."
        )
        return Result(check, "not tested", text, value, bound, part)
    fails = not value <= bound
    text = (
        f"Breaks its promise that {part['promise']}: up to {rounded(100 * value)} % of it is missing (at most "
        f"{100 * bound:g} % passes)."
        if fails
        else f"Keeps its promise that {part['promise']}: {short(100 * value)} % is missing at most (up to "
        f"{100 * bound:g} % passes)."
    )
    return Result(check, "fail" if fails else "pass", text, value, bound, part)


_BROKEN = (
    "The maps are blank, or they or the model's outputs hold NaN, so that nothing can be compared."
)
_BEHAVIOUR = {"usable", "repeat", "single", "state"}
_JUDGES: dict[str, Callable[[Check, str, Mapping[str, Any]], Result]] = {
    "parameters": _alike,
    "data": _alike,
    "class": _class,
    "usable": _usable,
    "repeat": _difference,
    "single": _difference,
    "state": _state,
    "input shift": _input,
    "logit shift": _logits,
    "completeness": _sums,
}
