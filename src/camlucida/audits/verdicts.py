"""What an audit says of a method: an outcome and numbers, which one place puts into words."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from camlucida.common.errors import CamlucidaError
from camlucida.common.statistics import student_interval

Outcome: TypeAlias = Literal["pass", "warn", "fail", "unclear", "not tested"]

OUTCOMES: dict[Outcome, str] = {
    "pass": "passed",
    "warn": "passed with a caution",
    "fail": "failed",
    "unclear": "not enough to tell",
    "not tested": "not tested",
}
"""The outcomes and how they are said; unclear is what was measured on too little to decide."""

MARKS: dict[Outcome, str] = {
    "pass": "✓",
    "warn": "!",
    "fail": "✗",
    "unclear": "?",
    "not tested": "–",
}
"""The outcomes where there is little room."""


class _Words(string.Formatter):
    """Numbers as people read them: ``{x:.1 %}`` is a percentage, ``{n:n map}`` counts."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.startswith("n "):
            return f"{value} {format_spec[2:]}{'' if value == 1 else 's'}"
        if format_spec.endswith(" %"):
            kind = format_spec[:-2]
            return f"{100 * value:{kind if kind[-1:].isalpha() else f'{kind}f'}} %"
        return str(super().format_field(value, format_spec))


_WORDS = _Words()


@dataclass(frozen=True)
class Sentence:
    """A sentence of a verdict as data; called with numbers, it is the same sentence with these.

    Attributes:
        kind: what it says, in a word or two; machines read this and never the text.
        template: how it is said, with a place such as ``{mean:.2f}`` for each number. ``{mean:.1 %}`` writes a
            share in percent, ``{count:n map}`` writes ``1 map`` or ``2 maps``.
        numbers: what stands in these places, by name.

    Example:
        >>> moved = camlucida.audits.Sentence("moved", "{share:.0 %} of {count:n map} moved.")
        >>> str(moved(share=0.25, count=4))
        '25 % of 4 maps moved.'
    """

    kind: str
    template: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **numbers: Any) -> Sentence:
        """The same sentence with these numbers."""
        return replace(self, numbers={**self.numbers, **numbers})

    def of(self, numbers: Mapping[str, Any]) -> Sentence:
        """The same sentence with those of the numbers that it has a place for."""
        places = {name for _, name, _, _ in _WORDS.parse(self.template)}
        return self(**{name: number for name, number in numbers.items() if name in places})

    def to_dict(self) -> dict[str, Any]:
        """Kind and numbers, those of sentences within it among them, ready for JSON."""
        numbers: dict[str, Any] = {}
        for name, number in self.numbers.items():
            numbers |= number.numbers if isinstance(number, Sentence) else {name: number}
        return {"kind": self.kind, "numbers": numbers}

    def __str__(self) -> str:
        return _WORDS.vformat(self.template, (), self.numbers)


def sentences(catalogue: str) -> dict[str, Sentence]:
    """Sentences by kind, from lines ``kind: template``; what is indented goes on with the line before."""
    entries = (entry.partition(": ") for entry in re.split(r"\n(?=\S)", catalogue.strip()))
    return {kind: Sentence(kind, " ".join(text.split())) for kind, _, text in entries}


ENOUGH = 6
"""Images, below which nothing is decided: of fewer, it is no rare chance that all say the same (2 / 2^5 is 6 %)."""

_MANY = 1000
"""Images, from which on nobody is told to take so many."""

_SAY = sentences("""
few: Not enough to tell from {images:n image}, {enough} are the least. So far:
no number: Not enough to tell, since a value of some image is no number. So far:
undecided: Not enough to tell, since the interval meets the bound; {needed}. So far:
interval: (95 % interval of the mean {low:.3g} to {high:.3g}, {images:n image}.)
alike: (So it is on each of {images:n image}; 95 % interval of the mean {low:.3g} to {high:.3g}.)
images: ({images:n image}.)
""")


@dataclass(frozen=True)
class Evidence:
    """A number that was measured on several images, and what follows from it.

    Attributes:
        value: the mean over the images.
        low: lower end of its 95 % interval; NaN for one image.
        high: upper end.
        images: how many.
        within: whether the mean keeps the bound.
        outcome: ``"pass"`` or ``"fail"`` where the images decide it, else ``"unclear"``.
        alike: whether it is decided by all images lying on one side, while the interval meets the bound.
        needed: about how many images would decide it, if they were like these; infinite where the mean is the bound,
            0 where no interval meets it.

    Example:
        >>> found = camlucida.audits.decided([0.1, 0.2, 0.1, 0.2, 0.1, 0.2], most=0.5)
        >>> found.outcome, round(found.low, 2), round(found.high, 2), found.images
        ('pass', 0.09, 0.21, 6)
    """

    value: float
    low: float
    high: float
    images: int
    within: bool
    outcome: Outcome
    alike: bool = False
    needed: float = 0.0

    @property
    def before(self) -> tuple[Sentence, ...]:
        """What is said before a verdict that the images do not decide."""
        if self.outcome != "unclear":
            return ()
        kind = "no number" if math.isnan(self.value) else "undecided"
        return (
            _SAY["few" if self.images < ENOUGH else kind].of(
                {"images": self.images, "enough": ENOUGH, "needed": self._settled()}
            ),
        )

    def _settled(self) -> str:
        """What would decide it."""
        if not self.needed > self.images:
            return "more images may decide it"
        if self.needed > _MANY:
            return f"even {_MANY} images like these would not decide it, so take it as lying at the bound"
        return f"about {math.ceil(self.needed)} images like these would decide it"

    @property
    def after(self) -> tuple[Sentence, ...]:
        """What is said behind a verdict."""
        numbers = {"low": self.low, "high": self.high, "images": self.images}
        kind = "alike" if self.alike else "interval" if self.low < self.high else "images"
        return (_SAY[kind].of(numbers),)


