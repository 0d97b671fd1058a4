"""The metrics on trial: on planted truth, each must put the truth above a spoiled truth above noise, and be stable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.report import AuditReport
from camlucida.audits.verdicts import Evidence, Verdict, by_outcome, decided, sentences
from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count
from camlucida.common.progress import Say
from camlucida.common.store import Store
from camlucida.data.planted import Planted
from camlucida.engine.maps import normalise, smooth
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.methods.controls import random_maps
from camlucida.metrics import Scene, build_metric, describe_number, list_metrics
from camlucida.metrics.registry import MetricRow
from camlucida.models.planted import planted_network
from camlucida.report import Column, Table

WORLDS = ("wall", "watermark", "texture", "and", "objects")
"""The planted worlds that metrics are tried on unless told."""

BATCH = 1e-4
"""Largest difference between an image alone and in a batch, as a share of what sets truth and noise apart."""
NOISE = 0.2
"""Largest change when a hundredth of noise is added to the map, as a share of the same."""

ABOUT = (
    "On images of which it is known what decides, three maps are judged by each metric: the truth (blurred by two "
    "pixels, as a map would be), the truth spoiled (seven parts of ten are noise), and noise. A metric that judges "
    "maps must put the first above the second and the second above the third on the average over the images of every "
    "world, give an image alone the number that it has in a batch, and hardly change when a hundredth of noise is "
    "added to a map."
)


_SAY = sentences("""
pass: It puts the truth above the spoiled truth on {upper:.0 %} of the images, and that above noise on {lower:.0 %}.
fail: It does not put {what}: on {share:.0 %} of the images only ({world}).
batch: An image alone gets another number than in a batch: they differ by {apart:.1e} of what sets truth and noise
    apart.
noise: A hundredth of noise on the map changes it by {apart:.0 %} of what sets truth and noise apart (up to {most:.0 %}
    passes).
