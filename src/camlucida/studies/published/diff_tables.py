"""Tables 1 to 3 of DiffGradCAM: what was published, and ours beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.audit import HEAD_RATE, QUICK_ATTACK, stand_in_case
from camlucida.audits.fooling.compare import Compared, Sides
from camlucida.audits.fooling.given import CONTROL, FOOLED, GUIDED, said_of_guideline
from camlucida.audits.fooling.measure import compare_with
from camlucida.audits.fooling.nets import DigitPlan, stand_in
from camlucida.audits.fooling.study import Study, described
from camlucida.audits.fooling.tune import Attack
from camlucida.audits.fooling.verdicts import KEPT, WORKED
from camlucida.audits.request import AuditData, Request
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.explanation.subject import ModelLike
from camlucida.report import Column, Table
from camlucida.studies.published.base import Reproduced, beside
from camlucida.studies.published.numbers import DIFF_TABLE1, DIFF_TABLE2, DIFF_TABLE3
from camlucida.training.salience.one_call import train_salience
from camlucida.training.salience.recipe import ARMS

VARIANTS: Mapping[str, Candidate] = {
    "GradCAM": Candidate("gradcam"),
    "EigenCAM": Candidate("eigencam"),
    "MeanDiffGradCAM": Candidate("gradcam", "mean"),
    "MaxDiffGradCAM": Candidate("gradcam", "max"),
    "LSE-DiffGradCAM": Candidate("gradcam", "lse"),
    "DiffGradCAM by the guideline": GUIDED,
    "GradCAM without ReLU (CAM)": Candidate("cam"),
}
"""The rows, by the paper's names; the last is ours, since the loss moves the map before its ReLU."""

_GUIDELINE = "DiffGradCAM by the guideline"
_STAND_IN = (
    "A small network on digits on photos stands in for DenseNet-121 on ImageNet: the structure can be compared, the "
    "values cannot."
)
_MEANS = "The published numbers are means over 5,000 validation images of ImageNet, 5 of each class, of DenseNet-121."
_TESTS = (
    Column("p against Mean, rank-sum", digits=2),
    Column("p, signed-rank", digits=2),
    Column("p, Holm", digits=2),
)


def diff_table2(
    model: ModelLike | None = None,
    data: AuditData | None = None,
    *,
    per_class: int | None = None,
    quick: bool = True,
    **options: Any,
) -> Reproduced:
    """Similarity scores: the distance of each DiffGradCAM from Grad-CAM on the same model.

    Args:
        model: a classifier; a stand-in by default.
        data: its photos, as for :func:`camlucida.audits.audit_fooled`; every one is used, batch by batch.
        per_class: draw so many photos of each class; 5 as published.
        quick: give the stand-in a shorter training.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: the model or the photos cannot be opened, or do not fit each other.
    """
    request = Request.of(diff_table2, model, data, {"quick": quick, **options})
    if model is None:
        study = _stand_in(request)
        sides = _of_stand_in(request, study, {})
    else:
        sides = Sides.open(request, {}, per_class)
    rows = {**dict.fromkeys(DIFF_TABLE2), _GUIDELINE: None}
    compared = sides.compare([VARIANTS[name] for name in rows], say=request.say)
    values = {name: compared.similarity(VARIANTS[name].label) for name in rows}
    tests = compare_with(values, "MeanDiffGradCAM")
    cells = [
        (
            name,
            *mean_std(values[name]),
            *DIFF_TABLE2.get(name, (None, None)),
            *_tested(tests, name)[:2],
        )
        for name in rows
    ]
    order = sorted(DIFF_TABLE2, key=lambda name: mean_std(values[name])[0])
    measured = (
        f"Measured on {sides.trial.name}, {compared.images} images{_of_data(sides)}: the mean squared distance of each "
        "map from Grad-CAM's, both scaled to [0, 1] at the layer's resolution; the label is explained."
    )
    nearest = (
        f"{order[0]} is nearest to Grad-CAM, then come {order[1]} and {order[2]}; the paper has the order "
        "MeanDiffGradCAM, LSE-DiffGradCAM, MaxDiffGradCAM."
    )
    means = _STAND_IN if model is None else _MEANS
    lead = (measured, nearest, said_of_guideline(compared), means)
    columns = (
        "method",
        Column("ours", "lower", digits=3),
        Column("ours, std", digits=2),
        Column("published", "lower", places=3),
        Column("published, std", places=4),
        *_TESTS[:2],
    )
    legend = (
        "Published for MeanDiffGradCAM is 'below 0.001', and p < 0.0001 of it against the others."
    )
    table = Table.of_rows("diff-table2", "Similarity to Grad-CAM", columns, cells, legend)
    record = {**_facts(sides, compared, request), "similarity": values}
    return Reproduced(
        "diff-table2", "DiffGradCAM, Table 2: published and ours", lead, (table,), record
    )