def decided(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Evidence:
    """What follows from a number that should lie between two bounds: the one rule of all audits.

    It is decided where six images or more all lie on one side, or the 95 % interval of their mean (Student's t) does.

    Args:
        values: one for each image; where one is NaN, nothing is decided.
        least: the least mean that passes.
        most: the largest that does.

    Raises:
        CamlucidaError: no number lies between the bounds.

    Example:
        >>> from camlucida.audits import decided
        >>> decided([0.9] * 3, most=0.5).outcome, decided([0.9] * 6, most=0.5).outcome
        ('unclear', 'fail')
        >>> decided([0.9, 0.1, 0.9, 0.1, 0.9, 0.8], most=0.5).outcome
        'unclear'
    """
    if not least <= most:
        raise CamlucidaError(f"no number lies between the bounds {least} and {most}")
    found = np.asarray(values, np.float64)
    value, (low, high) = float(found.mean()), student_interval(found)
    sides = (found > most).astype(int) - (found < least)
    outcome: Outcome = "unclear"
    inside, outside = least <= low and high <= most, low > most or high < least
    if len(found) >= ENOUGH and not math.isnan(value):
        if (sides == 0).all() or inside:
            outcome = "pass"
        elif abs(sides.sum()) == len(found) or outside:
            outcome = "fail"
    alike = outcome != "unclear" and not (inside or outside)
    met = [abs(value - bound) for bound in (least, most) if low <= bound <= high]
    away, half = min(met, default=math.inf), (high - low) / 2
    needed = (
        len(found) * (half / away) ** 2 if away else math.inf
    )  # the interval shrinks with the root
    return Evidence(value, low, high, len(found), least <= value <= most, outcome, alike, needed)


def between(values: Sequence[float], unsafe: float, safe: float) -> Evidence:
    """What follows from two bounds: from ``safe`` on it passes, up to ``unsafe`` it fails, between them is a caution.

    Both are decided by :func:`decided`, the caution too.
    """
    upper, lower = decided(values, least=safe), decided(values, least=unsafe)
    if lower.outcome == "fail":
        return replace(upper, outcome="fail", alike=lower.alike)
    if upper.outcome == "fail" and lower.outcome == "pass":
        return replace(upper, outcome="warn", alike=upper.alike or lower.alike)
    if upper.outcome == "pass":
        return upper
    needed = max(e.needed for e in (upper, lower) if e.outcome == "unclear")
    return replace(upper, outcome="unclear", alike=False, needed=needed)


UNEXPLAINED = Sentence("error", "It cannot explain this model: {error}")
"""What is said of a method that a model does not suit."""


@dataclass(frozen=True)
class Verdict:
    """What an audit says of one method.

    Attributes:
        subject: the method, as tables name it.
        outcome: ``"pass"``, ``"warn"`` (passed, but read the text), ``"fail"``, ``"unclear"`` (too little was measured
            to decide) or ``"not tested"``.
        said: why, for people who know no paper, with the number and the bound: sentences as data, or a text.
        value: the number that decided; ``None`` where nothing was measured.
        threshold: the bound it was held against.
        measure: what the number is.
        details: anything else that was measured, ready for JSON.
        finding: what the rules of the trust report call it; the audit's name where it is empty.
        parts: findings that the verdict is made of, or that come with it.
        evidence: interval and number of images, where the number is a mean over images.

    Example:
        >>> verdict = camlucida.audits.Verdict("gradcam", "fail", "It moved.", value=0.4, threshold=0.1)
        >>> verdict.outcome, verdict.text
        ('fail', 'It moved.')
    """

    subject: str
    outcome: Outcome
    said: str | Sentence | Sequence[Sentence] = ()
    value: float | None = None
    threshold: float | None = None
    measure: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    finding: str = ""
    parts: tuple[Verdict, ...] = ()
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        """Check the outcome."""
        if self.outcome not in OUTCOMES:
            raise CamlucidaError(
                f"the outcome of a verdict is one of {', '.join(OUTCOMES)}, got {self.outcome!r}"
            )

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """Why, as data; with what was measured on images go their number and the interval."""
        said: Sequence[Sentence]
        if isinstance(self.said, str):
            said = (Sentence("text", "{text}", {"text": self.said}),)
        else:
            said = (self.said,) if isinstance(self.said, Sentence) else self.said
        if self.evidence is None:
            return tuple(said)
        before = self.evidence.before if self.outcome == "unclear" else ()
        return (*before, *said, *self.evidence.after)

    @property
    def text(self) -> str:
        """Why, in words."""
        return " ".join(filter(None, map(str, self.sentences)))

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "subject": self.subject,
            "outcome": self.outcome,
            "text": self.text,
            "said": [sentence.to_dict() for sentence in self.sentences],
            "value": self.value,
            "threshold": self.threshold,
            "interval": None if self.evidence is None else [self.evidence.low, self.evidence.high],
            "images": None if self.evidence is None else self.evidence.images,
            "measure": self.measure,
            "details": dict(self.details),
        }


def by_outcome(verdicts: Iterable[Verdict]) -> dict[Outcome, list[str]]:
    """The subjects of verdicts by outcome."""
    found: dict[Outcome, list[str]] = {outcome: [] for outcome in OUTCOMES}
    for verdict in verdicts:
        found[verdict.outcome].append(verdict.subject)
    return found
