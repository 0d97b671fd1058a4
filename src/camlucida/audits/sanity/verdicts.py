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
    REPRODUCED,
    ROUNDING,
    SAME_CLASS,
    SHIFTED,
    USABLE,
    Check,
)
from camlucida.audits.verdicts import (
    MARKS,
    Evidence,
    Outcome,
    Sentence,
    Verdict,
    decided,
    sentences,
)
from camlucida.common.statistics import mean_std
from camlucida.methods import method_row

CheckNumbers: TypeAlias = Mapping[str, Any]
"""What was measured for a check."""

_SAY = sentences("""
not measured: Was not tested.
no promise: The method promises no sum for this model.
error: Could not be tested: {error}
nan: The maps are blank, or they or the model's outputs hold NaN, so that nothing can be compared.

counted: Passed {passed} of {tested} checks.
weights unknown: Whether its map depends on the weights is not known.
claims no class: By its formula its map is the same for every class: it is no evidence for one.
unable: Could not be tested on this model: {checks}.

constant: Without what was learned all maps are constant, so nothing can be compared.
too little: Too little to compare: {count:n map} of {cells} cells, of which unrelated ones would often get a rank
    correlation of {chance:.2f} too.
unrelated: Much of its map has nothing to do with {learned}: {other} gets one with rank correlation {said}
    (-{most:g} to {most:g} passes: the inverted map would be as much alike).
related: {Other} gets another map: rank correlation {said} (-{most:g} to {most:g} passes: the inverted map would be as
    much alike).
elsewhere: Measured on two small networks, not on this model.

all constant: All maps are constant.
classes: The maps of the most and the least probable class {differ}: rank correlation {said} (at most {most:g}
    passes{rival}).
rival: It hardly tells the predicted class from the one that comes second: rank correlation {value:.2f} (at most
    {most:g} passes).
tells rival: It tells the predicted class from the one that comes second: rank correlation {value:.2f} (at most {most:g}
    passes).

empty: {value:.0 %} of the maps hold nothing ({why}; at most {most:g %} passes).
usable: All {images} maps hold something.
one image: One image is no batch: there is nothing to compare it with.
another map: {what}: they differ by up to {said} (at most {most:g} passes).
same map: Maps come out the same, to {said} (at most {most:g} passes).
noise: Its map changes when each pixel changes by at most one grey level: correlation {said} (at least {least:g}
    passes). A difference between two of its maps that is no larger means nothing.
comes again: Its map comes out again when each pixel changes by at most one grey level: correlation {said} (at least
    {least:g} passes).
changed: Running it changed the model's {things}.
untouched: The model is left exactly as it was.

no equal: The shifted model is no equal of the model: its logits differ by {output:.1e}.
zero matters: A constant added to all pixels, which the first layer takes off again, changes the map by {value:.1 %} of
    its largest value (at most {most:g %} passes): it depends on what counts as zero.
zero stays: A constant that the first layer takes off again leaves the map as it is, to {said} of its largest value (at
    most {most:g} passes).

probabilities: The probabilities changed by {output:.1e}, so that the maps may too.
common moves: Its map can be changed without changing any probability, by raising all logits equally: mean squared
    change {said} (at most {most:g} passes).
common stays: Raising all logits equally leaves the map as it is, to {said} (at most {most:g} passes).
margin stays: On a margin target (target margin) it stays the same.
margin moves: On a margin target it changes too, by {said}.

unpromised: The method does not promise for this model that {promise}: {why}. Up to {percent} % is missing.
breaks: Breaks its promise that {promise}: up to {value:.1 %} of it is missing (at most {most:g %} passes).
keeps: Keeps its promise that {promise}: {percent} % is missing at most (up to {most:g %} passes).
""")


def results(name: str, measured: Mapping[str, CheckNumbers | None]) -> dict[str, Verdict]:
    """Every check of a method.

    Args:
        name: registered name of the method.
        measured: by part: ``parameters`` (all weights redrawn), ``data``, ``class``, ``behaviour``,
            ``reproducible``, ``input shift``, ``logit shift``, ``completeness``; ``None`` or missing where nothing was
            measured.
    """
    found = {}
    for key, check in CHECKS.items():
        part = measured.get(check.part or key)
        if part is None:
            said = _SAY["no promise" if key == "completeness" else "not measured"]
            found[key] = _verdict(check, "not tested", said)
        elif "error" in part:
            said = _SAY["error"](error=part["error"])
            found[key] = _verdict(check, "not tested", said, part=part)
        elif check.numbers and (part.get("output", 0) is None or not known(part[check.numbers])):
            found[key] = _verdict(check, "not tested", _SAY["nan"], part=part)
        else:
            found[key] = _JUDGES[key](check, name, part)
    return found


