"""``audit theory``: the paper's proposition, theorem and MNIST illustration, computed and drawn."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.deadzone.activity import THRESHOLD
from camlucida.audits.deadzone.figures import zone_grid
from camlucida.audits.deadzone.proof import dead_zone
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.theory import expectations
from camlucida.audits.theory.theorems import (
    LAYER,
    Theorem1,
    TheoryCNN,
    expected_root,
    proposition_1,
)
from camlucida.audits.verdicts import Verdict, decided, sentences
from camlucida.common.progress import Say, part
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.data.digits import mnist
from camlucida.engine.tap import tap
from camlucida.explanation.explain import explain
from camlucida.metrics.concentration import dead_zone_activity
from camlucida.report import Column, Table
from camlucida.report.charts import Line, lines
from camlucida.targets import Logit

TOLERANCE = 1e-12
"""Largest difference of Proposition 1 from autograd that passes, relative to the largest weight."""

LARGEST_Z = 4.0
"""Largest distance from the exact expectation, in standard errors, that passes at any of 144 cells."""

FILTERS = (24, 32, 64)
_SHOWN = ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam")
_DIGITS = (0, 3, 5, 7)

_SAY = sentences("""
autograd: Through {draws} random networks of 32 filters GradCAM, by autograd, lies {z:.1f} standard errors at most (at
    most {most:g} passes) from the exact expectation.
residual: Through {draws} residual networks GradCAM, by autograd, lies {z:.1f} standard errors at most (at most {most:g}
    passes) from what the theorem's proof gives for any features in front of one random dense layer.
closed form: The closed form of GradCAM's channel weights differs from autograd by at most {worst:.1e} of the largest
    weight, over 1 to 4 dense layers and 1 to 32 filters (at most {most:.0e} passes).
expectation: The mean of GradCAM over {draws} random networks lies within {z:.1f} standard errors of the exact
    expectation at each of 144 cells (at most {most:g} passes), and {side}. Per norm of the patch, dead cells are
    {ratio:.3f} times as bright as seen ones.
quiet: Exactly zero on the dead rows.
lit: {mean:.1 %} of the map's norm lies on rows that provably change nothing (a constant map: {uniform:.1 %}).
illustration: The illustration is a random network on digits: {zone}. With a fixed output, GradCAM's mean is
    {fixed_output:.3g}; explaining the largest of 10 outputs instead is not what the theorem speaks of, and biased
    upward: {argmax_output:.3g}.
