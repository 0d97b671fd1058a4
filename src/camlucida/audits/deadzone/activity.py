"""How much attribution methods put where nothing is seen, and what they leave blank where something is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from camlucida.audits.candidates import Candidate
from camlucida.audits.deadzone.proof import DeadZone
from camlucida.audits.trial import Trial
from camlucida.audits.verdicts import (
    ENOUGH,
    Evidence,
    Outcome,
    Sentence,
    Verdict,
    decided,
    sentences,
)
from camlucida.common.statistics import mean_std
from camlucida.engine.maps import rectify, resize
from camlucida.methods import Progress
from camlucida.metrics.concentration import dead_zone_activity, seen_area_lost
from camlucida.report.tables import number

PAPER = (
    "gradcam", "gradcam++", "xgradcam", "scorecam", "opticam", "ablationcam", "eigencam", "hirescam",
)  # fmt: skip
"""The eight methods of the paper's Table 1."""

THRESHOLD = 0.01
"""Largest mean share of a map's norm on a dead zone that passes."""

LOST = 0.1
"""Share of the seen area that is blank on every image, above which a quiet dead zone is no praise."""


@dataclass(frozen=True)
class Zones:
    """What is dead for a model: pixels, and cells of the explained layer.

    Attributes:
        pixels: of the input.
        cells: of the layer; ``None`` where they were not looked for.
        layer: the explained layer.
        wall_hides_pixels: ``False`` where the dead pixels are dead without the wall too, such as a border that a
            stride leaves out; they then say nothing about the wall.
    """

    pixels: DeadZone
    cells: DeadZone | None
    layer: str
    wall_hides_pixels: bool = True

    @property
    def judged(self) -> str:
        """``"pixels"`` where the wall leaves some dead, else ``"cells"`` where some are, else nothing."""
        if self.wall_hides_pixels and not self.pixels.empty:
            return "pixels"
        return "cells" if self.cells is not None and not self.cells.empty else ""

    @property
    def unit(self) -> str:
        """What the methods are judged on, in words that say no more than is proved of it."""
        return "pixels" if self.judged == "pixels" else f"cells of {self.layer}"

    @property
    def unseen(self) -> str:
        """What is dead, in words: unless pixels are proved dead, they may be seen through other cells."""
        if self.judged == "pixels":
            return "pixels that the model provably does not see"
        return f"cells of {self.layer} that the head provably ignores"

    @property
    def uniform(self) -> float:
        """What a constant map scores."""
        if self.judged == "cells" and self.cells is not None:
            return self.cells.uniform
        return self.pixels.uniform


def measure(
    trial: Trial, tested: Candidate, zones: Zones, progress: Progress | None = None
) -> dict[str, Any]:
    r"""Dead-zone activity of a method on a model, ready for JSON.

    $\mu$ is taken on the rectified map before any offset, scaling or blur (section 11.4): a spatial bias would make
    dead cells the maximum, scaling by the minimum would lift their zeros, and a blur leaks. The finished map's is
    given beside it. The predicted class is explained.

    Returns:
        Lists with one number per image: ``pixels`` and ``cells``, the activity there, ``finished`` that of the
        finished map on the same; ``lost``, the blank share of what is seen; ``blank`` maps. Beside them
        ``always_blank`` and ``always_lost``, the shares of the whole and of the seen area that are blank on
        every image; or ``error`` where the method cannot explain this model.
    """
    trial, row = replace(trial, layer=zones.layer), tested.row
    shown = plain = trial.maps([tested], progress=progress)[tested.label]
    if row.without_offset:
        below = replace(tested, options={**tested.options, **row.without_offset})
        plain = trial.maps([below])[tested.label]
    if isinstance(shown, str) or isinstance(plain, str):
        return {"error": shown if isinstance(shown, str) else plain}
    own = rectify(plain.details[row.before_blur] if row.before_blur else plain.raw)
    enlarged = resize(own, trial.size)
    found: dict[str, Any] = {"pixels": None, "cells": None}
    judged = own
    if zones.judged == "pixels":
        mask = zones.pixels.mask
        found["pixels"] = dead_zone_activity(enlarged, mask).tolist()
        found["finished"] = dead_zone_activity(shown.maps, mask).tolist()
        judged, dead = enlarged, mask
    cells = zones.cells
    fits = cells is not None and not cells.empty and shown.layers == (zones.layer,)
    if cells is not None and fits and own.shape[1:] == cells.mask.shape:
        found["cells"] = dead_zone_activity(own, cells.mask).tolist()
        if zones.judged == "cells":
            found["finished"] = dead_zone_activity(rectify(shown.raw), cells.mask).tolist()
            judged, dead = own, cells.mask
    if found["pixels"] is None and found["cells"] is None:
        return {
            "error": "its map is not one of the cells of the layer behind which the wall stands, and the wall leaves "
            "no pixel dead; a wall in front of the input tests it"
        }
    on = (judged > 0).any(0).cpu()
    return {
        **found,
        "lost": seen_area_lost(judged, dead).tolist(),
        "blank": int((~own.flatten(1).any(1)).sum()),
        "always_blank": float((~on).double().mean()),
        "always_lost": float((~on)[~dead].double().mean()),
        "layers": list(shown.layers),
        "options": shown.method.describe()["options"],
    }


