"""What the trainings say: is accuracy no worse with a mask that lies, and are the maps at the border?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from camlucida.common.statistics import mean_std
from camlucida.training.salience.experiment import Experiment, TrainedArm
from camlucida.training.salience.recipe import ARMS, Arm

Standing: TypeAlias = Literal["holds", "does not hold", "not decided"]

MARGIN = 0.01
"""Accuracy that may be lost for it to count as no worse: one percentage point. The paper names none."""

LEVEL = 0.05

MOVED = 0.5
"""Share of the way to the mask that maps must have gone to count as moved."""


@dataclass(frozen=True)
class Difference:
    """The accuracy of one arm less that of another, both with the same seeds on the same images.

    Attributes:
        one: arm.
        other: arm.
        mean: of the differences, over the seeds.
        per_seed: each of them.
        low_seeds: lower end of the one-sided 95 % interval (Student's t) over trainings with other seeds; NaN
            for one seed.
        high_seeds: upper end of the like.
        low_images: lower end over other test images (normal), with these trainings.
        high_images: upper end of the like.
    """

    one: Arm
    other: Arm
    mean: float
    per_seed: tuple[float, ...]
    low_seeds: float
    high_seeds: float
    low_images: float
    high_images: float

    def no_worse(self, margin: float = MARGIN) -> Standing:
        """Whether less than a margin is lost, beyond chance of seeds and of images."""
        lows = (self.low_seeds, self.low_images)
        highs = (self.high_seeds, self.high_images)
        if all(low > -margin for low in lows):
            return "holds"
        if all(high < 0 for high in highs):
            return "does not hold"
        return "not decided"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and how it fares.

    Attributes:
        claim: in words.
        outcome: ``"holds"``, ``"does not hold"`` or ``"not decided"``.
        text: why, with the numbers.
    """

    claim: str
    outcome: Standing
    text: str


def compare(experiment: Experiment, one: Arm, other: Arm) -> Difference | None:
    """Compare two arms over the seeds that both have; ``None`` where there is none."""
    first = {t.seed: t for t in experiment.of(one)}
    second = {t.seed: t for t in experiment.of(other)}
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    rows = [
        [int(a) - int(b) for a, b in zip(first[s].correct, second[s].correct, strict=True)]
        for s in seeds
    ]
    per_seed = tuple(sum(row) / len(row) for row in rows)
    images = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    low, high = _ends(per_seed)
    low_images, high_images = _ends(images)
    mean = sum(per_seed) / len(per_seed)
    return Difference(one, other, mean, per_seed, low, high, low_images, high_images)


def verdicts(experiment: Experiment, margin: float = MARGIN) -> list[Claim]:
    """What can be said of the published claims; only of arms that were trained."""
    found = []
    for other in (arm for arm in ("human", "mask", "plain") if experiment.of(arm)):
        difference = compare(experiment, "sham", other)
        if difference is not None:
            found.append(_accuracy(difference, margin, idle=_guesses(experiment.of(other))))
    if experiment.of("sham"):
        found.append(_border(experiment))
        found.append(_entropy(experiment))
    return found


def _guesses(trained: Sequence[TrainedArm]) -> bool:
    """Whether these trainings are not better than guessing, beyond two standard errors of a guess."""
    images = len(trained[0].correct)
    guess = max(t.guess for t in trained)
    least = guess + 2 * math.sqrt(guess * (1 - guess) / images)
    return guess > 0 and mean_std([t.accuracy for t in trained])[0] <= least


def _accuracy(found: Difference, margin: float, *, idle: bool) -> Claim:
    outcome = found.no_worse(margin)
    if idle and outcome == "holds":
        outcome = "not decided"
    points, lost = 100 * found.mean, 100 * margin
    said = f"SHAM less {ARMS[found.other]}: {_signed(points)} percentage points"
    if len(found.per_seed) > 1:
        said += (
            f" (by seed {', '.join(_signed(100 * d) for d in found.per_seed)}; with 95 % confidence at least "
            f"{_signed(100 * found.low_seeds)} over other seeds, {_signed(100 * found.low_images)} over other images)"
        )
    else:
        least = _signed(100 * found.low_images)
        said += f" (one seed; with 95 % confidence at least {least} over other images)"
    said += (
        f". No worse means less than {lost:g} percentage {'point' if lost == 1 else 'points'} lost"
    )
    if len(found.per_seed) < 2:
        said += "; a second seed is needed to tell"
    if idle:
        said += f"; with {ARMS[found.other]} nothing was learned beyond guessing, so there was nothing to lose"
    return Claim(
        f"Accuracy is no worse with SHAM than with {ARMS[found.other]}", outcome, f"{said}."
    )


def _border(experiment: Experiment) -> Claim:
    trained = experiment.of("sham")
    order: tuple[Arm, ...] = ("plain", "human", "mask")
    rivals = [arm for arm in order if experiment.of(arm)]
    claim = "With SHAM the maps lie at the border"
    share = [t.number("maps", "sham") for t in trained]
    if blank := [t.seed for t, value in zip(trained, share, strict=True) if math.isnan(value)]:
        said = f"All maps of seed {blank[0]} are constant: nothing lies anywhere."
        return Claim(claim, "does not hold", said)
    mean = mean_std(share)[0]
    text = f"{100 * mean:.0f} % of the maps' energy lies on the mask's ones"
    if rivals:
        base = {t.seed: t.number("maps", "sham") for t in experiment.of(rivals[0])}
        against = f"{100 * mean_std(list(base.values()))[0]:.0f} % for {ARMS[rivals[0]]}"
    else:
        base = {t.seed: t.number("maps_before", "sham") for t in trained}
        against = f"{100 * mean_std(list(base.values()))[0]:.0f} % before the training"
    moved = [
        (value - base[t.seed]) / (1 - base[t.seed])
        for t, value in zip(trained, share, strict=True)
        if base.get(t.seed, math.nan) < 1  # known, and not there already
    ]
    objects = [t.number("maps", "object") for t in trained]
    on = mean_std(objects)[0]
    text += f", against {against}"
    if on == on:  # noqa: PLR0124 - not NaN
        area = float(trained[0].record["maps"]["object_area"])
        text += f"; {100 * on:.1f} % on the object, which covers {100 * area:.1f} % of the image"
    ok = bool(moved) and min(moved) > MOVED
    least = f"{100 * min(moved):.0f} %" if moved else "an unknown share"
    text += (
        f". The least moved seed has gone {least} of the way; {100 * MOVED:.0f} % count as moved."
    )
    return Claim(claim, "holds" if ok else "does not hold", text)


def _entropy(experiment: Experiment) -> Claim:
    trained = experiment.of("sham")
    target = float(trained[0].record["sham_entropy"])
    after = mean_std([t.number("maps", "entropy") for t in trained])[0]
    before = mean_std([t.number("maps_before", "entropy") for t in trained])[0]
    near = abs(after - target)
    return Claim(
        "The maps' entropy is that of the mask",
        "holds" if near < min(0.1, abs(before - target)) else "does not hold",
        f"{after:.3f} nats after the training and {before:.3f} before it; the mask has {target:.3f}. Within 0.1 "
        "counts.",
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Both one-sided 95 % ends for the mean, by Student's t."""
    from scipy.special import stdtrit

    mean, std = mean_std(values)
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 1 - LEVEL)) * std / math.sqrt(n)
    return mean - half, mean + half