""")
_SIDES = {True: "above the paper's bound everywhere", False: "below the bound somewhere"}


def audit_theory(
    *,
    quick: bool = True,
    draws: int | None = None,
    digits: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """Why do weights for whole channels see through walls? The theory behind the walls, checked and drawn.

    Args:
        quick: half a minute, with fewer draws and digits.
        draws: random networks for each number of filters; 4,000 with ``quick``, else 40,000. A tenth of them are
            explained by autograd, and 60 of them (with ``quick``; else 1,000) by all methods.
        digits: of the illustration; 20 with ``quick``, else 200; 0 leaves it out.
        seed: of weights and images.
        out: the folder where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress.

    Example:
        >>> report = camlucida.audits.audit_theory(draws=2, digits=0)
        >>> report["Proposition 1"].outcome
        'pass'
    """
    tell = say or (lambda *_: None)
    draws = draws or (4_000 if quick else 40_000)
    digits = (20 if quick else 200) if digits is None else digits
    store = Store(out, {"audit": "theory", "draws": draws, "seed": seed})
    propositions = store.value("proposition-1", partial(_propositions, min(draws, 5), seed, tell))
    theorems = [
        store.value(f"theorem-1-{v}", partial(_theorem, v, draws, seed, tell))
        for v in (*FILTERS, *(() if quick else (256,)))
    ]
    tell("digits behind a wall", 0, 1)
    shown, picture = _illustration(digits, seed) if digits else ({}, None)
    tell("digits behind a wall", 1, 1)
    autograd = [
        store.value(f"autograd-{net}", partial(_by_autograd, net, max(2, draws // 10), seed, tell))
        for net in expectations.NETS
    ]
    networks = min(draws, 60 if quick else 1000)
    scores = [
        store.value(
            f"scores-{net}-{networks}",
            partial(expectations.expected_scores, net, networks, seed, tell),
        )
        for net in expectations.NETS
    ]
    worst = max(p["difference"] for p in propositions)
    theory = [
        Verdict(
            "Proposition 1", "pass" if worst <= TOLERANCE else "fail", _SAY["closed form"](worst=worst, most=TOLERANCE),
            worst, TOLERANCE, "largest relative difference",
        ),
        *map(_theorem_verdict, theorems),
        *map(_autograd_verdict, autograd),
    ]  # fmt: skip
    expected = expectations.verdicts(scores)
    of_digits = {name: _digit_verdict(name, shown) for name in shown.get("mu", ())}
    return AuditReport(
        "theory",
        "Why weights for whole channels see through walls",
        "GradCAM weights each channel by the mean of its gradient over the whole map, dead part included, and so "
        "lights up any place where a channel is active, whether the rest of the model sees it or not. For a "
        "convolution, ReLU, pooling and dense layers without biases this is exact (Proposition 1), and for random "
        "weights the expected brightness of a cell depends on the patch under it alone, not on whether it is dead "
        "(Theorem 1; the paper gives a lower bound, here the exact value is computed too). For the other methods and "
        "for a residual network, which the paper leaves to future work, the expected score is drawn."
        + (f"\n{_SAY['illustration'].of(shown)}" if shown else ""),
        _summary(theory, expected, of_digits),
        (*theory, *expected.values(), *of_digits.values()),
        (
            _proposition_table(propositions),
            _theorem_table(theorems),
            expectations.table(scores),
            *([_digit_table(shown, digits)] if shown else []),
        ),
        (
            expectations.chart(scores),
            *filter(None, [picture]),
            _filter_chart(theorems),
            _row_chart(theorems[1]),
        ),
        {
            "quick": quick,
            "seed": seed,
            "proposition_1": propositions,
            "theorem_1": theorems,
            "by_autograd": autograd,
            "expected_scores": scores,
            "mnist": shown,
        },
    )


# -------------------------------------------------------------------------------------------- numbers


def _propositions(networks: int, seed: int, say: Say) -> list[dict[str, Any]]:
    found = []
    hidden: tuple[tuple[int, ...], ...] = ((), (12,), (12, 9), (12, 9, 7))
    for layers, widths in enumerate(hidden, 1):
        for filters in (1, 8, 32):
            worst, images = 0.0, 4
            for draw in range(seed, seed + networks):
                model = TheoryCNN(
                    (14, 14), filters=filters, hidden=widths, outputs=3, dead_rows=3, seed=draw
                ).double()
                generator = torch.Generator().manual_seed(draw)
                x = torch.rand(images, 1, 14, 14, generator=generator, dtype=torch.float64)
                _, gradient = tap(model, x, LAYER, Logit(1)).only
                expected, closed = gradient.mean((2, 3)), proposition_1(model, x, 1)
                largest = float(expected.abs().max())
                worst = max(worst, float((closed - expected).abs().max()) / (largest or 1.0))
            compared = networks * images
            found.append(
                {"layers": layers, "filters": filters, "compared": compared, "difference": worst}
            )
        say("Proposition 1", layers, len(hidden))
    return found


def _theorem(filters: int, draws: int, seed: int, say: Say) -> dict[str, Any]:
    theorem = Theorem1(filters=filters)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(14, 14, generator=generator, dtype=torch.float64)

    def progress(done: float, total: float) -> None:
        say(f"Theorem 1, {filters} filters", done, total)

    sampled = theorem.sample(image, draws, seed=seed + filters, progress=progress)
    exact, bound, norms = theorem.exact(image), theorem.bound(image), theorem.patch_norms(image)
    per_norm, half = sampled.mean / norms, theorem.map_size[0] // 2
    return {
        "filters": filters,
        "draws": draws,
        "z": float(sampled.z(exact).abs().max()),
        "above_bound": bool((sampled.mean > bound).all()),
        "sampled": float(sampled.mean.mean()),
        "error": float(sampled.error.mean()),
        "exact": float(exact.mean()),
        "bound": float(bound.mean()),
        "share": float(bound.mean() / exact.mean()),
        "ratio": float(per_norm[half:].mean() / per_norm[:half].mean()),
        "norm": float(norms.mean()),
        "rows_sampled": sampled.mean.mean(1).tolist(),
        "rows_exact": exact.mean(1).tolist(),
        "rows_bound": bound.mean(1).tolist(),
    }


def _by_autograd(net: str, draws: int, seed: int, say: Say) -> dict[str, Any]:
    theorem, residual = Theorem1(), expectations.NETS[net]
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(theorem.size, generator=generator, dtype=torch.float64)
    found, off = theorem.by_autograd(
        image, draws, seed, residual=residual, progress=part(say, f"autograd, {net}")
    )
    z = off.z(0) if residual else found.z(theorem.exact(image))
    return {"net": net, "residual": residual, "draws": draws, "z": float(z.abs().max())}


def _illustration(count: int, seed: int) -> tuple[dict[str, Any], Illustration]:
    """The paper's Figure 3: digits, a random network of 256 filters, and a wall over half of the map."""
    model = TheoryCNN((29, 29), filters=256, kernel=2, outputs=10, dead_rows=7, seed=seed)
    digits = torch.from_numpy(mnist()[0].reshape(10, 500, 28, 28).copy())
    chosen = torch.randint(5000, (count,), generator=torch.Generator().manual_seed(seed))
    images, few = (
        _padded(some) for some in (digits.flatten(0, 1)[chosen], digits[list(_DIGITS), seed % 500])
    )
    zone = dead_zone(model, images[:4], draws=2, seed=seed)
    cells = dead_zone(model, images[:4], LAYER, draws=2, seed=seed)
    maps, drawn = (
        explain(model, some, method=list(_SHOWN), target=0, layers=LAYER) for some in (images, few)
    )
    predicted = explain(model, images, method="gradcam", layers=LAYER)
    record = {
        "zone": str(zone),
        "pixels": zone.to_dict(),
        "cells": cells.to_dict(),
        "mu": {k: dead_zone_activity(e.raw, cells.mask).tolist() for k, e in maps.items()},
        "uniform": cells.uniform,
        "fixed_output": float(maps["gradcam"].raw.double().mean()),
        "argmax_output": float(predicted.raw.double().mean()),
    }
    return record, Illustration.of(
        "digits",
        "Digits through a random network whose dense layer ignores the lower half of the map; in the red frame, no "
        "pixel can change any output. Methods with one weight per channel light up the digit's lower half too.",
        zone_grid(drawn, zone, [f"digit {digit}" for digit in _DIGITS]),
    )  # fmt: skip


