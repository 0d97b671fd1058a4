"""What a margin subtracts from a logit: how much it varies, by simulation without signal (DiffGradCAM, 4.3 to 4.5)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch

from camlucida.audits.fooling.figures import residual_figure
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.verdicts import Outcome, Verdict, sentences
from camlucida.common.errors import CamlucidaError
from camlucida.common.store import Store
from camlucida.report import Column, Table

_SAY = sentences("""
mean: In {ordered} of {settings} settings the mean varies least and the maximum most; the mean's variance is σ²/(M − 1)
    within {off:.1 %}, the bound is 10 %.
soft maximum: For σ up to {small:g} it holds within {off:.1 %}, the bound is 15 %; at σ = {sigma:g} the distance is
    {gap:.2f}, and σ²/2 {half_square:.2f}: the lemma is one for small residuals.
maximum: With {classes:g} classes the published formula is {published:.2f} times what is measured; with 12 in place of 6
    under the fraction it is {corrected:.2f} times.
too few: {draws} draws are too few to tell.
""")


def simulate(classes: int, sigma: float, draws: int = 20_000, seed: int = 0) -> dict[str, float]:
    r"""What the aggregators do with M - 1 independent Gaussian residuals.

    Lemma 1: the mean has the least variance, $\sigma^2/(M-1)$. Lemma 2: $|b_{soft} - b_{mean}| = \sigma^2/2$ up to
    higher orders, with $b_{soft}$ the log of the average exp. The variance of the maximum is $\pi^2\sigma^2/(12
    \ln(M-1))$ for large M; the paper has 6 for 12.

    Returns:
        Measured variances, the mean distance ``gap``, and the formulas.
    """
    generator = torch.Generator().manual_seed(seed)
    rivals = classes - 1
    parts = []
    step = max(1, 4_000_000 // rivals)
    for start in range(0, draws, step):
        z = sigma * torch.randn(
            min(step, draws - start), rivals, generator=generator, dtype=torch.float64
        )
        soft = z.logsumexp(1) - math.log(rivals)
        parts.append(torch.stack([z.mean(1), soft, z.amax(1)]))
    mean, soft, top = torch.cat(parts, 1)
    return {
        "classes": classes,
        "sigma": sigma,
        "var_mean": float(mean.var()),
        "var_lae": float(soft.var()),
        "var_max": float(top.var()),
        "gap": float((soft - mean).abs().mean()),
        "formula_mean": sigma**2 / rivals,
        "formula_max": math.pi**2 * sigma**2 / (12 * math.log(rivals)) if rivals > 1 else sigma**2,
        "published_max": math.pi**2 * sigma**2 / (6 * math.log(rivals)) if rivals > 1 else sigma**2,
        "half_square": sigma**2 / 2,
    }


def audit_residual_logits(
    *,
    classes: Sequence[int] = (3, 10, 30, 100, 300, 1000),
    sigmas: Sequence[float] = (0.1, 0.3, 1.0, 2.0, 3.0),
    draws: int = 20_000,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> AuditReport:
    """The residual-logit lemmas against simulation, with a plot.

    Args:
        classes: numbers of classes.
        sigmas: standard deviations of a residual.
        draws: images per point.
        seed: of the draws.
        out: the folder where finished parts are kept.

    Raises:
        CamlucidaError: fewer than three classes or two draws, or a deviation that is not positive.

    Example:
        >>> report = camlucida.audits.audit_residual_logits(classes=(3, 10), draws=100)
        >>> [verdict.subject for verdict in report.verdicts][2]
        'Variance of the maximum'
    """
    if min(classes) < 3:
        raise CamlucidaError(f"three classes or more leave two rivals, got {min(classes)}")
    if draws < 2 or not all(math.isfinite(s) and s > 0 for s in sigmas):
        raise CamlucidaError("two draws or more are needed, and positive standard deviations")
    store = Store(out, {"audit": "residual-logits", "draws": draws, "seed": seed})
    most = max(classes)

    def point(m: int, sigma: float) -> dict[str, float]:
        return store.value(f"{m}-{sigma}", lambda: simulate(m, sigma, draws, seed))  # type: ignore[no-any-return]

    by_classes = [point(m, 1.0) for m in classes]
    by_sigma = [point(most, s) for s in sigmas]
    settings = {(r["classes"], r["sigma"]): r for r in (*by_classes, *by_sigma)}.values()
    by_size = sorted(by_sigma, key=lambda r: r["sigma"])
    verdicts = _verdicts(by_classes, by_size, list(settings), draws)
    low, high = by_size[0], by_size[-1]

    def times(row: dict[str, float], what: str) -> str:
        return f"{row[f'var_{what}'] / row['var_mean']:.3g}"

    held = verdicts[0].outcome == "pass"
    record = {"sigma": 1.0, "by_classes": by_classes, "by_sigma": by_sigma, "seed": seed}
    return AuditReport(
        "residual-logits",
        "What a margin subtracts, on logits without signal",
        "A margin subtracts something made of the rivals' logits. Here these are Gaussian noise of standard "
        f"deviation σ, {draws} draws for each setting; what varies less adds less noise to a map.",
        ("The mean of the rivals is the steadiest thing to subtract. " if held else "")
        + f"With {most:g} classes the log of the average exp varies {times(low, 'lae')} times as much as the mean at "
        f"σ = {low['sigma']:g} and {times(high, 'lae')} times at σ = {high['sigma']:g}; the maximum "
        f"{times(low, 'max')} and {times(high, 'max')} times.",
        verdicts,
        (Table.of("measured", "Measured", settings, _COLUMNS),),
        (
            Illustration.of(
                "variance",
                "Left: variance of what is subtracted, by number of classes. Right: distance of the log of the "
                "average exp from the mean, by σ.",
                residual_figure(record),
            ),
        ),
        record,
    )


_COLUMNS = {
    "classes": Column("classes"),
    **{
        key: Column(title, digits=3)
        for key, title in {
            "sigma": "σ", "var_mean": "var mean", "var_lae": "var log-average-exp", "var_max": "var max",
            "gap": "distance", "half_square": "σ²/2",
        }.items()
    },
}  # fmt: skip


def _verdicts(
    by_classes: Sequence[dict[str, float]],
    by_size: Sequence[dict[str, float]],
    settings: Sequence[dict[str, float]],
    draws: int,
) -> tuple[Verdict, ...]:
    largest = max(by_classes, key=lambda r: r["classes"])
    ordered = sum(r["var_mean"] <= r["var_lae"] <= r["var_max"] for r in settings)
    mean_off = max(abs(r["var_mean"] / r["formula_mean"] - 1) for r in by_classes)
    small = [r for r in by_size if r["sigma"] <= 0.3] or [by_size[0]]
    gap_off = max(abs(r["gap"] / r["half_square"] - 1) for r in small)
    twice, ours = (largest[k] / largest["var_max"] for k in ("published_max", "formula_max"))
    # Of few draws the variance itself is known to no better than this.
    enough = 4 * math.sqrt(2 / (draws - 1)) < 0.1
    wrong: Outcome = "fail" if enough else "warn"
    hint = () if enough else (_SAY["too few"](draws=draws),)
    steadiest = _SAY["mean"](ordered=ordered, settings=len(settings), off=mean_off)
    soft = _SAY["soft maximum"](small=small[-1]["sigma"], off=gap_off, **by_size[-1])
    top = _SAY["maximum"](published=twice, corrected=ours, **largest)
    first: Outcome = "pass" if ordered == len(settings) and mean_off < 0.1 else wrong
    second: Outcome = "pass" if gap_off < 0.15 else wrong
    return (
        Verdict(
            "Lemma 1: the mean is steadiest", first, (steadiest, *hint), mean_off, 0.1,
            "relative error of the variance of the mean",
        ),
        Verdict(
            "Lemma 2: the soft maximum is the mean plus σ²/2", second, soft, gap_off, 0.15, "relative error of σ²/2"
        ),
        Verdict("Variance of the maximum", "warn", top, twice, 1.0, "published over measured"),
    )  # fmt: skip
