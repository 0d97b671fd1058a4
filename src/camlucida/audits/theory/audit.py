"""``audit theory``: the paper's proposition, theorem and MNIST illustration, computed and drawn."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.audits.deadzone.figures import framed
from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.theory.theorems import (
    LAYER,
    Theorem1,
    TheoryCNN,
    expected_root,
    proposition_1,
)
from camlucida.audits.verdicts import Sentence, Verdict
from camlucida.common.progress import Say
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.data.digits import mnist
from camlucida.engine.maps import resize
from camlucida.engine.tap import tap
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.explanation.overlays import View, grid, overlay
from camlucida.metrics.concentration import dead_zone_activity
from camlucida.report import Table
from camlucida.report.tables import number
from camlucida.targets import Logit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLERANCE = 1e-12
"""Largest difference of Proposition 1 from autograd that passes, relative to the largest weight."""

LARGEST_Z = 4.0
"""Largest distance from the exact expectation, in standard errors, that passes at any of 144 cells."""

FILTERS = (24, 32, 64)
_SHOWN = ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam")
_DIGITS = (0, 3, 5, 7)


_CLOSED = Sentence(
    "closed form",
    "The closed form of GradCAM's channel weights differs from autograd by at most {worst:.1e} of the largest weight, "
    "over 1 to 4 dense layers and 1 to 32 filters (at most {most:.0e} passes).",
)
_SAMPLED = Sentence(
    "expectation",
    "The mean of GradCAM over {draws} random networks lies within {z:.1f} standard errors of the exact expectation at "
    "each of 144 cells (at most {most:g} passes), and {side}. Per norm of the patch, dead cells are {ratio:.3f} times "
    "as bright as seen ones.",
)
_ZERO = Sentence("quiet", "Exactly zero on the dead rows.")
_LIT = Sentence(
    "lit",
    "{mean:.1 %} of the map's norm lies on rows that provably change nothing (a constant map: {uniform:.1 %}).",
)


def audit_theory(
    *,
    quick: bool = True,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """Check the theory behind the walls, and draw it.

    Args:
        quick: 4,000 random networks for each number of filters instead of 40,000, and 20 digits instead of
            200.
        seed: of weights and images.
        folder: where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress.
    """
    report = say or (lambda *_: None)
    draws, digits = (4_000, 20) if quick else (40_000, 200)
    store = Store(folder, {"audit": "theory", "draws": draws, "seed": seed})
    propositions = store.value("proposition-1", lambda: _propositions(seed, report))
    theorems = [
        store.value(f"theorem-1-{v}", partial(_theorem, v, draws, seed, report))
        for v in (*FILTERS, *(() if quick else (256,)))
    ]
    report("digits behind a wall", 0, 1)
    mnist, picture = _illustration(digits, seed)
    report("digits behind a wall", 1, 1)
    worst = max(p["difference"] for p in propositions)
    verdicts = [
        Verdict(
            "Proposition 1",
            "pass" if worst <= TOLERANCE else "fail",
            _CLOSED(worst=worst, most=TOLERANCE),
            worst,
            TOLERANCE,
            "largest relative difference",
        ),
        *(_theorem_verdict(t) for t in theorems),
    ]
    shown = {name: _mnist_verdict(name, mnist) for name in _SHOWN}
    fixed, arg = mnist["fixed_output"], mnist["argmax_output"]
    return AuditReport(
        "theory",
        "Why weights for whole channels see through walls",
        "GradCAM weights each channel by the mean of its gradient over the whole map, dead part included, and so "
        "lights up any place where a channel is active, whether the rest of the model sees it or not. For a "
        "convolution, ReLU, pooling and dense layers without biases this is exact (Proposition 1), and for random "
        "weights the expected brightness of a cell depends on the patch under it alone, not on whether it is dead "
        "(Theorem 1; the paper gives a lower bound, here the exact value is computed too).\n"
        f"The illustration is a random network on digits: {mnist['zone']}. With a fixed output, GradCAM's mean is "
        f"{fixed:.3g}; explaining the largest of 10 outputs instead is not what the theorem speaks of, and biased "
        f"upward: {arg:.3g}.",
        _summary(verdicts, shown),
        (*verdicts, *shown.values()),
        (
            Table.of_rows(
                "proposition-1",
                "Proposition 1 against autograd, float64",
                ("dense layers", "filters", "networks x images", "largest relative difference"),
                tuple(
                    (p["layers"], p["filters"], p["compared"], f"{p['difference']:.1e}")
                    for p in propositions
                ),
            ),
            Table.of_rows(
                "theorem-1",
                "Theorem 1: mean of GradCAM over random networks, 14 x 14 image, 3 x 3 filters",
                ("filters", "networks", "largest |z|", "mean, sampled", "mean, exact", "mean, bound",
                 "bound / exact", "dead half / seen half, per norm of the patch"),
                tuple(
                    (t["filters"], t["draws"], number(t["z"], 2), t["sampled"], t["exact"], t["bound"],
                     number(t["bound"] / t["exact"], 3), number(t["ratio"], 3))
                    for t in theorems
                ),
                "z is the distance from the exact expectation in standard errors, the largest of 144 cells, which are "
                "strongly correlated. The last column is 1 in theory.",
            ),
            Table.of_rows(
                "digits",
                f"{digits} digits behind a wall, 256 random filters: μ x 100 on the dead rows",
                ("method", "mean ± std", "constant map"),
                tuple(
                    (name, _plus_minus(mnist["mu"][name]), number(100 * mnist["uniform"]))
                    for name in _SHOWN
                ),
            ),
        ),
        (
            picture,
            Illustration.of(
                "theorem",
                "Left: expected brightness against the number of filters, at the mean norm of a patch; the exact value "
                "lies above the paper's bound, and sampled networks lie on it. Right: mean over each row of the map; "
                "nothing changes where the dead half begins.",
                _theorem_figure(theorems),
            ),
        ),
        {
            "quick": quick,
            "seed": seed,
            "proposition_1": propositions,
            "theorem_1": theorems,
            "mnist": mnist,
        },
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- pieces


def _propositions(seed: int, report: Say) -> list[dict[str, Any]]:
    found = []
    hidden: tuple[tuple[int, ...], ...] = ((), (12,), (12, 9), (12, 9, 7))
    for layers, widths in enumerate(hidden, 1):
        for filters in (1, 8, 32):
            worst, networks, images = 0.0, 5, 4
            for draw in range(networks):
                model = TheoryCNN(
                    (14, 14),
                    filters=filters,
                    hidden=widths,
                    outputs=3,
                    dead_rows=3,
                    seed=seed + draw,
                ).double()
                generator = torch.Generator().manual_seed(seed + draw)
                x = torch.rand(images, 1, 14, 14, generator=generator, dtype=torch.float64)
                _, gradient = tap(model, x, LAYER, Logit(1)).only
                expected, closed = gradient.mean((2, 3)), proposition_1(model, x, 1)
                largest = float(expected.abs().max())
                worst = max(worst, float((closed - expected).abs().max()) / (largest or 1.0))
            found.append(
                {
                    "layers": layers,
                    "filters": filters,
                    "compared": networks * images,
                    "difference": worst,
                }
            )
        report("Proposition 1", layers, len(hidden))
    return found


def _theorem(filters: int, draws: int, seed: int, report: Say) -> dict[str, Any]:
    theorem = Theorem1(filters=filters)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(14, 14, generator=generator, dtype=torch.float64)

    def progress(done: float, total: float) -> None:
        report(f"Theorem 1, {filters} filters", done, total)

    sampled = theorem.sample(image, draws, seed=seed + filters, progress=progress)
    exact, bound = theorem.exact(image), theorem.bound(image)
    per_norm = sampled.mean / theorem.patch_norms(image)
    half = theorem.map_size[0] // 2
    return {
        "filters": filters,
        "draws": draws,
        "z": float(sampled.z(exact).abs().max()),
        "above_bound": bool((sampled.mean > bound).all()),
        "sampled": float(sampled.mean.mean()),
        "error": float(sampled.error.mean()),
        "exact": float(exact.mean()),
        "bound": float(bound.mean()),
        "ratio": float(per_norm[half:].mean() / per_norm[:half].mean()),
        "norm": float(theorem.patch_norms(image).mean()),
        "rows_sampled": sampled.mean.mean(1).tolist(),
        "rows_exact": exact.mean(1).tolist(),
        "rows_bound": bound.mean(1).tolist(),
    }


def _theorem_verdict(found: Mapping[str, Any]) -> Verdict:
    right = found["z"] < LARGEST_Z and found["above_bound"]
    side = (
        "above the paper's bound everywhere"
        if found["above_bound"]
        else "below the bound somewhere"
    )
    numbers = {k: found[k] for k in ("draws", "z", "ratio")}
    return Verdict(
        f"Theorem 1, {found['filters']} filters", "pass" if right else "fail",
        _SAMPLED(**numbers, most=LARGEST_Z, side=side), found["z"], LARGEST_Z, "largest |z|",
    )  # fmt: skip


def _mnist_verdict(name: str, mnist: Mapping[str, Any]) -> Verdict:
    mean, zero = mean_std(mnist["mu"][name])[0], max(mnist["mu"][name]) == 0
    return Verdict(
        f"digits: {name}", "pass" if zero else "fail",
        _ZERO if zero else _LIT(mean=mean, uniform=mnist["uniform"]), mean, 0.0, "dead-zone activity",
    )  # fmt: skip


def _illustration(count: int, seed: int) -> tuple[dict[str, Any], Illustration]:
    """The paper's Figure 3: digits, a random network of 256 filters, and a wall over half of the map."""
    model = TheoryCNN((29, 29), filters=256, kernel=2, outputs=10, dead_rows=7, seed=seed)
    images = _digits(count, seed)
    zone = dead_zone(model, images[:4], draws=2, seed=seed)
    cells = dead_zone(model, images[:4], LAYER, draws=2, seed=seed)
    maps = {name: explain(model, images, method=name, target=0, layers=LAYER) for name in _SHOWN}
    mu = {name: dead_zone_activity(e.raw, cells.mask).tolist() for name, e in maps.items()}
    predicted = explain(model, images, method="gradcam", layers=LAYER)
    record = {
        "zone": str(zone),
        "pixels": zone.to_dict(),
        "cells": cells.to_dict(),
        "mu": mu,
        "uniform": cells.uniform,
        "fixed_output": float(maps["gradcam"].raw.double().mean()),
        "argmax_output": float(predicted.raw.double().mean()),
    }
    first = [_first_of(images, seed, digit) for digit in _DIGITS]
    few = torch.stack(first)
    drawn = {name: explain(model, few, method=name, target=0, layers=LAYER) for name in _SHOWN}
    return record, Illustration.of(
        "digits",
        "Digits through a random network whose dense layer ignores the lower half of the map; in the red frame, no "
        "pixel can change any output. Methods with one weight per channel light up the digit's lower half too.",
        _digit_figure(few, drawn, zone),
    )


