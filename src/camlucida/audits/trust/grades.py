"""The grades themselves on trial: what the trust report says, held against what planted truth says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.candidates import Candidate, controls, usual
from camlucida.audits.report import AuditReport
from camlucida.audits.request import Request
from camlucida.audits.rules import DECIDED, GRADES, SHORT, Grade, TrustQuestion
from camlucida.audits.trial import Trial, grouped
from camlucida.audits.trust.audit import audit_all
from camlucida.audits.trust.faithful import orders
from camlucida.audits.trust.report import TrustReport
from camlucida.audits.trust.scale import SAFE, UNSAFE
from camlucida.common.progress import Say
from camlucida.data.planted import Planted, PlantedSample
from camlucida.data.planted_worlds import WORLDS
from camlucida.engine.maps import resize
from camlucida.explanation import Explanation
from camlucida.metrics.order import CELLS, Effects, in_order
from camlucida.report import Table

_IMAGES = 24
_TRUTH_IMAGES = 40
_AGAIN = 1000  # seeds of other images begin here
_NEAR = 3  # pixels around what matters, among which a map of single pixels must find it
_SAMPLE = 800  # pixels of an image that are compared


@dataclass(frozen=True)
class GradeCase:
    """A grade, and the one that was deserved.

    Attributes:
        world: the planted world.
        seed: of the network and of the images.
        method: as tables name it.
        kind: what kind of control it is; empty for a tested method.
        question: what it was asked.
        given: the grade of the trust report.
        deserved: by the planted truth.
        share: the number behind the deserved grade: 0 for the best map that knows nothing, 1 for the truth itself.
        reason: what weighed most against it in the trust report.
    """

    world: str
    seed: int
    method: str
    kind: str
    question: TrustQuestion
    given: Grade
    deserved: Grade
    share: float
    reason: str = ""

    @property
    def decided(self) -> bool:
        """Whether the report said anything."""
        return self.given in DECIDED

    @property
    def right(self) -> bool:
        """Whether it said what was deserved."""
        return self.given == self.deserved


def deserved(
    shares: Mapping[str, float],
) -> dict[TrustQuestion, tuple[Grade, float]]:
    """The grade that a method deserves for each question, by what planted truth says of its maps."""

    def grade(name: str) -> tuple[Grade, float]:
        share = shares[name]
        lights = shares[f"{name} lit"] >= SAFE  # what counts, whatever counts more
        bad: Grade = "with caution" if lights else "not safe"
        return "safe" if share >= SAFE else bad if share <= UNSAFE else "with caution", share

    asked: dict[TrustQuestion, str] = {
        "evidence": "own", "contrast": "margin", "pixels": "either", "absence": "either",
    }  # fmt: skip
    found = {question: grade(name) for question, name in asked.items()}
    # A map that finds the place and not the pixel, or what speaks for the class and not what speaks against it.
    for question, share in (("pixels", shares["near"]), ("absence", shares["against"])):
        if found[question][0] == "safe" and share < SAFE:  # type: ignore[index]
            found[question] = ("with caution", share)  # type: ignore[index]
    return found


def truth_shares(
    trial: Trial, samples: Sequence[PlantedSample], tested: Sequence[Candidate]
) -> dict[str, dict[str, float]]:
    """What planted truth says of the maps of methods: shares of the way from the best blind map to the truth."""
    assert trial.classes is not None and trial.rivals is not None  # noqa: S101, PT018
    scores: dict[str, dict[str, float]] = {}
    plain = grouped([one for one in tested if one.aggregator is None])
    for group in (*plain, *((one,) for one in tested if one.aggregator is not None)):
        sums: dict[str, list[Tensor]] = {}
        for classes in (trial.classes, trial.rivals):
            truths = [s.truth(int(c)) for s, c in zip(samples, classes, strict=True)]
            own, margin = (
                torch.stack([torch.from_numpy(getattr(t, name)) for t in truths])
                for name in ("own", "margin")
            )
            for label, e in trial.maps(group, classes).items():
                if not isinstance(e, str):
                    sums.setdefault(label, []).append(_scores(e, own, margin))
        scores |= {
            label: dict(zip(_NAMES, torch.stack(rows).nanmean(0).nanmean(1).tolist(), strict=True))
            for label, rows in sums.items()
        }
    blind = [scores[one.label] for one in tested if one.row.control in {"blind", "unlearned"}]
    floors = {name: max([0.5, *(row[name] for row in blind)]) for name in _NAMES}
    return {
        label: {name: (row[name] - floors[name]) / (1 - floors[name]) for name in _NAMES}
        for label, row in scores.items()
    }


_ORDERS = ("own", "margin", "either", "against")
_NAMES = (*_ORDERS, *(f"{name} lit" for name in _ORDERS), "near")


def _scores(e: Explanation, own: Tensor, margin: Tensor) -> Tensor:
    """Of each image, ``(9, N)``: the orders at the grain of places, and of pixels among their neighbours."""
    places = Effects(
        *(
            torch.nn.functional.adaptive_avg_pool2d(t[:, None], CELLS).flatten(1)
            for t in (own, margin)
        )
    )
    size = (int(own.shape[1]), int(own.shape[2]))
    seen = e.maps if e.method.steps.rectify else resize(e.signed.abs(), size)
    return torch.cat([
        orders(e, places), torch.stack([_near(m, o) for m, o in zip(seen, own, strict=True)])[None],
    ])  # fmt: skip


def _near(seen: Tensor, own: Tensor) -> Tensor:
    """How well a map tells the pixels that matter from those two or three pixels away."""
    matters = own != 0
    next_to, near = (
        torch.nn.functional.max_pool2d(matters[None, None].float(), 2 * far + 1, 1, far)[
            0, 0
        ].bool()
        for far in (1, _NEAR)
    )
    around = near & (matters | ~next_to)  # a detector of stripes reaches a pixel beyond them
    values, wanted = seen[around].double(), matters[around].double()
    some = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:_SAMPLE]
    return in_order(values[some][None], wanted[some][None])[0]


def grade_cases(
    world: str, seed: int, methods: Sequence[str], *, say: Say = lambda *_: None, **options: Any
) -> tuple[TrustReport, list[GradeCase]]:
    """The trust report on a planted world, and each of its grades beside the deserved one."""
    model = f"planted:{world}@{seed}"
    data = Planted(world, count=100, seed=2 * seed)
    report = audit_all(
        model, data, methods=list(methods), count=_IMAGES, say=say, seed=seed, **options
    )
    other = Planted(
        world, count=_TRUTH_IMAGES, seed=2 * seed + 1
    )  # other images than those of the report
    request = Request(model, other, methods=list(methods), count=_TRUTH_IMAGES, seed=seed)
    every = (*request.tested(), *controls(quick=True, margins=True))
    trial = request.open().ranked()
    shares = truth_shares(trial, [other.sample(i) for i in range(len(other))], every)
    kinds = {one.label: one.row.control for one in every}
    cases = [
        GradeCase(
            world, seed, method.label, kinds[method.label], question, method.answers[question].grade, *right,
            next(iter(method.answers[question].reasons), ""),
        )
        for one, method in _beside(every, report)
        for question, right in deserved(shares[one.label]).items()
    ]  # fmt: skip
    return report, cases


def _beside(every: Sequence[Candidate], report: TrustReport) -> Iterator[tuple[Candidate, Any]]:
    graded = {m.label: m for m in (*report.methods, *report.controls)}
    yield from ((one, graded[one.label]) for one in every if one.label in graded)


def audit_grades(
    methods: Sequence[str] | str | None = None,
    *,
    worlds: Sequence[str] | str | None = None,
    seeds: int = 1,
    again: bool = False,
    out: Any = None,
    say: Say = lambda *_: None,
) -> AuditReport:
    """Are the grades of :func:`camlucida.audits.audit_all` right? Held against planted truth.

    On every planted world a trust report is made, and each grade is held against the one that the method deserves by
    the truth, on other images.

    Args:
        methods: names, also with options; by default those of a quick audit.
        worlds: planted worlds; all by default.
        seeds: so many networks and sets of images of each.
        again: grade the same networks on other images too, and count the grades that come out again.
        out: the folder where finished parts are kept.
        say: told about the progress.

    Raises:
        CamlucidaError: a method or world is unknown.

    Example:
        >>> report = camlucida.audits.audit_grades("hirescam", worlds="texture")
        >>> report.record["right"] <= report.record["decided"]
        True
    """
    known = [
        WORLDS[name].name
        for name in ([worlds] if isinstance(worlds, str) else worlds or WORLDS.names)
    ]
    tested = [methods] if isinstance(methods, str) else list(methods or usual(quick=True))
    cases: list[GradeCase] = []
    pairs: list[tuple[Grade, Grade]] = []
    for i, (world, seed) in enumerate(product(known, range(seeds))):
        told = partial(_told, say, world, i, len(known) * seeds)
        kept = None if out is None else Path(out) / f"{world}-{seed}"
        report, found = grade_cases(world, seed, tested, say=told, out=kept)
        cases += found
        if again:
            other = Planted(world, count=100, seed=_AGAIN + seed)
            kept = None if kept is None else kept.with_name(f"{kept.name}-again")
            second = audit_all(
                f"planted:{world}@{seed}",
                other,
                methods=tested,
                count=_IMAGES,
                say=told,
                seed=seed,
                out=kept,
            )
            pairs += [
                (method.answers[question].grade, answer.grade)
                for method, after in zip(report.methods, second.methods, strict=True)
                for question, answer in after.answers.items()
            ]
    return _report(cases, known, seeds, pairs)


def _told(
    say: Say, world: str, number: int, parts: int, what: str, done: float, total: float
) -> None:
    say(f"{world}: {what}", number + (done / total if total else 0.0), parts)


def wrong_side(case: GradeCase) -> bool:
    """Whether a control is on the wrong side: one that knows nothing is not unsafe, or the exact answer is unsafe."""
    if case.kind == "exact":
        return case.given == "not safe" and case.deserved != "not safe"
    return case.given in {"safe", "with caution"}


def _report(
    cases: Sequence[GradeCase],
    worlds: Sequence[str],
    seeds: int,
    pairs: Sequence[tuple[Grade, Grade]],
) -> AuditReport:
    tested = [c for c in cases if not c.kind]
    decided = [c for c in tested if c.decided]
    right = sum(c.right for c in decided)
    judges = [c for c in cases if c.kind]
    wrong = [c for c in judges if wrong_side(c)]
    counts = Counter((c.deserved, c.given) for c in tested)
    confusion = Table.of_rows(
        "confusion", "Given grades beside deserved ones", ("deserved", *GRADES),
        [(truth, *(counts[truth, given] for given in GRADES)) for truth in DECIDED],
    )  # fmt: skip
    by_world = [
        (world, len(some := [c for c in decided if c.world == world]), sum(c.right for c in some),
         sum(c.world == world for c in tested))
        for world in worlds
    ]  # fmt: skip
    missed = [
        (
            c.world,
            c.seed,
            c.method,
            SHORT[c.question],
            c.given,
            c.deserved,
            f"{c.share:.2f}",
            c.reason,
        )
        for c in (*(c for c in decided if not c.right), *wrong)
    ]
    share = right / len(decided) if decided else float("nan")
    both = [a == b for a, b in pairs if a in DECIDED and b in DECIDED]
    return AuditReport(
        "grades",
        "The grades on trial",
        f"{_ABOUT} {len(worlds)} worlds, {seeds} network and set of images of each.",
        f"{right} of {len(decided)} decided grades are right ({share:.0%}), of {len(tested)} in all; {len(wrong)} of "
        f"{len(judges)} grades of controls are on the wrong side."
        + (f" On other images {sum(both)} of {len(both)} decided grades are the same." if both else ""),
        (),
        (
            confusion,
            Table.of_rows("worlds", "World by world", ("world", "decided", "right", "all"), by_world),
            Table.of_rows(
                "missed", "Where grade and truth differ",
                ("world", "seed", "method", "question", "given", "deserved", "truth's share", "what was said"), missed,
            ),
        ),
        record={
            "worlds": list(worlds), "seeds": seeds, "decided": len(decided), "right": right, "all": len(tested),
            "controls": len(judges), "controls_on_the_wrong_side": len(wrong), "cases": [asdict(c) for c in cases],
            "decided_twice": len(both), "the_same": sum(both),
        },
    )  # fmt: skip


_ABOUT = (
    "Networks were built of which it is known which pixels raise which logit, and by how much. The trust report is "
    "made without that knowledge; the deserved grade is that of the same maps held against the truth, on other images."
)
