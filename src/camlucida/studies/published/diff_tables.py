"""Tables 1 to 3 of DiffGradCAM: what was published, and ours beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.fooling.audit import HEAD_RATE, QUICK_ATTACK, stand_in_case
from camlucida.audits.fooling.measure import compare_with
from camlucida.audits.fooling.nets import DigitPlan, stand_in
from camlucida.audits.fooling.study import FoolingCase, Study, described
from camlucida.audits.fooling.tune import Attack, check_labels, fitting
from camlucida.audits.fooling.verdicts import KEPT, WORKED
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.metrics.agreement import similarity
from camlucida.report import Column, Table
from camlucida.studies.published.base import Reproduced, beside
from camlucida.studies.published.numbers import DIFF_TABLE1, DIFF_TABLE2, DIFF_TABLE3
from camlucida.training.cam_loss import SalienceLoss, TrainableCAM, fit_salience
from camlucida.training.classifier import SmallPlan, accuracy, small_net, train_classifier
from camlucida.training.sham import sham_mask

VARIANTS: Mapping[str, Candidate] = {
    "GradCAM": Candidate("gradcam"),
    "EigenCAM": Candidate("eigencam"),
    "MeanDiffGradCAM": Candidate("gradcam", "mean"),
    "MaxDiffGradCAM": Candidate("gradcam", "max"),
    "LSE-DiffGradCAM": Candidate("gradcam", "lse"),
    "GradCAM without ReLU (CAM)": Candidate("cam"),
}
"""The rows, by the paper's names; the last is ours, since the loss moves the map before its ReLU."""

_STAND_IN = (
    "A small network on digits on photos stands in for DenseNet-121 on ImageNet: the structure can be compared, the "
    "values cannot."
)