def _padded(digits: Tensor) -> Tensor:
    """Digits as images ``(N, 1, 29, 29)`` in [0, 1]: a row is added on top and a column at the right."""
    return torch.nn.functional.pad(digits[:, None].float() / 255, (0, 1, 1, 0))


# -------------------------------------------------------------------------------------------- words


def _theorem_verdict(found: Mapping[str, Any]) -> Verdict:
    right = found["z"] < LARGEST_Z and found["above_bound"]
    said = _SAY["expectation"].of(
        {**found, "most": LARGEST_Z, "side": _SIDES[found["above_bound"]]}
    )
    return Verdict(
        f"Theorem 1, {found['filters']} filters", "pass" if right else "fail", said, found["z"], LARGEST_Z,
        "largest |z|",
    )  # fmt: skip


def _autograd_verdict(found: Mapping[str, Any]) -> Verdict:
    right = found["z"] < LARGEST_Z
    said = _SAY["residual" if found["residual"] else "autograd"].of({**found, "most": LARGEST_Z})
    return Verdict(
        f"Theorem 1 by autograd, {found['net']}", "pass" if right else "fail", said, found["z"], LARGEST_Z,
        "largest |z|",
    )  # fmt: skip


def _digit_verdict(name: str, shown: Mapping[str, Any]) -> Verdict:
    values = shown["mu"][name]
    evidence = decided(values, most=THRESHOLD)
    said = _SAY["lit" if max(values) else "quiet"].of(
        {"mean": evidence.value, "uniform": shown["uniform"]}
    )
    return Verdict(
        f"digits: {name}",
        evidence.outcome,
        said,
        evidence.value,
        THRESHOLD,
        "dead-zone activity",
        evidence=evidence,
    )


