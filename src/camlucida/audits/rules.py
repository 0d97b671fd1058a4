"""What people ask a map, and what the audits' findings mean for each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from camlucida.audits.verdicts import Outcome

Grade: TypeAlias = Literal["safe", "with caution", "not enough to tell", "not tested", "not safe"]

GRADES: tuple[Grade, ...] = ("safe", "with caution", "not enough to tell", "not tested", "not safe")
"""From best to worst: what is not known is no proof, and what is proved goes before what is not known."""

DECIDED: tuple[Grade, ...] = ("safe", "with caution", "not safe")
"""The grades that say something."""

TrustQuestion: TypeAlias = Literal["evidence", "contrast", "pixels", "absence"]

QUESTIONS: dict[TrustQuestion, str] = {
    "evidence": "Where is the evidence for this class?",
    "contrast": "Why this class and not another?",
    "pixels": "Which pixels does the score depend on?",
    "absence": "Does a dark place mean that it did not count for this class?",
}
"""What people ask a map, by name."""

SHORT: dict[TrustQuestion, str] = {
    "evidence": "where",
    "contrast": "why not another",
    "pixels": "which pixels",
    "absence": "looked at all",
}
"""The questions where there is little room."""


@dataclass(frozen=True)
class TrustRule:
    """What a finding means for questions: with this outcome it leaves them this grade at best.

    Attributes:
        finding: what the verdict calls itself, the name of its audit by default; several where they are asked for
            together: one of them is enough to fail, and all must be missing to be not tested.
        when: the outcome that counts; a finding that is missing is ``"not tested"``.
        grade: the best grade that is left then.
        questions: for which this holds.
        because: why it matters, for people; the finding's own words where this is empty.
        unless: a finding whose failure says the same with more force.
        answered: a finding that measures on the model as it is what this one foretells; where it was measured, the
            rule is silent.

    Example:
        >>> rule = camlucida.audits.TrustRule("mine", "fail", "with caution", ("evidence", "pixels"))
        >>> rule.applies({"mine": "fail"}), rule.applies({"mine": "pass"})
        (('mine',), ())
    """

    finding: str | tuple[str, ...]
    when: Outcome
    grade: Grade
    questions: tuple[TrustQuestion, ...] = tuple(QUESTIONS)
    because: str = ""
    unless: str = ""
    answered: str = ""

    def applies(self, outcomes: dict[str, Outcome]) -> tuple[str, ...]:
        """The findings that speak against a method, by the outcomes that are known; what is unclear may do so."""
        names = (self.finding,) if isinstance(self.finding, str) else self.finding
        if (
            outcomes.get(self.unless) == "fail"
            or outcomes.get(self.answered, "not tested") != "not tested"
        ):
            return ()
        counts = (self.when, "unclear") if self.when == "fail" else (self.when,)
        met = tuple(name for name in names if outcomes.get(name, "not tested") in counts)
        return met if self.when != "not tested" or len(met) == len(names) else ()


_NO: Grade = "not safe"
_CARE: Grade = "with caution"

MEASURED: dict[TrustQuestion, str] = {
    "evidence": "faithfulness",
    "contrast": "contrast order",
    "pixels": "dependence order",
    "absence": "dependence order",
}
"""The finding that answers a question by what the model itself does."""

NATURE = (
    TrustRule("claims a class", "fail", _NO, ("evidence", "contrast")),
    TrustRule("shows both signs", "fail", _CARE, ("absence",), answered="against order"),
)
"""What follows from what a method is."""

_CLASS: tuple[tuple[Outcome, Grade, str], ...] = (
    ("fail", _NO, ""),
    ("not tested", _CARE, "Whether its maps of two classes differ was not tested."),
)

SANITY = (
    *(
        TrustRule("parameters", "fail", _NO, (question,), answered=measured)
        for question, measured in MEASURED.items()
    ),
    TrustRule("usable", "fail", _NO),
    *(TrustRule(name, "fail", _CARE) for name in ("repeat", "single", "state", "data")),
    *(
        TrustRule("input shift", "fail", _CARE, (question,), answered=measured)
        for question, measured in MEASURED.items()
    ),
    TrustRule(
        "parameters", "not tested", _CARE, because="Whether it depends on the model was not tested."
    ),
    *(
        TrustRule(
            "class", when, grade, (question,), because, unless="claims a class", answered=measured
        )
        for question, measured in [*MEASURED.items()][:2]
        for when, grade, because in _CLASS
    ),
    TrustRule(
        "rival", "fail", _CARE, ("contrast",), unless="claims a class", answered="contrast order"
    ),
    TrustRule("logit shift", "fail", _CARE, ("evidence",), unless="logit-shift", answered="faithfulness"),
    TrustRule("logit shift", "fail", _NO, ("contrast",), unless="logit-shift", answered="contrast order"),
    TrustRule("completeness", "fail", _CARE, ("evidence", "contrast", "pixels")),
)  # fmt: skip
"""Of the sanity checks."""

_WALLS = ("deadzone", "deadzone-pixels")
_PLACES: tuple[TrustQuestion, ...] = ("evidence", "pixels")
WALL = (
    TrustRule("deadzone", "fail", _CARE, ("evidence",), answered="faithfulness"),
    TrustRule("deadzone", "fail", _CARE, ("contrast",), answered="contrast order"),
    TrustRule("deadzone", "fail", _CARE, ("pixels",), answered="dependence order"),
    TrustRule("deadzone", "fail", _CARE, ("absence",)),
    TrustRule("blank where seen", "fail", _CARE, ("absence",), answered="dependence order"),
    TrustRule("faded wall", "fail", _CARE, ("evidence",), answered="faithfulness"),
    TrustRule("faded wall", "fail", _CARE, ("pixels",), answered="dependence order"),
    TrustRule("faded wall", "fail", _CARE, ("absence",), answered="dependence order"),
    *(
        TrustRule(
            _WALLS, "not tested", _CARE, (question,), "It was not tested behind a wall.",
            answered=MEASURED[question],
        )
        for question in _PLACES
    ),
    TrustRule(_WALLS, "not tested", "not tested", ("absence",), "It was not tested behind a wall."),
)  # fmt: skip
"""Of a wall behind the explained layer."""

PIXEL_WALL = (TrustRule("deadzone-pixels", "fail", _NO),)
"""Of a wall in front of the model."""

ATTACK = (
    TrustRule("logit-shift", "fail", _CARE, ("evidence",), answered="faithfulness"),
    TrustRule("logit-shift", "fail", _NO, ("contrast",), answered="contrast order"),
    TrustRule(
        ("logit shift", "logit-shift"), "not tested", _CARE, ("contrast",),
        "Whether it moves although no probability changes was not tested.", answered="contrast order",
    ),
)  # fmt: skip
"""Of the attack that moves all logits alike."""

_LEFT: tuple[tuple[Outcome, Grade], ...] = (
    ("fail", _NO),
    ("warn", _CARE),
    ("not tested", "not tested"),
)
_ASKED: dict[str, tuple[tuple[TrustQuestion, ...], str]] = {
    "faithfulness": (("evidence",), "Whether it puts first what raises the score of the class was not tested."),
    "contrast order": (("contrast",), "Whether it puts first what raises the class above the others was not tested."),
    "dependence order": (("pixels", "absence"), "Whether it puts first what the score depends on was not tested."),
}  # fmt: skip
FAITHFUL = (
    *(
        TrustRule(finding, when, grade, questions, because if when == "not tested" else "")
        for finding, (questions, because) in _ASKED.items()
        for when, grade in _LEFT
    ),
    TrustRule("fine", "fail", _CARE, ("pixels",)),
    TrustRule("against order", "fail", _CARE, ("absence",)),
    TrustRule("against order", "warn", _CARE, ("absence",)),
)
"""Of what comes first, held against what hiding and showing each place does."""
