"""The fooling audit of two given models: what did a fine-tuning do to the maps?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.candidates import Candidate, with_margins
from camlucida.audits.fooling.compare import CLEAN, Compared, Sides
from camlucida.audits.fooling.figures import moves_drawn
from camlucida.audits.fooling.measure import CORE, compare_with
from camlucida.audits.fooling.tables import model_table, susceptibility_table
from camlucida.audits.fooling.verdicts import ABOUT, KEPT, WORKED, summary, verdict
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial
from camlucida.common.statistics import mean_std
from camlucida.explanation.subject import ModelLike
from camlucida.training.sham import Layout

FOOLED, CONTROL = "fooled", "control"
GUIDED = Candidate("gradcam", "guideline")


def audit_fooled(
    clean: ModelLike,
    fooled: ModelLike,
    data: AuditData,
    *,
    control: ModelLike | None = None,
    per_class: int | None = None,
    layout: Layout | Tensor = "rounded",
    **options: Any,
) -> AuditReport:
    """Which methods' maps did a fine-tuning move, such as ``camlucida train sham``?

    Every method explains the same images on both models, batch by batch: any number of photos fits.

    Args:
        clean: as it was.
        fooled: as it is; a module, a name, or a file with weights for the clean model's architecture.
        data: a data set, also as ``camlucida evaluate`` takes it; or a tensor of images that are ready and one of
            labels. An image without a label is explained for the class that the clean model predicts.
        control: the clean model after the same training without an attack.
        per_class: draw so many photos of each class; by default every one is used.
        layout: of the mask that maps were pushed to, see :func:`camlucida.training.sham_mask`.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: a model or the photos cannot be opened, or do not fit each other.

    Example:
        >>> labelled = torch.rand(2, 3, 32, 32), torch.arange(2)
        >>> report = camlucida.audits.audit_fooled(model, model, labelled, methods=["gradcam"])
        >>> report["gradcam"].details["susceptibility"]
        0.0
    """
    request = Request.of(audit_fooled, clean, data, options)
    others = {FOOLED: fooled} | ({} if control is None else {CONTROL: control})
    sides = Sides.open(request, others, per_class)
    plain = request.methods is None and request.quick
    methods = CORE if plain else with_margins(request.tested(everything=True), quick=request.quick)
    compared = sides.compare((*methods, GUIDED), layout=layout, say=request.say)
    return _report(sides, compared, methods, quick=request.quick)


def _report(
    sides: Sides, compared: Compared, methods: tuple[Candidate, ...], *, quick: bool
) -> AuditReport:
    found = compared.moves[FOOLED]
    quiet: Mapping[str, Any] = compared.moves.get(CONTROL, {})
    before, after, reached = (
        compared.accuracy(),
        compared.accuracy(FOOLED),
        compared.reached(FOOLED),
    )
    worked, broke = reached >= WORKED, after < before - KEPT
    verdicts = tuple(
        verdict(one, found[one.label], quiet.get(one.label), worked=worked, broke=broke)
        for one in methods
    )
    rows = [
        (
            name,
            compared.accuracy(name),
            *mean_std(compared.entropy[name]),
            mean_std(compared.far[name])[0],
        )
        for name in (CLEAN, *sides.others)
    ]
    pictures = moves_drawn(
        _few(sides), sides.others[FOOLED], compared.mask, methods, found, quiet, sides.named
    )
    return AuditReport(
        "sham",
        "Fooling audit of two given models",
        f"{ABOUT}\nBoth models were given: {sides.trial.name} and one with other weights, on {compared.images} images"
        f"{f' of {sides.of}' if sides.of else ''}; layer {sides.trial.layer}. The accuracy was {before:.3f} and is "
        f"{after:.3f}; the attacked map has gone {100 * reached:.0f} % of the way to the mask.",
        summary(verdicts, worked=worked, broke=(before, after) if broke else None)
        + f" {said_of_guideline(compared)}",
        verdicts,
        (model_table(rows), susceptibility_table((*methods, GUIDED), found, quiet)),
        tuple(pictures),
        {
            "quick": quick,
            "model": sides.trial.name,
            "layer": sides.trial.layer,
            "data": sides.of,
            "accuracy": {name: compared.accuracy(name) for name in compared.right},
            "mask_reached": reached,
            "compared": compared.to_dict(),
            "resumed_parts": sides.store.found,
        },
    )


def said_of_guideline(compared: Compared) -> str:
    """How the guideline of section 4.6 chose, and whether that was well."""
    count, soft = compared.images, sum(compared.soft)
    middle = sorted(compared.spread)[count // 2]
    said = (
        f"The paper's guideline takes LSE for {soft} of {count} images and the mean for the others; the rivals' logits "
        f"have a standard deviation of {middle:.2g}, the median over images."
    )
    moves = compared.moves.get(FOOLED, {})
    margins = {
        a: moves.get(Candidate("gradcam", a).label, {}) for a in ("guideline", "mean", "lse")
    }
    values = {a: found.get("susceptibility", []) for a, found in margins.items()}
    if not all(values.values()):
        return said
    guided, mean, lse = (mean_std(values[a])[0] for a in values)
    best = "mean" if mean <= lse else "lse"
    p = compare_with(values, "lse")["mean"]["signed_rank"]
    well = "no worse than" if guided <= min(mean, lse) + 1e-6 else "worse than"
    return (
        f"{said} Its maps moved by {guided:.4f}, those of the mean by {mean:.4f} and of LSE by {lse:.4f} (signed-rank "
        f"between the two: p = {p:.1e}): {well} always taking the {best}."
    )


def _few(sides: Sides, count: int = 4) -> Trial:
    """Images to be drawn, spread over the data."""
    batches = sorted({i * len(sides.photos) // count for i in range(count)})
    each = (count + len(batches) - 1) // len(batches)
    parts = []
    for inputs, labels in (sides.photos[i] for i in batches):
        places = torch.linspace(0, len(inputs) - 1, min(each, len(inputs))).round().long()
        parts.append((inputs[places], labels[places]))
    inputs, labels = (torch.cat(part)[:count] for part in zip(*parts, strict=True))
    trial = replace(sides.trial, inputs=inputs, classes=labels)
    return replace(trial, classes=torch.where(labels < 0, trial.logits().argmax(1), labels))