def tune_opticam(
    trial: Trial,
    learning_rates: Sequence[float] = (0.01, 0.1, 0.5),
    iterations: Sequence[int] = (50, 100),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The learning rate and steps under which Opti-CAM's masks lower the class's probability least.

    The authors of the walls paper did so before they measured, without giving the values (B10). Masks are multiplied
    with pixels where the preprocessing is known.

    Returns:
        ``options`` of the best, its ``average_drop`` in percent, and all ``tried``, ready for JSON.
    """
    tried = []
    settings = list(product(learning_rates, iterations))
    for done, (rate, steps) in enumerate(settings):
        if progress is not None:
            progress(done, len(settings))
        options = {"learning_rate": rate, "iterations": steps}
        (e,) = trial.explain([Candidate("opticam", options=options)]).values()
        drop = e.details.get("average_drop")
        value = math.nan if drop is None else float(drop.double().mean())
        tried.append({**options, "average_drop": value})
    best = min(tried, key=lambda row: (math.isnan(row["average_drop"]), row["average_drop"]))
    return {
        "options": {"learning_rate": best["learning_rate"], "iterations": best["iterations"]},
        "average_drop": best["average_drop"],
        "tried": tried,
        "images": len(trial.inputs),
    }


# ------------------------------------------------------------------------------------------- verdicts

_SAY = sentences("""
lit: Lights up {unseen}{place}: {mean:.1 %} of the map's norm lies on dead {unit} (at most {threshold:g %} passes; a map
    that knows nothing would put {uniform:.1 %} there). Do not take a bright spot for something that moved the score.
little: Only {mean:.2g %} of the map's norm lies on dead {unit}{place} (at most {threshold:g %} passes; a map that knows
    nothing would put {uniform:.1 %} there).
nothing: Nothing at all lies on dead {unit}{place} (at most {threshold:g %} passes; a map that knows nothing would put
    {uniform:.1 %} there).
blank where seen: But it is blank on {always_blank:.0 %} of the map on every image, which includes {always_lost:.0 %} of
    the {unit} that do count: do not take a dark spot for something that the model ignored.
