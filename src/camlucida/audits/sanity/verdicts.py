"""What the numbers of sanity checks mean, in sentences that need no paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from camlucida.audits.sanity.checks import (
    ALIKE,
    CHECKS,
    COMMON,
    ROUNDING,
    SAME_CLASS,
    SHIFTED,
    USABLE,
    Check,
)
from camlucida.audits.verdicts import MARKS, Outcome, Sentence, Verdict
from camlucida.common.statistics import mean_std
from camlucida.methods import method_row

Part: TypeAlias = Mapping[str, Any]
"""What was measured for a check."""

_UNASKED = Sentence("not measured", "Was not tested.")
_NO_PROMISE = Sentence("no promise", "The method promises no sum for this model.")
_ERROR = Sentence("error", "Could not be tested: {error}")
_BROKEN = Sentence(
    "nan",
    "The maps are blank, or they or the model's outputs hold NaN, so that nothing can be compared.",
)


def results(name: str, measured: Mapping[str, Part | None]) -> dict[str, Verdict]:
    """Every check of a method.

    Args:
        name: registered name of the method.
        measured: by part: ``parameters`` (all weights redrawn), ``data``, ``class``, ``behaviour``,
            ``input shift``, ``logit shift``, ``completeness``; ``None`` or missing where nothing was measured.
    """
    found = {}
    for key, check in CHECKS.items():
        part = measured.get(check.part or key)
        if part is None:
            said = _NO_PROMISE if key == "completeness" else _UNASKED
            found[key] = _verdict(check, "not tested", said)
        elif "error" in part:
            found[key] = _verdict(check, "not tested", _ERROR(error=part["error"]), part=part)
        else:
            found[key] = _JUDGES[key](check, name, part)
    return found


_COUNTED = Sentence("counted", "Passed {passed} of {tested} checks.")
_UNKNOWN = Sentence("weights unknown", "Whether its map depends on the weights is not known.")
_CLASSLESS = Sentence(
    "claims no class",
    "By its formula its map is the same for every class: it is no evidence for one.",
)
_UNABLE = Sentence("unable", "Could not be tested on this model: {checks}.")


def verdict(label: str, found: Mapping[str, Verdict]) -> Verdict:
    """All checks of a method in one verdict.

    A method whose dependence on the weights could not be tested, while other checks could, does not pass.
    """
    failed = [r for r in found.values() if r.outcome == "fail"]
    failed.sort(key=lambda r: not CHECKS[r.finding].serious)
    tested = [r for r in found.values() if r.outcome != "not tested"]
    parts = tuple(found.values())
    if not tested:
        return Verdict(label, "not tested", parts[0].said, parts=parts)
    outcome: Outcome = "pass"
    unknown = found["parameters"].outcome == "not tested"
    if any(CHECKS[r.finding].serious for r in failed):
        outcome = "fail"
    elif failed or unknown:
        outcome = "warn"
    said = [_COUNTED(passed=len(tested) - len(failed), tested=len(tested))]
    said += [s for r in failed for s in r.sentences]
    if unknown:
        said += [_UNKNOWN, *found["parameters"].sentences]
    if found["class"].outcome == "not tested" and found["class"].value is not None:
        said.append(_CLASSLESS)
    unable = [r.subject for k, r in found.items() if "error" in r.details and k != "parameters"]
    if unable:
        said.append(_UNABLE(checks=", ".join(unable)))
    details = {key: result.to_dict() for key, result in found.items()}
    return Verdict(
        label, outcome, said, float(len(failed)), 0.0, "failed checks", details, parts=parts
    )


def mark(result: Verdict) -> str:
    """An outcome and its number for a cell."""
    sign = MARKS[result.outcome]
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


def likeness(part: Part) -> float | None:
    """The number that decides: the mean rank correlation, signed or of absolute values, that is further from 0.

    ``None`` where all maps are constant.
    """
    means = [mean_std(known(part[k]))[0] for k in ("signed", "absolute") if known(part[k])]
    return max(means, key=abs, default=None)


def _verdict(
    check: Check,
    outcome: Outcome | bool,
    said: Sentence | Sequence[Sentence],
    value: float | None = None,
    threshold: float | None = None,
    part: Part | None = None,
) -> Verdict:
    """The verdict of a check; ``True`` fails."""
    if isinstance(outcome, bool):
        outcome = "fail" if outcome else "pass"
    return Verdict(
        check.title, outcome, said, value, threshold, check.measure, part or {}, check.name
    )


_CONSTANT = Sentence(
    "constant", "Without what was learned all maps are constant, so nothing can be compared."
)
_TOO_LITTLE = Sentence(
    "too little",
    "Too little to compare: {count:n map} of {cells} cells, of which unrelated ones would often get a rank correlation "
    "of {chance:.2f} too.",
)
_PASSES = f"(-{ALIKE:g} to {ALIKE:g} passes: the inverted map would be as much alike)."
_UNRELATED = Sentence(
    "unrelated",
    f"Much of its map has nothing to do with {{learned}}: {{other}} gets one with rank correlation {{said}} {_PASSES}",
)
_RELATED = Sentence("related", f"{{Other}} gets another map: rank correlation {{said}} {_PASSES}")
_ELSEWHERE = Sentence("elsewhere", "Measured on two small networks, not on this model.")


def _alike(check: Check, _: str, part: Part) -> Verdict:
    value = likeness(part)
    if value is None:
        return _verdict(check, "not tested", _CONSTANT, part=part)
    count, cells = len(known(part["absolute"])), part.get("cells")
    # Ranks of n unrelated values correlate by 1/sqrt(n - 1) on the average of squares (Kendall and Gibbons 1990).
    chance = 1.0 if cells == 1 else (count * ((cells or math.inf) - 1)) ** -0.5
    if 2 * chance > ALIKE:
        said = _TOO_LITTLE(count=count, cells=cells, chance=2 * chance)
        return _verdict(check, "not tested", said, None, ALIKE, part)
    fails = abs(value) > ALIKE
    other = check.other
    said = (_UNRELATED if fails else _RELATED)(
        learned=check.learned, other=other, Other=other.capitalize(), said=beside(value, ALIKE)
    )
    where = () if check.on_this_model else (_ELSEWHERE,)
    return _verdict(check, fails, (said, *where), value, ALIKE, part)


_ALL_CONSTANT = Sentence("constant", "All maps are constant.")
_CLASSES = Sentence(
    "classes",
    "The maps of the most and the least probable class {differ}: rank correlation {said} (at most {most:g} "
    "passes{rival}).",
)
_RIVAL = Sentence(
    "rival",
    "It hardly tells the predicted class from the one that comes second: rank correlation {value:.2f} (at most "
    "{most:g} passes).",
)


def _class(check: Check, name: str, part: Part) -> Verdict:
    values, second = known(part["signed"]), known(part.get("rival", ()))
    if not values:
        return _verdict(check, "not tested", _ALL_CONSTANT, part=part)
    value = mean_std(values)[0]
    rival = mean_std(second)[0] if second else None
    outcome: Outcome = "fail" if value > SAME_CLASS else "pass"
    differ = "are nearly the same" if outcome == "fail" else "differ"
    if not method_row(name).discriminative:
        outcome, differ = "not tested", "are not claimed to differ"
    said = _CLASSES(
        differ=differ, said=beside(value, SAME_CLASS), most=SAME_CLASS,
        rival="" if rival is None else f"; of the two most probable, which may be akin, {rival:.2f}",
    )  # fmt: skip
    found = _verdict(check, outcome, said, value, SAME_CLASS, {**part, "rival_mean": rival})
    if rival is None:
        return found
    told: Outcome = "fail" if rival > SAME_CLASS else "pass"
    of_rival = Verdict(
        check.title, told, _RIVAL(value=rival, most=SAME_CLASS), rival, SAME_CLASS, "rank correlation",
        finding=_RIVAL.kind,
    )  # fmt: skip
    return replace(found, parts=(of_rival,))


_KINDS = {
    "blank": "constant",
    "negative": "blank after rectifying, all evidence being negative",
    "broken": "not finite",
    "cut": "of a layer that the score does not depend on",
}
_EMPTY = Sentence(
    "empty", "{value:.0 %} of the maps hold nothing ({why}; at most {most:g %} passes)."
)
_FULL = Sentence("usable", "All {images} maps hold something.")


def _usable(check: Check, _: str, part: Part) -> Verdict:
    value = min(sum(part[k] for k in _KINDS), 1.0)
    why = ", ".join(f"{100 * part[k]:.0f} % {text}" for k, text in _KINDS.items() if part[k])
    said = (_EMPTY if value else _FULL)(value=value, why=why, most=USABLE, images=part["images"])
    return _verdict(check, value > USABLE, said, value, USABLE, part)


_ONE_IMAGE = Sentence("one image", "One image is no batch: there is nothing to compare it with.")
_OTHER_MAP = Sentence(
    "another map", "{what}: they differ by up to {value} (at most {most:g} passes)."
)
_SAME_MAP = Sentence("same map", "Maps come out the same, to {value} (at most {most:g} passes).")


def _difference(check: Check, _: str, part: Part) -> Verdict:
    if part[check.name] is None:
        return _verdict(check, "not tested", _ONE_IMAGE)
    value, bound = float(part[check.name]), ROUNDING if check.name == "single" else 0.0
    fails = not value <= bound
    said = (_OTHER_MAP if fails else _SAME_MAP)(what=check.other, value=short(value), most=bound)
    return _verdict(check, fails, said, value, bound)


_CHANGED = Sentence("changed", "Running it changed the model's {things}.")
_UNTOUCHED = Sentence("untouched", "The model is left exactly as it was.")


def _state(check: Check, _: str, part: Part) -> Verdict:
    changed = part["changed"]
    said = _CHANGED(things=" and ".join(changed)) if changed else _UNTOUCHED
    return _verdict(check, bool(changed), said, float(len(changed)), 0.0)


_NO_EQUAL = Sentence(
    "no equal", "The shifted model is no equal of the model: its logits differ by {output:.1e}."
)
_ZERO_MATTERS = Sentence(
    "zero matters",
    "A constant added to all pixels, which the first layer takes off again, changes the map by {value:.1 %} of its "
    "largest value (at most {most:g %} passes): it depends on what counts as zero.",
)
_SHIFT_STAYS = Sentence(
    "stays",
    "A constant that the first layer takes off again leaves the map as it is, to {said} of its largest value (at most "
    "{most:g} passes).",
)


def _input(check: Check, _: str, part: Part) -> Verdict:
    if part["output"] is None or not known(part["change"]):
        return _verdict(check, "not tested", _BROKEN, part=part)
    if part["output"] > 1e-9:
        return _verdict(check, "not tested", _NO_EQUAL(output=part["output"]), part=part)
    value = mean_std(known(part["change"]))[0]
    fails = not value <= SHIFTED
    said = (_ZERO_MATTERS if fails else _SHIFT_STAYS)(value=value, said=short(value), most=SHIFTED)
    return _verdict(check, fails, said, value, SHIFTED, part)


_PROBABILITIES = Sentence(
    "probabilities changed", "The probabilities changed by {output:.1e}, so that the maps may too."
)
_COMMON_MOVES = Sentence(
    "moves",
    "Its map can be changed without changing any probability, by giving all classes the same amount more: mean squared "
    "change {said} (at most {most:g} passes).",
)
_COMMON_STAYS = Sentence(
    "stays",
    "All classes getting the same amount more leaves the map as it is, to {said} (at most {most:g} passes).",
)
_MARGIN_STAYS = Sentence("margin stays", "On a margin target (target margin) it stays the same.")
_MARGIN_MOVES = Sentence("margin moves", "On a margin target it changes too, by {said}.")


def _logits(check: Check, _: str, part: Part) -> Verdict:
    if part["output"] is None or not known(part["own"]):
        return _verdict(check, "not tested", _BROKEN, part=part)
    if part["output"] > 1e-9:
        return _verdict(check, "not tested", _PROBABILITIES(output=part["output"]), part=part)
    value = mean_std(known(part["own"]))[0]
    margins = known(part["margin"])
    margin = mean_std(margins)[0] if margins else None
    fails = not value <= COMMON
    said = [(_COMMON_MOVES if fails else _COMMON_STAYS)(said=short(value), most=COMMON)]
    if fails and margin is not None:
        said.append(_MARGIN_STAYS if margin <= COMMON else _MARGIN_MOVES(said=short(margin)))
    return _verdict(check, fails, said, value, COMMON, {**part, "margin_mean": margin})


_UNPROMISED = Sentence(
    "unpromised",
    "The method does not promise for this model that {promise}: {why}. Up to {percent} % is missing.",
)
_BREAKS = Sentence(
    "breaks its promise",
    "Breaks its promise that {promise}: up to {value:.1 %} of it is missing (at most {most:g %} passes).",
)
_KEEPS = Sentence(
    "keeps its promise",
    "Keeps its promise that {promise}: {percent} % is missing at most (up to {most:g %} passes).",
)


def _sums(check: Check, _: str, part: Part) -> Verdict:
    shares, bound = known(part["missing"]), float(part["tolerance"])
    if not shares:
        return _verdict(check, "not tested", _BROKEN, part=part)
    value, why = max(shares), part.get("unpromised")
    fails = not value <= bound
    said = (_UNPROMISED if why else _BREAKS if fails else _KEEPS)(
        promise=part["promise"], why=why, value=value, percent=short(100 * value), most=bound
    )
    return _verdict(check, "not tested" if why else fails, said, value, bound, part)


_JUDGES: dict[str, Callable[[Check, str, Part], Verdict]] = {
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