def _summary(
    theory: Sequence[Verdict], expected: Mapping[str, Verdict], digits: Mapping[str, Verdict]
) -> str:
    held = sum(v.outcome == "pass" for v in theory)
    text = f"{held} of {len(theory)} statements of the theory hold here."
    for where, found in (("In random networks", expected), ("On digits", digits)):
        lit = [name for name, v in found.items() if v.outcome == "fail"]
        quiet = [name for name, v in found.items() if v.outcome == "pass"]
        if found:
            text += (
                f" {where}, {', '.join(lit) or 'no method'} light{'s' * (len(lit) == 1)} up what cannot be seen; "
                f"{', '.join(quiet) or 'none'} stay{'s' * (len(quiet) == 1)} dark there."
            )
    return text


def _proposition_table(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = {
        "layers": Column("dense layers"), "filters": Column("filters"), "compared": Column("networks x images"),
        "difference": Column("largest relative difference", digits=2),
    }  # fmt: skip
    return Table.of("proposition-1", "Proposition 1 against autograd, float64", found, columns)


def _theorem_table(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = {
        "filters": Column("filters"), "draws": Column("networks"), "z": Column("largest |z|", places=2),
        "sampled": Column("mean, sampled"), "exact": Column("mean, exact"), "bound": Column("mean, bound"),
        "share": Column("bound / exact", places=3),
        "ratio": Column("dead half / seen half, per norm of the patch", places=3),
    }  # fmt: skip
    return Table.of(
        "theorem-1",
        "Theorem 1: mean of GradCAM over random networks, 14 x 14 image, 3 x 3 filters",
        found,
        columns,
        legend="z is the distance from the exact expectation in standard errors, the largest of 144 cells, which are "
        "strongly correlated. The last column is 1 in theory.",
    )


def _digit_table(shown: Mapping[str, Any], count: int) -> Table:
    rows = [
        (name, *(100 * n for n in (*mean_std(shown["mu"][name]), shown["uniform"])))
        for name in _SHOWN
    ]
    columns = [Column(k, places=1) for k in ("method", "mean", "std", "constant map")]
    caption = f"{count} digits behind a wall, 256 random filters: μ x 100 on the dead rows"
    return Table.of_rows("digits", caption, columns, rows)


def _filter_chart(found: Sequence[Mapping[str, Any]]) -> Illustration:
    first = found[0]
    filters = range(1, max(t["filters"] for t in found) + 1)
    scale = first["exact"] / expected_root(first["filters"])
    unit = first["bound"] * math.sqrt(first["filters"]) / (first["filters"] - 20)
    drawn = [t["sampled"] for t in found]
    low, high = ([t["sampled"] + side * 4 * t["error"] for t in found] for side in (-1, 1))
    caption = (
        "Expected brightness against the number of filters, at the mean norm of a patch; the exact value lies above "
        "the paper's bound, and sampled networks lie on it, within four standard errors."
    )
    curves = [
        Line("exact", filters, [scale * expected_root(v) for v in filters], style=0),
        Line("bound", filters, [unit * max(v - 20, 0) / math.sqrt(v) for v in filters], style=1),
        Line("sampled", [t["filters"] for t in found], drawn, low, high, 2),
    ]
    title, label = (
        "Expected brightness by the number of filters",
        f"GradCAM at a patch of norm {first['norm']:.2f}",
    )
    return Illustration.chart(
        lines, "theorem", title, caption, curves, x_label="filters", y_label=label
    )


def _row_chart(shown: Mapping[str, Any]) -> Illustration:
    rows = range(len(shown["rows_exact"]))
    caption = f"Mean over each row of the map; nothing changes where the dead half begins, at row {len(rows) // 2}."
    curves = [
        Line(name, rows, shown[f"rows_{name}"], style=i)
        for i, name in enumerate(("exact", "bound", "sampled"))
    ]
    return Illustration.chart(
        lines, "rows", "Expected brightness by the row of the map", caption, curves, x_label="row of the map",
        y_label=f"GradCAM, {shown['filters']} filters", y_range=(0, max(shown["rows_exact"])),
    )  # fmt: skip