faded wall: Its last steps (blur, offset, scaling) spread it: on the finished map it is {finished:.1 %}.
nan: {broken} of {count} maps hold NaN and do not count.
some blank: {blank} of {count} maps are blank, which counts as 0.
error: Could not be tested here: {error}
no unit: Its map has no {unit} of this kind, so that it cannot be judged.
all nan: Its maps hold NaN, so that they cannot be judged.
all blank: All of its {blank} maps are blank, so that there is nothing to judge.
""")


def verdict(label: str, measured: Mapping[str, Any], zones: Zones, where: str = "") -> Verdict:
    """What the numbers of :func:`measure` say.

    A method that passes with a caution comes with a finding of its own: ``"blank where seen"`` where a quiet dead
    zone is no praise, since the map is blank elsewhere too, else ``"faded wall"``. ``where`` says which model, if
    there are several, such as ``"on the residual net"``.
    """
    kind = zones.judged
    if "error" in measured:
        return Verdict(label, "not tested", _SAY["error"](error=measured["error"]))
    if measured.get(kind) is None:
        return Verdict(label, "not tested", _SAY["no unit"](unit=kind))
    values = [v for v in measured[kind] if v is not None and not math.isnan(v)]
    count, broken, blank = len(measured[kind]), len(measured[kind]) - len(values), measured["blank"]
    if not values:
        return Verdict(label, "not tested", _SAY["all nan"])
    if blank == count:
        return Verdict(label, "not tested", _SAY["all blank"](blank=blank))
    mean, std = mean_std(values)
    evidence = decided(values, most=THRESHOLD)
    finished = [v for v in measured.get("finished") or [0.0] if v is not None and not math.isnan(v)]
    spread = decided(finished or [0.0], most=THRESHOLD)
    after, unit = spread.value, zones.unit
    lit, lost = not evidence.within, measured["always_lost"] > LOST
    first = "lit" if lit else "little" if max(values) > 0 else "nothing"
    numbers = {
        **measured, "unit": unit, "unseen": zones.unseen, "place": f" {where}" if where else "", "mean": mean,
        "threshold": THRESHOLD, "uniform": zones.uniform, "finished": after, "broken": broken, "count": count,
    }  # fmt: skip
    cautions = [
        caution
        for caution, holds in (
            ("blank where seen", not lit and lost),
            ("faded wall", not lit and after > THRESHOLD),
            ("nan", broken > 0),
        )
        if holds
    ]
    kinds = [first, *cautions, *(["some blank"] if blank else [])]
    said = [_SAY[kind].of(numbers) for kind in kinds]
    outcome: Outcome = "warn" if evidence.outcome == "pass" and cautions else evidence.outcome
    parts: tuple[Verdict, ...] = ()
    if not lit and (lost or not spread.within):
        parts = (_caution(label, measured, said, count, None if lost else spread),)
    known = ("always_blank", "always_lost", "blank", "layers", "options")
    details = {"std": std, "uniform": zones.uniform, "finished": measured.get("finished")}
    details |= {k: measured[k] for k in known}
    measure = f"dead-zone activity, {unit}"
    return Verdict(
        label, outcome, said, mean, THRESHOLD, measure, details, parts=parts, evidence=evidence
    )


def _caution(
    label: str,
    measured: Mapping[str, Any],
    said: Sequence[Sentence],
    count: int,
    spread: Evidence | None,
) -> Verdict:
    """The finding that comes with a quiet dead zone: the map is blank elsewhere too, or its last steps spread it."""
    if spread is not None:
        measure = "dead-zone activity of the finished map"
        return Verdict(
            label,
            spread.outcome,
            said,
            spread.value,
            THRESHOLD,
            measure,
            finding="faded wall",
            evidence=spread,
        )
    value, measure = float(measured["always_blank"]), "share of the map that is always blank"
    outcome: Outcome = "fail" if count >= ENOUGH else "unclear"
    return Verdict(label, outcome, said, value, None, measure, finding="blank where seen")


def row(label: str, measured: Mapping[str, Any]) -> tuple[Any, ...]:
    """Cells of a table: activity on pixels, on cells and of the finished map, and the area lost."""
    if "error" in measured:
        return (label, *(None,) * 6)
    cells: list[str | None] = []
    for name in ("pixels", "cells", "finished"):
        values = measured.get(name)
        if values is None:
            cells.append(None)
        else:
            mean, std = mean_std(values)
            cells.append(f"{number(100 * mean)} ± {number(100 * std)}")
    lost, _ = mean_std(measured["lost"])
    return (
        label,
        *cells,
        f"{100 * measured['always_blank']:.0f}",
        f"{100 * measured['always_lost']:.0f}",
        f"{100 * lost:.0f}",
    )


ROW = (
    "method", "μ × 100, dead pixels", "μ × 100, dead cells", "μ × 100, finished map",
    "always blank, % of all", "always blank, % of seen", "blank, % of seen",
)  # fmt: skip
"""Headings of :func:`row`."""
