"""Audits by name: what ``camlucida audit all`` must know of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from camlucida.audits.candidates import Candidate
from camlucida.audits.report import AuditReport
from camlucida.audits.request import Request
from camlucida.audits.rules import TrustRule
from camlucida.common.registry import Registry, Row


@dataclass(frozen=True)
class AuditRow(Row[AuditReport]):
    """An audit that can be asked about any classifier; ``make`` takes a :class:`Request` and returns its report.

    Attributes:
        title: for people.
        asks: the question that it answers about a method.
        rules: what its findings mean for the questions of the trust report.
        subject: how the audit calls a method in its verdicts.
        honours: the options of a method that the audit follows, measuring the others as they usually are; all of
            them where it is ``None``.
        preface: said before its findings in the trust report.
        images: how many images it gets at most in a quick and in a full trust report; all where it is ``None``.
        catches: findings that tell nothing on a model where a blind map passes them, or the exact answer fails them.
    """

    what: ClassVar[str] = "audit"

    make: Callable[[Request], AuditReport]
    title: str
    asks: str
    rules: tuple[TrustRule, ...] = ()
    subject: Callable[[Candidate], str] = lambda tested: tested.label
    honours: tuple[str, ...] | None = None
    preface: str = ""
    images: tuple[int, int] | None = None
    catches: tuple[str, ...] = ()

    def is_usual(self, tested: Candidate) -> bool:
        """Whether the audit leaves out options of a method that the user gave."""
        return self.honours is not None and not set(tested.given) <= set(self.honours)


AUDITS = Registry(AuditRow)


def register(
    name: str, *, title: str, asks: str, **facts: Any
) -> Callable[[Callable[[Request], AuditReport]], Callable[[Request], AuditReport]]:
    """Decorator that makes an audit known to ``camlucida audit all``; also for audits outside the package.

    Args:
        name: short; also of its files.
        title: for people.
        asks: the question that it answers about a method.
        **facts: the other fields of :class:`AuditRow`.

    Raises:
        CamlucidaError: the name is taken by another function.

    Example:
        >>> from camlucida.audits import AuditReport, TrustRule, Verdict, register
        >>> rule = TrustRule("gray", "fail", "with caution", ("evidence",))
        >>> @register("gray", title="Gray", asks="Does the map know colours?", rules=(rule,))
        ... def gray(request):
        ...     verdicts = tuple(Verdict(one.label, "pass", "It does.") for one in request.tested())
        ...     return AuditReport("gray", "Gray", "Nothing.", "All do.", verdicts)
        >>> camlucida.audits.audit_all(model, images, audits=["gray"], methods=["gradcam"]).audits[0].summary
        'All do.'
    """

    def add(make: Callable[[Request], AuditReport]) -> Callable[[Request], AuditReport]:
        AUDITS.add(AuditRow(name, make, title, asks, **facts))
        return make

    return add
