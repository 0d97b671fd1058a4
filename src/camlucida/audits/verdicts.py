"""What an audit says of a method: an outcome and numbers, which one place puts into words."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from camlucida.common.errors import CamlucidaError

Outcome: TypeAlias = Literal["pass", "warn", "fail", "not tested"]

OUTCOMES: dict[Outcome, str] = {
    "pass": "passed",
    "warn": "passed with a caution",
    "fail": "failed",
    "not tested": "not tested",
}
"""The outcomes, worst last but one, and how they are said."""

MARKS: dict[Outcome, str] = {"pass": "✓", "warn": "!", "fail": "✗", "not tested": "–"}
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


UNEXPLAINED = Sentence("error", "It cannot explain this model: {error}")
"""What is said of a method that a model does not suit."""


@dataclass(frozen=True)
class Verdict:
    """What an audit says of one method.

    Attributes:
        subject: the method, as tables name it.
        outcome: ``"pass"``, ``"warn"`` (passed, but read the text), ``"fail"`` or ``"not tested"``.
        said: why, for people who know no paper, with the number and the bound: sentences as data, or a text.
        value: the number that decided; ``None`` where nothing was measured.
        threshold: the bound it was held against.
        measure: what the number is.
        details: anything else that was measured, ready for JSON.
        finding: what the rules of the trust report call it; the audit's name where it is empty.
        parts: findings that the verdict is made of, or that come with it.

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

    def __post_init__(self) -> None:
        """Check the outcome."""
        if self.outcome not in OUTCOMES:
            raise CamlucidaError(
                f"the outcome of a verdict is one of {', '.join(OUTCOMES)}, got {self.outcome!r}"
            )

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """Why, as data."""
        if isinstance(self.said, str):
            return (Sentence("text", "{text}", {"text": self.said}),)
        return (self.said,) if isinstance(self.said, Sentence) else tuple(self.said)

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
            "measure": self.measure,
            "details": dict(self.details),
        }


def by_outcome(verdicts: Iterable[Verdict]) -> dict[Outcome, list[str]]:
    """The subjects of verdicts by outcome."""
    found: dict[Outcome, list[str]] = {outcome: [] for outcome in OUTCOMES}
    for verdict in verdicts:
        found[verdict.outcome].append(verdict.subject)
    return found
