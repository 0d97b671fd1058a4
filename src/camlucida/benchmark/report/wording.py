"""What a run says, in sentences that claim no more than its tests do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from camlucida.benchmark.findings import Finding
from camlucida.benchmark.report.results import QUESTIONS
from camlucida.benchmark.summary import Summary
from camlucida.report.tables import number, probability

FEW = 30
"""Images below which it is said that they are few."""


def headline(summary: Summary) -> list[str]:
    """The answer in sentences: who leads overall, and what stands in the way of saying more."""
    images, methods = summary.images - len(summary.broken), summary.methods
    judged = summary.judged
    said = []
    if len(methods) == 1:
        said.append(
            f"Only {methods[0]} was run on {summary.model}, so there is nothing to compare it with; "
            "its numbers are below."
        )
    elif not judged:
        said.append(
            "No number of this run says which of its methods is better; the numbers below describe them."
        )
    else:
        said.append(_overall(summary, judged))
    if len(methods) > 1:
        said += few(images, "methods")
    if not summary.complete:
        said.append(
            f"The run is not finished: {summary.images:,} of {summary.total:,} images are done. "
            "Shards are done in the order of the data set, which may not be mixed."
        )
    return said


def few(images: int, what: str) -> list[str]:
    """That so few images hardly tell such things apart; nothing where there are enough."""
    if not 0 < images < FEW:
        return []
    said = f"{images} image{'s are' if images > 1 else ' is'} few: the tests can hardly tell {what} apart"
    return [f"{said}, and the order may change with more."]


def _overall(results: Summary, judged: Sequence[Finding]) -> str:
    total = len(judged)
    top = {m: sum(f.mark(m) != "" for f in judged) for m in results.methods}
    alone = {m: sum(f.mark(m) == "best" for f in judged) for m in results.methods}
    most = max(top.values())
    leaders = [m for m in results.methods if top[m] == most]
    where = f"on {results.model}"
    if total == 1:
        return f"{sentence(judged[0], where)}"
    if len(leaders) == 1 and most == total:
        clear = alone[leaders[0]]
        if not clear:
            return (
                f"No single winner {where}: only {leaders[0]} is level with the best on all {total} judged "
                "numbers, but on none is it clearly ahead of all others."
            )
        certainty = (
            "clearly so on all of them"
            if clear == total
            else f"clearly ahead of all others on {clear} and not told apart from the leaders on the rest"
        )
        return (
            f"{leaders[0]} is the best choice {where}: best or level with the best on all {total} judged "
            f"numbers, {certainty}."
        )
    if most == total:
        return (
            f"No single winner {where}: {listed(leaders)} are each best or level with the best on all {total} "
            "judged numbers, and the images do not tell them apart."
        )
    others = [m for m in results.methods if alone[m] and (len(leaders) > 1 or m != leaders[0])]
    rest = "".join(f" {m} is clearly ahead of all others on {alone[m]}." for m in others[:3])
    start = f"No method is best at everything {where}"
    if len(leaders) == 1:
        return (
            f"{start}. {leaders[0]} comes closest: best or level with the best on {most} of {total} judged "
            f"numbers.{rest}"
        )
    return (
        f"{start}: {listed(leaders)} are each best or level with the best on {most} of {total} judged "
        f"numbers.{rest}"
    )


def questions(found: Sequence[Finding]) -> list[tuple[str, str]]:
    """For each question that the run asks, the answer of its first number, and how the others agree."""
    said = []
    for question, text in QUESTIONS.items():
        mine = [f for f in found if f.number.question == question and f.best is not None]
        if not mine:
            continue
        answer = sentence(mine[0])
        best = mine[0].best
        if best is not None and len(mine) > 2:
            agree, others = sum(f.mark(best) != "" for f in mine[1:]), len(mine) - 1
            count = "all" if agree == others else "none" if agree == 0 else str(agree)
            answer += f" It is best or level with the best on {count} of the {others} other numbers that ask this."
        elif best is not None and len(mine) == 2:
            other = mine[1]
            verdict = (
                "best or level with the best too" if other.mark(best) else f"behind {other.best}"
            )
            answer += f" On {other.number.title} it is {verdict}."
        said.append((text, answer))
    return said


def sentence(finding: Finding, where: str = "") -> str:
    """One number's answer: the leader, its interval, and whom it cannot be told apart from."""
    best = finding.best
    if best is None:
        return ""
    mean = finding.estimates[best]
    unit = f" {finding.number.unit}" if finding.number.unit else ""
    places = _places(mean.mean)
    interval = (
        f", 95 % interval {number(mean.low, places)} to {number(mean.high, places)}"
        if math.isfinite(mean.low + mean.high)
        else ""
    )
    extreme = "highest" if finding.number.direction == "higher" else "lowest"
    start = (
        f"{best} has the {extreme} {finding.number.title}"
        f"{' ' + where if where else ''} ({number(mean.mean, places)}{unit}{interval}, {mean.images:,} images)"
    )
    others = len(finding.ranked) - 1
    if not finding.tied:
        worst = probability(max(finding.p_of(best, m) for m in finding.ranked[1:]))
        if others == 1:
            return f"{start}, better than {finding.ranked[1]} beyond chance ({worst})."
        most = worst.replace("p =", "p at most") if "=" in worst else f"each {worst}"
        return f"{start}, better than all {others} others beyond chance ({most})."
    if len(finding.tied) == others:
        against = finding.tied[0] if others == 1 else f"any of the {others} others"
        return f"{start}, but the images do not tell it apart from {against}."
    return f"{start}; it is not told apart from {listed(finding.tied)}."


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names as a list in a sentence."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return (
        names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
    )


def _places(value: float) -> int:
    return min(max(2 - math.floor(math.log10(abs(value))), 0), 6) if value else 3
