"""What methods are expected to put where a random network cannot see: Theorem 1's question, asked of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from camlucida.audits.deadzone.activity import PAPER, THRESHOLD
from camlucida.audits.deadzone.proof import dead_zone
from camlucida.audits.report import Illustration
from camlucida.audits.theory.theorems import LAYER, Theorem1
from camlucida.audits.verdicts import Verdict, decided, sentences
from camlucida.common.progress import Say
from camlucida.common.statistics import interval
from camlucida.methods import Task, build
from camlucida.metrics.concentration import dead_zone_activity
from camlucida.report import Cell, Column, Table
from camlucida.report.charts import Point, bars
from camlucida.targets import Logit

METHODS = (*PAPER, "layercam")
"""The methods of the paper's Table 1, and LayerCAM."""

NETS = {"[CNN]": False, "residual": True}
"""The theorem's network, and its residual version: names, and whether there is a residual block."""

_NUMBERS = ("dead", "seen", "mu", "blank")

_SAY = sentences("""
lit: Lights up what is dead: the expected score of a dead pixel is {nets}, that of a seen one {seen}. {mean:.1 %} of the
    map's norm lies there.
quiet: Exactly 0 on dead pixels of all {draws:n network} of either kind.
""")


def expected_scores(net: str, draws: int, seed: int, say: Say) -> dict[str, Any]:
    """Scores on dead and seen pixels of random networks and random images, by Monte Carlo, ready for JSON.

    Each draw is another network of :class:`Theorem1` (32 filters, 14 x 14 pixels) and another image of uniform noise,
    so that seen and dead patches are alike; the output is fixed (B9). A map is rectified, enlarged to the image and
    divided by its maximum: raw maps have no common unit, and AblationCAM's, which is divided by the output, not even
    an expectation.

    Args:
        net: one of :data:`NETS`.
        draws: networks.
        seed: of the first network.
        say: told about the progress.

    Returns:
        ``net``, ``draws``, the dead ``zone`` in words, what a constant map scores (``uniform``), and for each method
        one number per draw: ``dead`` and ``seen``, the mean on such pixels, ``mu``, and ``blank``, whether there is
        nothing on the map.
    """
    theorem = Theorem1()
    methods = {name: build(name)[0] for name in METHODS}
    found: dict[str, dict[str, list[float]]] = {n: {k: [] for k in _NUMBERS} for n in methods}
    zone = dead_zone(theorem.network(seed, residual=NETS[net]), theorem.size, draws=2, seed=seed)
    for draw in range(seed, seed + draws):
        model = theorem.network(draw, residual=NETS[net])
        generator = torch.Generator().manual_seed(draw)
        x = torch.rand(1, 1, *theorem.size, generator=generator, dtype=torch.float64)
        for name, method in methods.items():
            raw = method.run(Task.of(model, x, Logit(0), LAYER, seed=draw)).fused.detach()
            steps = replace(method.steps, rectify=True, normalise="max")
            (scores,) = steps.finish(raw, theorem.size)
            values = {
                "dead": scores[zone.mask].mean(),
                "seen": scores[~zone.mask].mean(),
                "mu": dead_zone_activity(scores[None], zone.mask)[0],
                "blank": ~scores.any(),
            }
            for key, value in values.items():
                found[name][key].append(float(value))
        say(f"methods on random networks, {net}", draw - seed + 1, draws)
    return {
        "net": net,
        "draws": draws,
        "zone": str(zone),
        "uniform": zone.uniform,
        "methods": found,
    }


def verdicts(found: Sequence[Mapping[str, Any]]) -> dict[str, Verdict]:
    """What the numbers say of each method; of the nets, the one that it lights up most decides."""
    said = {}
    for name in METHODS:
        values = [one["methods"][name] for one in found]
        worst = max(values, key=lambda v: sum(v["mu"]))
        evidence = decided(worst["mu"], most=THRESHOLD)
        if any(max(v["dead"]) for v in values):
            nets = [
                "{} {:.3f} ({:.3f} to {:.3f})".format(one["net"], *_estimate(v["dead"]))
                for one, v in zip(found, values, strict=True)
            ]
            seen = [f"{np.mean(v['seen']):.3f}" for v in values]
            text = _SAY["lit"](nets=", ".join(nets), seen=" and ".join(seen), mean=evidence.value)
        else:
            text = _SAY["quiet"](draws=found[0]["draws"])
        said[name] = Verdict(
            f"random networks: {name}", evidence.outcome, text, evidence.value, THRESHOLD, "dead-zone activity",
            evidence=evidence,
        )  # fmt: skip
    return said


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Expected scores with intervals."""
    heads = {"dead": "dead pixel", "seen": "seen pixel", "mu": "μ", "blank": "blank maps"}
    columns = [
        Column(f"{head}, {one['net']}", places=3) for one in found for head in heads.values()
    ]
    rows = [
        (name, *(Cell(*_estimate(one["methods"][name][key])) for one in found for key in heads))
        for name in METHODS
    ]
    zones = "; ".join(
        f"{one['net']}, {one['zone']}, a constant map has μ {one['uniform']:.3f}" for one in found
    )
    return Table.of_rows(
        "expected-scores",
        f"Expected score of a pixel, over {found[0]['draws']} random networks and images",
        ["method", *columns],
        rows,
        "Maps are divided by their maximum, so that scores lie between 0 and 1. 95 % intervals of the mean (BCa "
        f"bootstrap) over networks. {zones}.",
    )


def chart(found: Sequence[Mapping[str, Any]]) -> Illustration:
    """All methods and both nets in one plot."""
    points = []
    for name in METHODS:
        for i, one in enumerate(found):
            scores = one["methods"][name]
            value, low, high = _estimate(scores["dead"])
            label = name if i == 0 else f"{name}, {one['net']}"
            points.append(Point(label, value, 0, low, high, i, float(np.mean(scores["seen"]))))
    caption = (
        "Expected score of a pixel that provably changes no output (bar, with its 95 % interval), and of a pixel that "
        "is seen (thick line), for random networks: where the two are alike, a method knows nothing of the wall."
    )
    return Illustration.chart(
        bars, "expected-scores", "Expected score behind the wall", caption, points,
        x_label="score, of a map divided by its maximum",
    )  # fmt: skip


def _estimate(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its interval."""
    column = np.asarray(values, np.float64)[:, None]
    (low,), (high,) = interval(column)
    return float(column.mean()), float(low), float(high)