def diff_table3(
    clean: ModelLike | None = None,
    fooled: ModelLike | None = None,
    data: AuditData | None = None,
    *,
    control: ModelLike | None = None,
    per_class: int | None = None,
    quick: bool = True,
    **options: Any,
) -> Reproduced:
    """Susceptibility: how far SHAM fine-tuning moves the maps of the paper's five methods.

    Args:
        clean: a classifier; by default a stand-in, which is fine-tuned now.
        fooled: the same after SHAM fine-tuning, see :func:`camlucida.audits.train_sham`.
        data: the photos that are explained, as for :func:`camlucida.audits.audit_fooled`; not those of the training.
        control: the clean model after the same training without an attack.
        per_class: draw so many photos of each class; 5 as published.
        quick: give the stand-in a shorter training.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: a model or the photos cannot be opened, do not fit each other, or one is missing.
    """
    request = Request.of(diff_table3, clean, data, {"quick": quick, **options})
    if clean is None:
        study = _stand_in(request)
        main = replace(QUICK_ATTACK, seed=request.seed)
        head = replace(main, trainable="head", learning_rate=main.learning_rate * HEAD_RATE)
        attacks = {FOOLED: main, "head alone": head, CONTROL: replace(main, kind="none")}
        sides = _of_stand_in(request, study, attacks)
        trained = f"by {described(main)}, learning rate {main.learning_rate:g}"
    else:
        if fooled is None:
            raise CamlucidaError("give the fooled model too; camlucida train sham makes one")
        others = {FOOLED: fooled} | ({} if control is None else {CONTROL: control})
        sides = Sides.open(request, others, per_class)
        trained = "as given"
    compared = sides.compare([*VARIANTS.values()], say=request.say)
    moves = compared.moves

    def moved(side: str, name: str) -> list[float]:
        found: list[float] = moves[side][VARIANTS[name].label].get("susceptibility", [])
        return found

    values = {name: found for name in VARIANTS if (found := moved(FOOLED, name))}
    tests = compare_with(values, "MeanDiffGradCAM")
    attacked = [side for side in sides.others if side != CONTROL]
    rows = []
    for name in VARIANTS:
        ours = [number for side in attacked for number in mean_std(moved(side, name))]
        ours += [mean_std(moved(CONTROL, name))[0]] if CONTROL in moves else []
        rows.append((name, *ours, *DIFF_TABLE3.get(name, (None, None)), *_tested(tests, name)))
    columns = [column for side in attacked for column in Column(side, "lower", places=4).with_std()]
    if CONTROL in moves:
        note = "the same training with cross-entropy alone"
        columns.append(Column(CONTROL, places=4, note=note))
    measured = (
        f"Measured on {sides.trial.name}, {compared.images} images{_of_data(sides)}, before and after fine-tuning "
        f"{trained}."
    )
    said = " ".join(_said(compared, side) for side in attacked)
    if CONTROL in moves:
        grad, mean = (mean_std(moved(CONTROL, name))[0] for name in ("GradCAM", "MeanDiffGradCAM"))
        said += f" The control, without an attack: {grad:.3f} against {mean:.3f}."
    said += " Published: 5.3 times (0.242 against 0.046)."
    lead = (measured, said, said_of_guideline(compared), _STAND_IN if clean is None else _MEANS)
    table = Table.of_rows(
        "diff-table3",
        "Susceptibility: mean squared distance of clean and fooled maps",
        ("method", *columns, *beside(4)[2:], *_TESTS),
        rows,
        "Maps at the layer's resolution, scaled to [0, 1]. Tests are of the fooled model with everything trained: "
        "rank-sum as published, signed-rank for pairs. Published: p = 3.64e-6 of MeanDiffGradCAM against EigenCAM.",
    )
    record = {
        **_facts(sides, compared, request),
        "accuracy": {side: compared.accuracy(side) for side in compared.right},
        "mask_reached": {side: compared.reached(side) for side in attacked},
        "moves": moves,
    }
    return Reproduced(
        "diff-table3", "DiffGradCAM, Table 3: published and ours", lead, (table,), record
    )