def _digits(count: int, seed: int) -> Tensor:
    """Random digits ``(N, 1, 29, 29)`` in [0, 1]: a row is added on top and a column at the right."""
    digits, _ = mnist()
    chosen = torch.randint(5000, (count,), generator=torch.Generator().manual_seed(seed))
    return _padded(torch.from_numpy(digits.reshape(5000, 28, 28)[chosen.numpy()]))


def _first_of(images: Tensor, seed: int, digit: int) -> Tensor:
    digits, _ = mnist()
    return _padded(torch.from_numpy(digits[digit, seed % 500][None].copy()))[0].to(images)


def _padded(digits: Tensor) -> Tensor:
    return torch.nn.functional.pad(digits[:, None].float() / 255, (0, 1, 1, 0))


def _digit_figure(images: Tensor, maps: Mapping[str, Explanation], zone: DeadZone) -> Figure:
    side = 29 * 6
    rows = []
    for i, image in enumerate(images):
        levels = (resize(image, (side, side), "nearest")[0] * 255).byte().numpy()
        photo = Image.fromarray(np.stack([levels] * 3, -1))
        view = View(photo, (0, 0, side, side))
        rows.append(
            [framed(photo, zone), *(framed(overlay(view, e.maps[i]), zone) for e in maps.values())]
        )
    return grid(rows, columns=["digit", *maps], cell=1.5)