def diff_table2(
    case: FoolingCase | None = None,
    *,
    quick: bool = True,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Reproduced:
    """Similarity scores: the distance of each DiffGradCAM from Grad-CAM on the same model.

    Args:
        case: model and images, such as from :func:`case_of`; a stand-in by default.
        quick: give the stand-in a shorter training, 200 images.
        seed: the seed of the stand-in.
        out: the folder where finished parts are kept.
        say: is told about the progress.
    """
    if case is not None:
        _known(case)
    own = case or _stand_in(quick, seed, out, say)
    trial = own.trial
    reference = trial.raw(VARIANTS["GradCAM"])
    values: dict[str, list[float]] = {}
    for name in DIFF_TABLE2:
        variant = VARIANTS[name]
        values[name] = similarity(reference, trial.raw(variant)).tolist()
    tests = compare_with(values, "MeanDiffGradCAM")
    rows = [
        (name, *mean_std(values[name]), *published, *_tested(tests, name)[:2])
        for name, published in DIFF_TABLE2.items()
    ]
    order = sorted(values, key=lambda name: mean_std(values[name])[0])
    measured = (
        f"Measured on {trial.name}, {len(trial.inputs)} images: the mean squared distance of each map from Grad-CAM's, "
        "both scaled to [0, 1] at the layer's resolution; the label is explained."
    )
    nearest = (
        f"{order[0]} is nearest to Grad-CAM, then come {order[1]} and {order[2]}; the paper has the order "
        "MeanDiffGradCAM, LSE-DiffGradCAM, MaxDiffGradCAM."
    )
    lead = (measured, nearest, _STAND_IN if case is None else _MEANS)
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
    table = Table.of_rows("diff-table2", "Similarity to Grad-CAM", columns, rows, legend)
    images = len(trial.inputs)
    record = {"model": own.trial.name, "images": images, "seed": seed, "similarity": values}
    return Reproduced(
        "diff-table2", "DiffGradCAM, Table 2: published and ours", lead, (table,), record
    )


_TESTS = (
    Column("p against Mean, rank-sum", digits=2),
    Column("p, signed-rank", digits=2),
    Column("p, Holm", digits=2),
)


def _tested(tests: Mapping[str, Mapping[str, float]], name: str) -> list[float | None]:
    """P values of a method against MeanDiffGradCAM, for the columns of :data:`_TESTS`."""
    found = tests.get(name, {})
    return [found.get(test) for test in ("rank_sum", "signed_rank", "holm")]


def diff_table3(
    case: FoolingCase | None = None,
    *,
    attack: Attack | None = None,
    quick: bool = True,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Reproduced:
    """Susceptibility: how far SHAM fine-tuning moves the maps of the paper's five methods.

    Args:
        case: model and images, such as from :func:`case_of`; a stand-in by default.
        attack: how it is fine-tuned; as published, one epoch, for a case of your own. The map is Grad-CAM's where
            the model has no class-weight map.
        quick: give the stand-in a shorter training, 200 images.
        seed: the seed of the stand-in and of the fine-tuning.
        out: the folder where finished parts are kept.
        say: is told about the progress.
    """
    main = replace(attack or (QUICK_ATTACK if case is None else Attack()), seed=seed)
    if case is not None:
        _known(case)
        main = fitting(main, case.trial.model, case.images, case.layer)
    store = Store(out, {"table": "diff-table3", "quick": quick, "seed": seed, "case": _key(case)})
    own = case or _stand_in(quick, seed, out, say)
    study = Study(own, store, say or (lambda *_: None))
    sides = {"everything": main}
    if case is None:
        rate = main.learning_rate * HEAD_RATE
        sides["head alone"] = replace(main, trainable="head", learning_rate=rate)
    every = {**sides, "control": replace(main, kind="none")}
    found = {side: study.measured(one, list(VARIANTS.values())) for side, one in every.items()}
    tests = compare_with(
        {
            name: found["everything"][v.label]["susceptibility"]
            for name, v in VARIANTS.items()
            if "error" not in found["everything"][v.label]
        },
        "MeanDiffGradCAM",
    )
    rows = []
    for name, variant in VARIANTS.items():
        ours: list[float | None] = []
        for side in (*sides, "control"):
            numbers = mean_std(found[side][variant.label].get("susceptibility", []))
            ours += numbers[:1] if side == "control" else numbers
        published = DIFF_TABLE3.get(name, (None, None))
        rows.append((name, *ours, *published, *_tested(tests, name)))
    images = len(own.trial.inputs)
    measured = (
        f"Measured on {own.trial.name}, {images} images, before and after fine-tuning with {described(main)}, "
        f"learning rate {main.learning_rate:g}."
    )
    lead = (measured, _said(found, study, sides), _STAND_IN if case is None else _MEANS)
    columns = [
        column
        for side in sides
        for column in Column(f"{side} trained", "lower", places=4).with_std()
    ]
    columns.append(Column("control", places=4, note="the same training with cross-entropy alone"))
    table = Table.of_rows(
        "diff-table3",
        "Susceptibility: mean squared distance of clean and fooled maps",
        ("method", *columns, *beside(4)[2:], *_TESTS),
        rows,
        "Maps at the layer's resolution, scaled to [0, 1]. Tests are of the runs with everything trained. "
        "Published: p = 3.64e-6 of MeanDiffGradCAM against EigenCAM.",
    )
    record = {
        "model": own.trial.name,
        "images": images,
        "seed": seed,
        "attack": main.describe(),
        "measured": found,
        "accuracy": {
            "clean": study.accuracy(None),
            **{side: study.accuracy(one) for side, one in every.items()},
        },
        "mask_reached": {side: study.hit(one) for side, one in sides.items()},
    }
    return Reproduced(
        "diff-table3", "DiffGradCAM, Table 3: published and ours", lead, (table,), record
    )


def diff_table1(
    *,
    seeds: Sequence[int] = (0, 1, 2),
    quick: bool = True,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Reproduced:
    """Accuracy of networks trained with true salience, with SHAM, and without any.

    The iris data of the paper are not public: this is digits on photos, where the digit's own pixels stand in for
    what a human would mark. The whole setting for data of your own is ``camlucida train salience``.

    Args:
        seeds: the seeds of networks and order.
        quick: 2,000 images and 5 epochs, else 10,000 and 10.
        out: the folder where finished parts are kept.
        say: is told about the progress.
    """
    tell = say or (lambda *_: None)
    images, epochs = (2000, 5) if quick else (10_000, 10)
    store = Store(out, {"table": "diff-table1", "images": images, "epochs": epochs})
    kinds = {"human salience": "the digit's pixels", "SHAM": "the fake mask", "none": "no salience"}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for seed in seeds:
        for i, kind in enumerate(kinds):
            tell(f"training with {kinds[kind]}, seed {seed}", i, len(kinds))
            found[kind].append(
                store.value(
                    f"{kind}-{seed}",
                    lambda k=kind, s=seed: _train_once(k, s, images, epochs),  # type: ignore[misc]
                )
            )
    rows = []
    for kind, runs in found.items():
        mean, std = mean_std([one["accuracy"] for one in runs])
        rest = [mean_std([one[name] for one in runs])[0] for name in ("cam_entropy", "to_sham")]
        published = DIFF_TABLE1.get(kind, (None, None))
        rows.append((kind, mean, std if len(seeds) > 1 else None, *published, *rest))
    human, fake = (row[1] for row in rows[:2])
    measured = (
        f"Measured on small networks on digits on photos, {images} training images, {epochs} epochs, {len(seeds)} "
        f"seed{'' if len(seeds) == 1 else 's'}; the digit's own pixels stand in place of human salience."
    )
    cost = (
        f"With SHAM the accuracy is {fake:.3f}, with true salience {human:.3f}; the paper finds that SHAM costs "
        "nothing (0.9766 against 0.9723). The table is headed AUROC there, its values are accuracies."
    )
    lead = (measured, cost, "Another network on other data: only the direction can be compared.")
    table = Table.of_rows(
        "diff-table1",
        "Accuracy by the salience that a network was trained with",
        (
            "salience",
            *beside(4, "higher"),
            Column("CAM entropy", unit="nats", places=2),
            Column("distance of the maps from SHAM", places=3),
        ),
        rows,
        "Mean and standard deviation over seeds.",
    )
    record = {"seeds": list(seeds), "images": images, "epochs": epochs, "runs": found}
    return Reproduced(
        "diff-table1", "DiffGradCAM, Table 1: published and ours", lead, (table,), record
    )


def case_of(
    model: nn.Module,
    taught: tuple[Tensor, Tensor],
    shown: tuple[Tensor, Tensor],
    layer: str,
    *,
    name: str = "",
    preprocess: Any = None,
) -> FoolingCase:
    """A model of your own for tables 2 and 3.

    Args:
        model: left as it is.
        taught: inputs and labels that a copy is fine-tuned on.
        shown: inputs and labels that are explained, and accuracy is measured on.
        layer: the layer whose map is attacked and explained; for DenseNet-121 ``"features"``.
        name: for the report.
        preprocess: the preprocessing, for methods that work on pixels.

    Raises:
        CamlucidaError: images and labels are not equally many.
    """
    for images, labels in (taught, shown):
        if len(images) != len(labels) or len(images) < 2:
            raise CamlucidaError(f"got {len(images)} images and {len(labels)} labels")
    trial = Trial(
        model, *shown, layer, preprocess, batch_size=50, name=name or type(model).__name__
    )
    return FoolingCase(trial, *taught, *shown)


_MEANS = (
    "The published numbers are means over 5,000 validation images of ImageNet, of DenseNet-121."
)


def _stand_in(
    quick: bool, seed: int, out: str | os.PathLike[str] | None, say: Say | None
) -> FoolingCase:
    plan = DigitPlan.of(quick=quick, seed=seed)
    # The same network for both tables.
    own = Store(out, {"net": "diff", "plan": asdict(plan)})
    case = stand_in_case(stand_in(plan, own, say), 200, seed)
    return replace(case, trial=replace(case.trial, name="a small network, digits on photos"))


def _key(case: FoolingCase | None) -> Any:
    if case is None:
        return None
    trial = case.trial
    whole = fingerprint(
        trial.model, case.images, case.labels, trial.inputs, trial.classes, case.test, case.test_labels
    )  # fmt: skip
    return [trial.name, whole, trial.layer, trial.preprocess]


def _known(case: FoolingCase) -> None:
    """Refuse what the tables cannot be made of."""
    trial = case.trial
    for labels in (case.labels, case.classes):
        check_labels(labels, trial.model, trial.inputs)
    classes = trial.few(1).logits().shape[-1]
    if classes < 2:
        raise CamlucidaError("margins need a model of two classes or more, this one has one output")


def _said(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], study: Study, sides: Mapping[str, Attack]
) -> str:
    parts = []
    for side, one in sides.items():
        grad, mean = (
            mean_std(found[side][label]["susceptibility"])[0]
            for label in ("gradcam", "MeanDiffGradCAM")
        )
        said = (
            f"GradCAM moves {grad / mean:.1f} times as far as"
            if mean > 0
            else "GradCAM moves and not"
        )
        hit, before, after = study.hit(one), study.accuracy(None), study.accuracy(one)
        but = ", which is too little to tell" if hit < WORKED else ""
        if after < before - KEPT:
            but = ", but the model is broken"
        parts.append(
            f"With {side} trained {said} MeanDiffGradCAM ({grad:.3f} against {mean:.3f}), at an accuracy of "
            f"{after:.3f} after {before:.3f}; the attacked map has gone {100 * hit:.0f} % of the way to the mask{but}."
        )
    return " ".join(parts) + " Published: 5.3 times (0.242 against 0.046)."


def _train_once(kind: str, seed: int, images: int, epochs: int) -> dict[str, float]:
    from camlucida.data.digits import Digits
    from camlucida.metrics.concentration import cam_entropy
    from camlucida.models.small import SmallConfig, as_input

    size = 56
    drawn = Digits("train", count=images, size=size, seed=0).tensors()
    testing = Digits("test", count=500, size=size, seed=0).tensors()
    test = as_input(testing.images)
    model = small_net(SmallConfig(size=size), seed)
    cam = TrainableCAM(model, test[:1])
    true = fit_salience(drawn.masks, cam.size)
    fake = sham_mask(cam.size)
    train_classifier(
        model,
        (drawn.images, drawn.labels, *((true,) if kind == "human salience" else ())),
        SmallPlan(epochs=epochs, seed=seed),
        prepare=as_input,
        loss=SalienceLoss(cam, 1.0 if kind == "none" else 0.5, fake),
    )
    maps = cam.observe(model, test[:200], testing.labels[:200])[1]
    return {
        "accuracy": accuracy(model, test, testing.labels),
        "cam_entropy": float(cam_entropy(maps).mean()),
        "to_sham": float((maps - fake).square().mean()),
    }