def verdict(label: str, found: Mapping[str, Verdict]) -> Verdict:
    """All checks of a method in one verdict.

    A method whose dependence on the weights could not be tested, while other checks could, does not pass.
    """
    failed, open_ = (
        sorted(
            (r for r in found.values() if r.outcome == outcome),
            key=lambda r: not CHECKS[r.finding].serious,
        )
        for outcome in ("fail", "unclear")
    )
    tested = [r for r in found.values() if r.outcome != "not tested"]
    parts = tuple(found.values())
    if not tested:
        return Verdict(label, "not tested", parts[0].said, parts=parts)
    unknown = found["parameters"].outcome == "not tested"
    serious = [r.outcome for r in (*open_, *failed) if CHECKS[r.finding].serious]
    outcome: Outcome = serious[-1] if serious else "warn" if failed or open_ or unknown else "pass"
    passed = len(tested) - len(failed) - len(open_)
    said = [_SAY["counted"](passed=passed, tested=len(tested))]
    said += [s for r in (*failed, *open_) for s in r.sentences]
    if unknown:
        said += [_SAY["weights unknown"], *found["parameters"].sentences]
    if found["class"].outcome == "not tested" and found["class"].value is not None:
        said.append(_SAY["claims no class"])
    unable = [r.subject for k, r in found.items() if "error" in r.details and k != "parameters"]
    if unable:
        said.append(_SAY["unable"](checks=", ".join(unable)))
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


def likeness(part: CheckNumbers) -> float | None:
    """The number that decides: the mean rank correlation, signed or of absolute values, that is further from 0.

    ``None`` where all maps are constant.
    """
    found = _likeness(part)
    return None if found is None else found.value


def _likeness(part: CheckNumbers) -> Evidence | None:
    both = [decided(v, -ALIKE, ALIKE) for k in ("signed", "absolute") if (v := known(part[k]))]
    return max(both, key=lambda evidence: abs(evidence.value), default=None)


def _verdict(
    check: Check,
    outcome: Outcome | bool,
    said: Sentence | Sequence[Sentence],
    value: float | None = None,
    threshold: float | None = None,
    part: CheckNumbers | None = None,
    evidence: Evidence | None = None,
) -> Verdict:
    """The verdict of a check; ``True`` fails."""
    if isinstance(outcome, bool):
        outcome = "fail" if outcome else "pass"
    return Verdict(
        check.title,
        outcome,
        said,
        value,
        threshold,
        check.measure,
        part or {},
        check.name,
        evidence=evidence,
    )


def _alike(check: Check, _: str, part: CheckNumbers) -> Verdict:
    evidence = _likeness(part)
    if evidence is None:
        return _verdict(check, "not tested", _SAY["constant"], part=part)
    value = evidence.value
    count, cells = len(known(part["absolute"])), part.get("cells")
    # Ranks of n unrelated values correlate by 1/sqrt(n - 1) on the average of squares (Kendall and Gibbons 1990).
    chance = 1.0 if cells == 1 else (count * ((cells or math.inf) - 1)) ** -0.5
    if 2 * chance > ALIKE:
        said = _SAY["too little"](count=count, cells=cells, chance=2 * chance)
        return _verdict(check, "not tested", said, None, ALIKE, part)
    other = check.other
    said = _SAY["related" if evidence.within else "unrelated"](
        learned=check.learned, other=other, Other=other.capitalize(), said=beside(value, ALIKE), most=ALIKE
    )  # fmt: skip
    where = () if check.on_this_model else (_SAY["elsewhere"],)
    return _verdict(check, evidence.outcome, (said, *where), value, ALIKE, part, evidence)


def _class(check: Check, name: str, part: CheckNumbers) -> Verdict:
    values, second = known(part["signed"]), known(part.get("rival", ()))
    if not values:
        return _verdict(check, "not tested", _SAY["all constant"], part=part)
    evidence = decided(values, most=SAME_CLASS)
    value, outcome = evidence.value, evidence.outcome
    rival = mean_std(second)[0] if second else None
    differ = "differ" if evidence.within else "are nearly the same"
    if not method_row(name).discriminative:
        outcome, differ = "not tested", "are not claimed to differ"
    said = _SAY["classes"](
        differ=differ, said=beside(value, SAME_CLASS), most=SAME_CLASS,
        rival="" if rival is None else f"; of the two most probable, which may be akin, {rival:.2f}",
    )  # fmt: skip
    found = _verdict(
        check, outcome, said, value, SAME_CLASS, {**part, "rival_mean": rival}, evidence
    )
    if rival is None:
        return found
    near = decided(second, most=SAME_CLASS)
    told = _SAY["tells rival" if near.within else "rival"](value=rival, most=SAME_CLASS)
    of_rival = _verdict(check, near.outcome, told, rival, SAME_CLASS, evidence=near)
    return replace(found, parts=(replace(of_rival, finding="rival"),))