error: Could not be tried: {error}
blank: It gives no number for these maps.
""")


def audit_metrics(
    metrics: Sequence[str] | str | None = None,
    *,
    worlds: Sequence[str] = WORLDS,
    count: Count = 12,
    seed: int = 0,
    out: Any = None,
    say: Say = lambda *_: None,
) -> AuditReport:
    """Do the metrics put truth above noise? Held to planted truth, without any model of the user's.

    Args:
        metrics: names, also with options; by default all that judge a map on its own.
        worlds: planted worlds.
        count: images of each.
        seed: of images, networks and noise.
        out: the folder where finished parts are kept.
        say: told about the progress.

    Raises:
        CamlucidaError: a metric or world is unknown.

    Example:
        >>> report = camlucida.audits.audit_metrics("energy_pointing", worlds=["wall"])
        >>> report["energy_pointing"].outcome
        'pass'
    """
    named = [metrics] if isinstance(metrics, str) else metrics
    names = [row.name for row in list_metrics() if judges(row)] if named is None else list(named)
    made = {name: build_metric(name) for name in names}
    store = Store(out, {"audit": "metrics", "worlds": list(worlds), "count": count, "seed": seed})
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for i, world in enumerate(worlds):
        scene, maps = truth_scene(world, count, seed)
        for k, (name, metric) in enumerate(made.items()):
            say(f"{name} on {world}", i * len(made) + k, len(worlds) * len(made))
            part = store.value(f"{world}-{name}", partial(_measured, metric, scene, maps))
            for number, values in part.items():
                found.setdefault(number, {})[world] = values
    say("metrics", 1, 1)
    verdicts = tuple(_verdict(number, by_world) for number, by_world in found.items())
    by = by_outcome(verdicts)
    rows = [
        (v.subject, *(v.details.get(k) for k in ("upper", "lower", "batch", "noise", "monotone")))
        for v in verdicts
    ]
    columns: tuple[str | Column, ...] = (
        "number", Column("truth over spoiled", "higher", places=2), Column("spoiled over noise", "higher", places=2),
        Column("alone", "lower", places=6), Column("with noise", "lower", places=2),
        Column("of the map squared", places=2),
    )  # fmt: skip
    return AuditReport(
        "metrics",
        "The metrics on trial",
        ABOUT,
        f"{len(by['pass'])} of {len(verdicts)} numbers put truth above noise wherever they were tried; "
        f"{len(by['fail'])} did not"
        + (f", and of {len(by['unclear'])} the images do not decide it." if by["unclear"] else "."),
        verdicts,
        (
            Table.of_rows(
                "metrics", "Shares of the images, and changes of the number", columns, rows
            ),
        ),
        record={"worlds": list(worlds), "count": count, "seed": seed, "measured": found},
    )


def kept(report: AuditReport) -> dict[str, dict[str, Any]]:
    """What :func:`camlucida.metrics.metric_verdicts` keeps of a trial of all metrics; written anew by a release."""
    on = {"worlds": report.record["worlds"], "images": report.record["count"]}
    return {v.subject: {"outcome": v.outcome, "text": v.text, **on} for v in report.verdicts}


def judges(row: MetricRow) -> bool:
    """Whether a metric judges a map on its own: it says which way is better, and needs no other explanation."""
    by_number = [describe_number(name).direction for name in row.make().names]
    own = row.question in {"localisation", "faithfulness"} and not row.on_request
    return own and "reference" not in row.needs and any(d != "none" for d in by_number)


def truth_scene(world: str, count: int, seed: int) -> tuple[Scene, dict[str, Explanation]]:
    """Images of a planted world as metrics see them, and the explanations that hold the three maps, and variants."""
    data, loaded = Planted(world, count=count, seed=seed), planted_network(f"{world}@{seed}")
    assert loaded.preprocess is not None  # noqa: S101
    samples = [data.sample(i) for i in range(count)]
    inputs = torch.stack([loaded.preprocess(s.picture()) for s in samples])
    labels = torch.tensor([data.label(i) for i in range(count)])
    with torch.no_grad():
        logits = loaded.module(inputs)
    own = torch.stack([torch.from_numpy(s.truth().own) for s in samples]).clamp_min(0).float()
    boxes = tuple(torch.tensor(s.boxes, dtype=torch.float32).view(-1, 4) for s in samples)
    scene = Scene(
        loaded.module, inputs, logits, labels, labels, boxes, own > 0, torch.ones(count, dtype=torch.bool),
        loaded.preprocess, seed,
    )  # fmt: skip
    base = explain(loaded, inputs, method="random", target=labels.tolist())

    def carried(maps: Tensor) -> Explanation:
        scaled = normalise(maps)
        return replace(base, maps=scaled, raw=scaled, signed=scaled)

    truth, noise = normalise(smooth(own, 2.0)), random_maps(inputs, seed)
    tremble = 0.01 * random_maps(inputs, seed + 1, cells=inputs.shape[-1])
    return scene, {
        "truth": carried(truth),
        "spoiled": carried(0.3 * truth + 0.7 * random_maps(inputs, seed + 2)),
        "noise": carried(noise),
        "trembling": carried(truth + tremble),
        "squared": carried(truth.square()),
    }


def _measured(metric: Any, scene: Scene, maps: dict[str, Explanation]) -> dict[str, dict[str, Any]]:
    """Of each number of a metric: its values on every map, and of the first image alone."""
    try:
        values = {name: metric.measure(scene, e).values for name, e in maps.items()}
        alone = metric.measure(_first(scene), maps["truth"][0]).values
    except (CamlucidaError, RuntimeError) as error:
        return {name: {"error": str(error)} for name in metric.names}
    return {
        number: {
            **{name: found[number].double().tolist() for name, found in values.items()},
            "alone": float(alone[number][0]),
        }
        for number in metric.names
        if describe_number(number).direction != "none"
    }


def _first(scene: Scene) -> Scene:
    cut = {
        k: getattr(scene, k)[:1]
        for k in ("inputs", "logits", "classes", "labels", "boxes", "masks", "exact")
    }
    return replace(scene, **cut)


def _verdict(number: str, by_world: dict[str, dict[str, Any]]) -> Verdict:
    sign = 1.0 if describe_number(number).direction == "higher" else -1.0
    errors = [v["error"] for v in by_world.values() if "error" in v]
    if errors:
        return Verdict(number, "not tested", _SAY["error"](error=errors[0]))
    found: dict[str, list[tuple[float, Evidence, str]]] = {"upper": [], "lower": []}
    batch, trembling, monotone = [], [], []
    for world, values in by_world.items():
        truth, spoiled, noise = (
            torch.tensor(values[k], dtype=torch.float64) for k in ("truth", "spoiled", "noise")
        )
        known = ~(truth.isnan() | spoiled.isnan() | noise.isnan())
        if not bool(known.any()):
            continue
        for key, gap in (("upper", truth - spoiled), ("lower", spoiled - noise)):
            apart = sign * gap[known]
            share = float(((apart > 0).double() + (apart == 0).double() / 2).mean())
            found[key].append((share, decided(apart.tolist(), least=1e-9), world))
        scale = float((truth - noise)[known].abs().mean()) or 1.0
        changed = {
            k: torch.tensor(values[k], dtype=torch.float64) for k in ("trembling", "squared")
        }
        batch.append(abs(values["alone"] - float(truth[0])) / scale if bool(known[0]) else 0.0)
        trembling.append(float((changed["trembling"] - truth)[known].abs().mean()) / scale)
        monotone.append(float((changed["squared"] - truth)[known].abs().mean()) / scale)
    if not found["upper"]:
        return Verdict(number, "not tested", _SAY["blank"])
    shares = {key: sum(s for s, _, _ in rows) / len(rows) for key, rows in found.items()}
    details = {**shares, "batch": max(batch), "noise": max(trembling), "monotone": max(monotone)}
    measure = "share of the images on which truth is above the spoiled truth, and that above noise"
    every = [(key, *row) for key, rows in found.items() for row in rows]
    for key, share, evidence, world in every:
        if evidence.outcome == "fail":
            said = _SAY["fail"](what=_WHAT[key], share=share, world=world)
            return Verdict(number, "fail", said, share, 0.5, measure, details, evidence=evidence)
    for key, most in (("batch", BATCH), ("noise", NOISE)):
        if details[key] > most:
            said = _SAY[key].of({"apart": details[key], "most": most})
            return Verdict(number, "fail", said, details[key], most, "change", details)
    _, _, evidence, _ = min(every, key=lambda row: (row[2].outcome == "pass", row[1]))
    value = min(shares.values())
    return Verdict(
        number,
        evidence.outcome,
        _SAY["pass"].of(shares),
        value,
        0.5,
        measure,
        details,
        evidence=evidence,
    )


_WHAT = {"upper": "the truth above the spoiled truth", "lower": "the spoiled truth above noise"}
