"""What people ask a map, and what the audits' findings mean for each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from camlucida.audits.verdicts import Outcome

Grade: TypeAlias = Literal["safe", "with caution", "not safe", "not tested"]

GRADES: tuple[Grade, ...] = ("safe", "with caution", "not safe", "not tested")
"""From best to worst; the last where no audit could measure anything, so that nothing can be said."""

Question: TypeAlias = Literal["evidence", "contrast", "pixels", "absence"]

QUESTIONS: dict[Question, str] = {
    "evidence": "Where is the evidence for this class?",
    "contrast": "Why this class and not another?",
    "pixels": "Which pixels does the score depend on?",
    "absence": "Did the model look at a given place at all?",
}
"""What people ask a map, by name."""

SHORT: dict[Question, str] = {
    "evidence": "where",
    "contrast": "why not another",
    "pixels": "which pixels",
    "absence": "looked at all",
}
"""The questions where there is little room."""


@dataclass(frozen=True)
class Rule:
    """What a finding means for questions: with this outcome it leaves them this grade at best.

    Attributes:
        finding: what the verdict calls itself, the name of its audit by default; several where they are asked for
            together: one of them is enough to fail, and all must be missing to be not tested.
        when: the outcome that counts; a finding that is missing is ``"not tested"``.
        grade: the best grade that is left then.
        questions: for which this holds.
        because: why it matters, for people; the finding's own words where this is empty.
        unless: a finding whose failure says the same with more force.

    Example:
        >>> rule = camlucida.audits.Rule("mine", "fail", "with caution", ("evidence", "pixels"))
        >>> rule.applies({"mine": "fail"}), rule.applies({"mine": "pass"})
        (('mine',), ())
    """

    finding: str | tuple[str, ...]
    when: Outcome
    grade: Grade
    questions: tuple[Question, ...] = tuple(QUESTIONS)
    because: str = ""
    unless: str = ""

    def applies(self, outcomes: dict[str, Outcome]) -> tuple[str, ...]:
        """The findings that speak against a method, by the outcomes that are known."""
        names = (self.finding,) if isinstance(self.finding, str) else self.finding
        if outcomes.get(self.unless) == "fail":
            return ()
        met = tuple(name for name in names if outcomes.get(name, "not tested") == self.when)
        return met if self.when != "not tested" or len(met) == len(names) else ()


_NO: Grade = "not safe"
_CARE: Grade = "with caution"

NATURE = (
    Rule("claims a class", "fail", _NO, ("evidence", "contrast")),
    Rule("shows both signs", "fail", _CARE, ("absence",)),
    Rule("looks far", "fail", _CARE, ("absence",)),
    Rule("fine", "fail", _CARE, ("pixels",)),
)
"""What follows from what a method is."""

SANITY = (
    Rule("parameters", "fail", _NO),
    Rule("usable", "fail", _NO),
    *(Rule(name, "fail", _CARE) for name in ("repeat", "single", "state", "data", "input shift")),
    Rule(
        "parameters", "not tested", _CARE, because="Whether it depends on the model was not tested."
    ),
    Rule("class", "fail", _NO, ("evidence", "contrast")),
    Rule(
        "class", "not tested", _CARE, ("evidence", "contrast"),
        "Whether its maps of two classes differ was not tested.", unless="claims a class",
    ),
    Rule("rival", "fail", _CARE, ("contrast",), unless="claims a class"),
    Rule("logit shift", "fail", _CARE, ("evidence",), unless="logit-shift"),
    Rule("logit shift", "fail", _NO, ("contrast",), unless="logit-shift"),
    Rule("completeness", "fail", _CARE, ("evidence", "contrast", "pixels")),
)  # fmt: skip
"""Of the sanity checks."""

_WALLS = ("deadzone", "deadzone-pixels")
WALL = (
    Rule("deadzone", "fail", _CARE, ("evidence", "contrast", "pixels")),
    Rule("deadzone", "fail", _NO, ("absence",)),
    Rule("blank where seen", "fail", _NO, ("absence",)),
    Rule("faded wall", "fail", _CARE, ("evidence", "pixels")),
    Rule("faded wall", "fail", _NO, ("absence",)),
    Rule(
        _WALLS, "not tested", _CARE, ("evidence", "pixels", "absence"),
        "It was not tested behind a wall.",
    ),
)  # fmt: skip
"""Of a wall behind the explained layer."""

PIXEL_WALL = (Rule("deadzone-pixels", "fail", _NO),)
"""Of a wall in front of the model."""

ATTACK = (
    Rule("logit-shift", "fail", _CARE, ("evidence",)),
    Rule("logit-shift", "fail", _NO, ("contrast",)),
    Rule(
        ("logit shift", "logit-shift"), "not tested", _CARE, ("contrast",),
        "Whether it moves although no probability changes was not tested.",
    ),
)  # fmt: skip
"""Of the attack that moves all logits alike."""

FAITHFUL = (
    Rule("faithfulness", "fail", _NO, ("evidence", "pixels", "absence")),
    Rule("faithfulness", "fail", _CARE, ("contrast",)),
    Rule("faithfulness", "warn", _CARE),
    Rule(
        "faithfulness", "not tested", _CARE, ("evidence", "pixels", "absence"),
        "Whether the model needs the pixels that it puts first was not tested.",
    ),
)  # fmt: skip
"""Of insertion and deletion against random maps."""