def _theorem_figure(found: Sequence[Mapping[str, Any]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    norm = found[0]["norm"]
    filters = list(range(1, max(t["filters"] for t in found) + 1))
    scale = found[0]["exact"] / expected_root(found[0]["filters"])
    left.plot(
        filters, [scale * expected_root(v) for v in filters], "-", color="black", label="exact"
    )
    theorems = [Theorem1(filters=v) for v in filters]
    unit = found[0]["bound"] * _root(found[0]["filters"]) / (found[0]["filters"] - 20)
    left.plot(
        filters,
        [unit * max(t.filters - 20, 0) / _root(t.filters) for t in theorems],
        "--",
        color="0.4",
        label="the paper's lower bound",
    )
    left.errorbar(
        [t["filters"] for t in found],
        [t["sampled"] for t in found],
        [4 * t["error"] for t in found],
        fmt="o",
        color="black",
        mfc="white",
        capsize=3,
        label="random networks, 4 standard errors",
    )
    left.set_xlabel("filters")
    left.set_ylabel(f"GradCAM at a patch of norm {norm:.2f}")
    left.legend(fontsize=7)
    shown = found[min(1, len(found) - 1)]
    rows = range(len(shown["rows_exact"]))
    right.plot(rows, shown["rows_exact"], "-", color="black", label="exact")
    right.plot(rows, shown["rows_bound"], "--", color="0.4", label="the paper's lower bound")
    right.plot(
        rows, shown["rows_sampled"], "o", color="black", mfc="white", label="random networks"
    )
    half = len(shown["rows_exact"]) / 2 - 0.5
    right.axvspan(
        half, len(shown["rows_exact"]) - 0.5, facecolor="0.9", edgecolor="0.6", hatch="//"
    )
    right.text(half + 0.1, 0, " dead half", va="bottom", fontsize=8)
    right.set_ylim(0, None)
    right.set_xlabel("row of the map")
    right.set_ylabel(f"GradCAM, {shown['filters']} filters")
    right.legend(fontsize=7)
    return figure


def _root(filters: int) -> float:
    return math.sqrt(filters)


def _plus_minus(values: Sequence[float]) -> str:
    mean, std = mean_std(values)
    return f"{number(100 * mean)} ± {number(100 * std)}"


def _summary(theory: Sequence[Verdict], digits: Mapping[str, Verdict]) -> str:
    held = sum(v.outcome == "pass" for v in theory)
    lit = [name for name, v in digits.items() if v.outcome == "fail"]
    quiet = [name for name in digits if name not in lit]
    return (
        f"{held} of {len(theory)} statements of the theory hold here. On digits, "
        f"{', '.join(lit) or 'no method'} light{'s' if len(lit) == 1 else ''} up what cannot be seen; "
        f"{', '.join(quiet) or 'none'} stay{'s' if len(quiet) == 1 else ''} at exactly zero there."
    )
