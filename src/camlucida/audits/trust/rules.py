"""What people ask a map, and what the audits' findings mean for each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Grade: TypeAlias = Literal["safe", "with caution", "not safe", "not tested"]

GRADES: tuple[Grade, ...] = ("safe", "with caution", "not safe", "not tested")
"""From best to worst; the last where no audit could measure anything, so that nothing can be said."""

QUESTIONS: dict[str, str] = {
    "evidence": "Where is the evidence for this class?",
    "contrast": "Why this class and not another?",
    "pixels": "Which pixels does the score depend on?",
    "absence": "Did the model look at a given place at all?",
}
"""What people ask a map, by name."""

SHORT = {
    "evidence": "where",
    "contrast": "why not another",
    "pixels": "which pixels",
    "absence": "looked at all",
}
"""The questions where there is little room."""


_NO: Grade = "not safe"
_CARE: Grade = "with caution"


@dataclass(frozen=True)
class Rule:
    """What a finding means for a question.

    Attributes:
        finding: name of the evidence.
        when: the outcome that counts.
        grade: the best grade that is left then.
        because: why it matters, for people; the finding's own words follow.
    """

    finding: str
    when: str
    grade: Grade
    because: str = ""


def _rules(grade: Grade, because: str, *findings: str, when: str = "fail") -> tuple[Rule, ...]:
    return tuple(Rule(finding, when, grade, because) for finding in findings)


_ALWAYS = (
    *_rules(_NO, "", "parameters", "usable", "deadzone-pixels"),
    *_rules(_CARE, "", "repeat", "single", "state", "data"),
    *_rules(
        _CARE, "Whether it depends on the model was not tested.", "parameters", when="not tested"
    ),
)
_WALLS = ("deadzone", "blank where seen", "faded wall")
_UNWALLED = _rules(_CARE, "It was not tested behind a wall.", "any wall", when="not tested")
_SHIFTS = ("logit shift", "logit-shift")
_UNNEEDED = _rules(
    _CARE, "Whether the model needs the pixels that it puts first was not tested.", "faithfulness",
    when="not tested",
)  # fmt: skip
_UNMOVED = _rules(
    _CARE, "Whether it moves although no probability changes was not tested.", "any shift",
    when="not tested",
)  # fmt: skip
_UNTOLD = _rules(
    _CARE, "Whether its maps of two classes differ was not tested.", "class", when="not tested"
)

RULES: dict[str, tuple[Rule, ...]] = {
    "evidence": (
        *_ALWAYS,
        *_rules(_NO, "", "class", "claims a class", "faithfulness"),
        *_rules(_CARE, "", "faithfulness", when="warn"),
        *_rules(_CARE, "", "deadzone", *_SHIFTS, "input shift", "completeness", "faded wall"),
        *_UNWALLED,
        *_UNNEEDED,
        *_UNTOLD,
    ),
    "contrast": (
        *_ALWAYS,
        *_rules(_NO, "", "class", "claims a class", *_SHIFTS),
        *_rules(_CARE, "", "rival", "deadzone", "faithfulness", "completeness", "input shift"),
        *_rules(_CARE, "", "faithfulness", when="warn"),
        *_UNMOVED,
        *_UNTOLD,
    ),
    "pixels": (
        *_ALWAYS,
        *_rules(_NO, "", "faithfulness"),
        *_rules(_CARE, "", "faithfulness", when="warn"),
        *_rules(_CARE, "", "deadzone", "input shift", "completeness", "fine", "faded wall"),
        *_UNWALLED,
        *_UNNEEDED,
    ),
    "absence": (
        *_ALWAYS,
        *_rules(_NO, "", *_WALLS, "faithfulness"),
        *_rules(_CARE, "", "faithfulness", when="warn"),
        *_rules(_CARE, "", "shows both signs", "looks far", "input shift"),
        *_UNWALLED,
        *_UNNEEDED,
    ),
}
"""By question: every rule whose finding has that outcome lowers the grade."""
