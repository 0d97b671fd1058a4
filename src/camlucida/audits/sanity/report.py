"""The report of the sanity audit: verdicts, tables and a picture from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camlucida.audits.candidates import Candidate
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.sanity.checks import ALIKE, CHECKS
from camlucida.audits.sanity.models import spread_over
from camlucida.audits.sanity.verdicts import known, likeness, mark, verdict
from camlucida.audits.verdicts import ENOUGH, Verdict, by_outcome
from camlucida.common.statistics import mean_std
from camlucida.report import Table
from camlucida.report.charts import Line, lines
from camlucida.report.tables import number

ABOUT = (
    "An explanation that looks right may have nothing to do with the model. Each method is put through checks "
    "whose right answer is known: its map must change when the weights, the labels or the class change, and must "
    "stay when something changes that no prediction notices."
)


@dataclass(frozen=True)
class SanityNumbers:
    """What was measured, before it is put in words.

    Attributes:
        tested: the methods.
        stages: the groups of modules that were redrawn, from the output down.
        cascade: for each method, for each stage the numbers, all stages up to it being redrawn; ``None`` where
            it was left out.
        alone: the same with one stage redrawn at a time; empty unless asked for.
        results: of each method, by check.
        twins: accuracy of the networks with true and shuffled labels; empty where they could not be trained.
        record: what was audited, ready for JSON.
        resumed: parts that were kept from an earlier run.
    """

    tested: tuple[Candidate, ...]
    stages: tuple[tuple[str, ...], ...]
    cascade: Mapping[str, Sequence[Mapping[str, Any] | None]]
    alone: Mapping[str, Sequence[Mapping[str, Any] | None]]
    results: Mapping[str, Mapping[str, Verdict]]
    twins: Mapping[str, float]
    record: Mapping[str, Any]
    resumed: int


def report_of(found: SanityNumbers) -> AuditReport:
    """The numbers with their verdicts, tables and picture."""
    verdicts = tuple(verdict(label, checks) for label, checks in found.results.items())
    counts = {outcome: len(names) for outcome, names in by_outcome(verdicts).items()}
    summary = (
        f"{counts['pass']} of {len(verdicts)} passed every check that could be made; {counts['warn']} with caution, "
        f"{counts['fail']} failed a check without which a map cannot be trusted"
        + (f"; of {counts['unclear']} this was not enough to tell." if counts["unclear"] else ".")
    )
    if counts["not tested"]:
        summary += f" {counts['not tested']} could not be tested."
    used = found.record["images"]["used"]
    if used < ENOUGH:
        summary += f" This was measured on {_images(used)}: on more, the numbers say more."
    overview = Table.of_rows(
        "checks",
        "Every check: ✓ passed, ✗ failed, – not tested, with its number",
        ("method", *(check.title for check in CHECKS.values())),
        [(label, *(mark(of[key]) for key in CHECKS)) for label, of in found.results.items()],
        "Numbers are explained in the table of the checks.",
    )
    explained = Table.of_rows(
        "bounds",
        "The checks and their bounds",
        ("check", "question", "number", "bound"),
        [(c.title, c.asks, c.measure, c.bound) for c in CHECKS.values()],
    )
    likeness_of = "rank correlation of the maps with those of the model, signed / absolute / SSIM"
    tables = [
        _cascade(name, f"{how}: {likeness_of}", found.stages, steps)
        for name, how, steps in (
            (
                "cascade",
                "From the output layer down, more and more weights are redrawn",
                found.cascade,
            ),
            ("alone", "One group of weights redrawn at a time", found.alone),
        )
        if steps
    ]
    pictures = (_cascade_chart(found),) if len(found.stages) > 1 else ()
    model = found.record["model"]
    layer = found.record["explained_layer"]
    tested = f"{ABOUT}\n{model}: {_images(used)}, the predicted class"
    tested += f", the layer {layer}." if layer else "; it has no feature map."
    if unread := found.record["images"]["skipped"]:
        tested += f" {len(unread)} more could not be read; the first: {unread[0]}"
    if found.twins:
        tested += (
            f"\nThe labels were shuffled for a small network on MNIST digits, which learned "
            f"{100 * found.twins['shuffled']:.0f} % of them by heart; its twin with true labels gets "
            f"{100 * found.twins['test']:.0f} % of fresh digits right."
        )
    return AuditReport(
        "sanity",
        f"Sanity checks on {model}",
        tested,
        summary,
        verdicts,
        (overview, explained, *tables),
        pictures,
        {
            **found.record,
            "cascade": found.cascade,
            "alone": found.alone,
            "twins": found.twins,
            "options": {t.label: dict(t.options) for t in found.tested},
            "resumed_parts": found.resumed,
        },
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _cascade_chart(found: SanityNumbers) -> Illustration:
    curves = []
    for i, (label, steps) in enumerate(found.cascade.items()):
        values = [(0, 1.0)]  # as trained
        for place, step in enumerate(steps, 1):
            value = None if step is None or "error" in step else likeness(step)
            values += [] if value is None else [(place, value)]
        curves.append(Line(label, [x for x, _ in values], [y for _, y in values], style=i))
    ends = [0, len(found.stages)]
    curves += [Line("bound", ends, [side * ALIKE] * 2, quiet=True) for side in (1, -1)]
    stages = "; ".join(f"{i} {spread_over(stage)}" for i, stage in enumerate(found.stages, 1))
    caption = (
        "How alike maps stay while weights are redrawn from the output layer (left) down to the input (right): rank "
        "correlation, signed or of absolute values, whichever is further from 0. A method that depends on the model "
        f"falls to 0; the grey lines are the bounds. Redrawn down to: {stages}."
    )
    return Illustration.chart(
        lines, "cascade", "Likeness while weights are redrawn", caption, curves, height=max(380, 60 + 14 * len(curves)),
        x_label="groups of weights redrawn", y_label="rank correlation with the model's map",
    )  # fmt: skip


def _cascade(
    name: str,
    title: str,
    stages: Sequence[Sequence[str]],
    found: Mapping[str, Sequence[Mapping[str, Any] | None]],
) -> Table:
    def cell(part: Mapping[str, Any] | None) -> str | None:
        if part is None or "error" in part:
            return None
        means = (mean_std(known(part.get(key, ())))[0] for key in ("signed", "absolute", "ssim"))
        return " / ".join(number(mean, 2) for mean in means)

    return Table.of_rows(
        name,
        title,
        ("method", *(spread_over(stage) for stage in stages)),
        [(label, *map(cell, steps)) for label, steps in found.items()],
        "A dash where maps are constant or too small (SSIM needs 11 pixels), or where the stage was left out of "
        "the quick audit.",
    )