_KINDS = {
    "blank": "constant",
    "negative": "blank after rectifying, all evidence being negative",
    "broken": "not finite",
    "cut": "of a layer that the score does not depend on",
}


def _usable(check: Check, _: str, part: CheckNumbers) -> Verdict:
    value = min(sum(part[k] for k in _KINDS), 1.0)
    why = ", ".join(f"{100 * part[k]:.0f} % {text}" for k, text in _KINDS.items() if part[k])
    said = _SAY["empty" if value else "usable"](
        value=value, why=why, most=USABLE, images=part["images"]
    )
    empty = round(value * part["images"])
    evidence = decided([1.0] * empty + [0.0] * (part["images"] - empty), most=USABLE)
    return _verdict(check, evidence.outcome, said, value, USABLE, part, evidence)


def _difference(check: Check, _: str, part: CheckNumbers) -> Verdict:
    if part[check.name] is None:
        return _verdict(check, "not tested", _SAY["one image"])
    value, bound = float(part[check.name]), ROUNDING if check.name == "single" else 0.0
    fails = not value <= bound
    kind = "another map" if fails else "same map"
    said = _SAY[kind](what=check.other, said=short(value), most=bound)
    return _verdict(check, fails, said, value, bound)


def _reproducible(check: Check, _: str, part: CheckNumbers) -> Verdict:
    evidence = decided(known(part["again"]), least=REPRODUCED)
    value = evidence.value
    said = _SAY["comes again" if evidence.within else "noise"](
        said=beside(value, REPRODUCED), least=REPRODUCED
    )
    return _verdict(check, evidence.outcome, said, value, REPRODUCED, part, evidence)


def _state(check: Check, _: str, part: CheckNumbers) -> Verdict:
    changed = part["changed"]
    said = _SAY["changed" if changed else "untouched"](things=" and ".join(changed))
    return _verdict(check, bool(changed), said, float(len(changed)), 0.0)


def _input(check: Check, _: str, part: CheckNumbers) -> Verdict:
    if part["output"] > 1e-9:
        said = _SAY["no equal"](output=part["output"])
        return _verdict(check, "not tested", said, part=part)
    evidence = decided(known(part["change"]), most=SHIFTED)
    value = evidence.value
    said = _SAY["zero stays" if evidence.within else "zero matters"](
        value=value, said=short(value), most=SHIFTED
    )
    return _verdict(check, evidence.outcome, said, value, SHIFTED, part, evidence)


def _logits(check: Check, _: str, part: CheckNumbers) -> Verdict:
    if part["output"] > 1e-9:
        said = _SAY["probabilities"](output=part["output"])
        return _verdict(check, "not tested", said, part=part)
    evidence, margins = decided(known(part["own"]), most=COMMON), known(part["margin"])
    value, fails = evidence.value, not evidence.within
    margin = mean_std(margins)[0] if margins else None
    told = [_SAY["common moves" if fails else "common stays"](said=short(value), most=COMMON)]
    if fails and margin is not None:
        told.append(
            _SAY["margin stays" if margin <= COMMON else "margin moves"](said=short(margin))
        )
    return _verdict(
        check, evidence.outcome, told, value, COMMON, {**part, "margin_mean": margin}, evidence
    )


def _sums(check: Check, _: str, part: CheckNumbers) -> Verdict:
    bound, value, why = (
        float(part["tolerance"]),
        max(known(part["missing"])),
        part.get("unpromised"),
    )
    fails = not value <= bound
    said = _SAY["unpromised" if why else "breaks" if fails else "keeps"](
        promise=part["promise"], why=why, value=value, percent=short(100 * value), most=bound
    )
    return _verdict(check, "not tested" if why else fails, said, value, bound, part)


_JUDGES: dict[str, Callable[[Check, str, CheckNumbers], Verdict]] = {
    "parameters": _alike,
    "data": _alike,
    "class": _class,
    "usable": _usable,
    "repeat": _difference,
    "single": _difference,
    "reproducible": _reproducible,
    "state": _state,
    "input shift": _input,
    "logit shift": _logits,
    "completeness": _sums,
}
