"""The grades themselves on trial: what the trust report says, held against what planted truth says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.candidates import Candidate, controls
from camlucida.audits.request import Request
from camlucida.audits.rules import DECIDED, Grade, TrustQuestion
from camlucida.audits.trial import Trial, grouped
from camlucida.audits.trust.audit import audit_all
from camlucida.audits.trust.faithful import SAFE, UNSAFE, orders
from camlucida.audits.trust.report import TrustReport
from camlucida.common.progress import Say
from camlucida.data.planted import Planted, PlantedSample
from camlucida.engine.maps import resize
from camlucida.explanation import Explanation
from camlucida.metrics.order import CELLS, Effects, in_order

_TRUTH_IMAGES = 40
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
    one: Candidate, shares: Mapping[str, float]
) -> dict[TrustQuestion, tuple[Grade, float]]:
    """The grade that a method deserves for each question, by what planted truth says of its maps."""

    def grade(share: float) -> Grade:
        return "safe" if share >= SAFE else "not safe" if share <= UNSAFE else "with caution"

    found: dict[TrustQuestion, tuple[Grade, float]] = {}
    for question, share in (
        ("evidence", shares["own"]), ("contrast", shares["margin"]),
        ("pixels", shares["either"]), ("absence", shares["either"]),
    ):  # fmt: skip
        found[question] = (grade(share), share)  # type: ignore[index]
    # A map that finds the place and not the pixel, or what speaks for the class and not what speaks against it.
    for question, share in (("pixels", shares["near"]), ("absence", shares["against"])):
        if found[question][0] == "safe" and share < SAFE:  # type: ignore[index]
            found[question] = ("with caution", share)  # type: ignore[index]
    del one
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


_NAMES = ("own", "margin", "either", "against", "near")


def _scores(e: Explanation, own: Tensor, margin: Tensor) -> Tensor:
    """Of each image, ``(5, N)``: the orders at the grain of places, and of pixels among their neighbours."""
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
        model, data, methods=list(methods), labels=False, say=say, seed=seed, **options
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
        for question, right in deserved(one, shares[one.label]).items()
    ]  # fmt: skip
    return report, cases


def _beside(every: Sequence[Candidate], report: TrustReport) -> Iterator[tuple[Candidate, Any]]:
    graded = {m.label: m for m in (*report.methods, *report.controls)}
    yield from ((one, graded[one.label]) for one in every if one.label in graded)