def diff_table1(
    data: str | os.PathLike[str] | None = None,
    *,
    maps: str | os.PathLike[str] | None = None,
    seeds: int | None = None,
    quick: bool = True,
    out: str | os.PathLike[str] = "camlucida-out/diff-table1",
    say: Say | None = None,
    **how: Any,
) -> Reproduced:
    """Accuracy of networks trained with people's salience and with SHAM.

    With photos this is the published Iris PAD experiment, see :func:`camlucida.training.train_salience`; ``camlucida
    train balance`` makes its sets of equal classes. The iris data of the paper are not public: without photos it is
    digits on photos, where the digit's own pixels stand in for what a human would mark.

    Args:
        data: a folder with train, val and test, each with a subfolder for each class.
        maps: people's maps of the photos to train on.
        seeds: trainings of each kind; 5 as published, 3 of the stand-in.
        quick: give the stand-in 2,000 images and 5 epochs, else 10,000 and 10.
        out: the folder where trained networks are kept; the same call goes on where a stopped one ended.
        say: is told about the progress.
        **how: what else :func:`camlucida.training.train_salience` takes, such as ``epochs=20``.

    Raises:
        CamlucidaError: photos without maps, or what the training raises.
    """
    if (data is None) != (maps is None):
        raise CamlucidaError(
            "the table compares people's maps with SHAM: give photos and their maps (--data, --maps)"
        )
    own: dict[str, Any] = {"masks": True, "images": 2000 if quick else 10_000, "seeds": seeds or 3}
    own |= {"epochs": 5 if quick else 10, "plain": True}
    given = own if data is None else {"maps": maps, "seeds": seeds or 5}
    runs = Path(out) / "runs"
    report = train_salience(data or "digits", runs, sham=True, say=say, **{**given, **how})
    experiment = report.experiment
    rows = []
    for arm in experiment.arms:
        trained = experiment.of(arm)
        mean, std = mean_std([one.accuracy for one in trained])
        kind = ARMS["human"] if arm == "mask" else ARMS[arm]
        rest = [
            mean_std([one.number("maps", n) for one in trained])[0] for n in ("entropy", "sham")
        ]
        published = DIFF_TABLE1.get(kind, (None, None))
        rows.append((kind, mean, std if len(trained) > 1 else None, *published, *rest))
    by = {row[0]: row[1] for row in rows}
    human, fake = by.get(ARMS["human"], math.nan), by.get(ARMS["sham"], math.nan)
    of = "the digit's own pixels stand in for people's maps" if data is None else str(data)
    recipe = experiment.recipe
    count = len(experiment.seeds)
    how_often = f"{recipe.epochs} epochs, {count} seed{'' if count == 1 else 's'}"
    lead = [f"Measured with the network {recipe.model}, {how_often}; {of}."]
    lead.append(
        f"With SHAM the accuracy is {fake:.3f}, with true salience {human:.3f}; the paper finds that SHAM costs "
        "nothing (0.9766 against 0.9723). The table is headed AUROC there, its values are accuracies."
    )
    if data is None:
        lead.append("Another network on other data: only the direction can be compared.")
    table = Table.of_rows(
        "diff-table1",
        "Accuracy by the salience that a network was trained with",
        (
            "salience",
            *beside(4, "higher"),
            Column("CAM entropy", unit="nats", places=2),
            Column("share of the maps on the SHAM mask", places=3),
        ),
        rows,
        "Mean and standard deviation over seeds.",
    )
    return Reproduced(
        "diff-table1", "DiffGradCAM, Table 1: published and ours", tuple(lead), (table,), experiment.to_dict(),
        experiment.complete,
    )  # fmt: skip


# ---- pieces --------------------------------------------------------------------------------------


def _stand_in(request: Request) -> Study:
    plan = DigitPlan.of(quick=request.quick, seed=request.seed)
    # The same network for both tables.
    store = Store(request.out, {"net": "diff", "plan": asdict(plan)})
    case = stand_in_case(stand_in(plan, store, request.say), 200, request.seed)
    named = replace(case.trial, name="a small network, digits on photos")
    return Study(replace(case, trial=named), store, request.say)


def _of_stand_in(request: Request, study: Study, attacks: Mapping[str, Attack]) -> Sides:
    trial = study.case.trial
    others = {name: study.attacked(attack)[1] for name, attack in attacks.items()}
    photos = torch.split(trial.inputs, 50), torch.split(study.case.classes, 50)
    key = {
        "compared": [fingerprint(net) for net in others.values()],
        "of": fingerprint(trial.model),
    }
    return Sides(trial, others, [*zip(*photos, strict=True)], Store(request.out, key))


def _facts(sides: Sides, compared: Compared, request: Request) -> dict[str, Any]:
    soft, spread = compared.soft, compared.spread
    return {
        "model": sides.trial.name, "layer": sides.trial.layer, "images": compared.images, "data": sides.of,
        "seed": request.seed, "guideline_lse": soft, "spread": spread,
    }  # fmt: skip


def _of_data(sides: Sides) -> str:
    return f" of {sides.of}" if sides.of else ""


def _tested(tests: Mapping[str, Mapping[str, float]], name: str) -> list[float | None]:
    """P values of a method against MeanDiffGradCAM, for the columns of :data:`_TESTS`."""
    found = tests.get(name, {})
    return [found.get(test) for test in ("rank_sum", "signed_rank", "holm")]


def _said(compared: Compared, side: str) -> str:
    found = compared.moves[side]
    grad, mean = (
        mean_std(found[VARIANTS[name].label].get("susceptibility", []))[0]
        for name in ("GradCAM", "MeanDiffGradCAM")
    )
    said = (
        f"GradCAM moves {grad / mean:.1f} times as far as" if mean > 0 else "GradCAM moves and not"
    )
    reached, before, after = compared.reached(side), compared.accuracy(), compared.accuracy(side)
    but = ", which is too little to tell" if reached < WORKED else ""
    if after < before - KEPT:
        but = ", but the model is broken"
    return (
        f"{side}: {said} MeanDiffGradCAM ({grad:.3f} against {mean:.3f}), at an accuracy of {after:.3f} after "
        f"{before:.3f}; the attacked map has gone {100 * reached:.0f} % of the way to the mask{but}."
    )
