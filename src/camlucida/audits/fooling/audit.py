"""The fooling audit: fine-tune a copy so that its maps lie, and see which methods fall for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.fooling.figures import bar_figure, matrix_figure, panel_figure
from camlucida.audits.fooling.measure import (
    Subject,
    Variant,
    all_variants,
    core_variants,
)
from camlucida.audits.fooling.nets import LAYER, PREPROCESS, DigitNet, DigitPlan, stand_in
from camlucida.audits.fooling.study import Case, Study, described
from camlucida.audits.fooling.tables import (
    CONDITIONS,
    condition_row,
    condition_table,
    matrix_table,
    model_table,
    susceptibility_table,
    tail_table,
)
from camlucida.audits.fooling.tune import (
    Attack,
    Trainable,
    check_labels,
    fitting,
    named_attack,
    published_attack,
)
from camlucida.audits.fooling.verdicts import ABOUT, KEPT, WORKED, summary, verdict
from camlucida.audits.report import AuditReport, Illustration
from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import digest
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.metrics.concentration import cam_entropy
from camlucida.models.small import as_input
from camlucida.report import Table
from camlucida.training.cam_loss import WEIGHTS

QUICK_ATTACK = Attack(epochs=4, learning_rate=0.02)
"""On the stand-in: as published but for length and learning rate. An epoch of ImageNet has 64,000 steps of 20
images, one of the stand-in 250, in which the published rate of 0.002 moves no map."""

HEAD_RATE = 15.0
"""How many times higher the learning rate is where the head alone trains, whose gradients are small."""

ATTACKERS = (
    "none",
    "sham",
    "gradcam",
    "gradcam:mean",
    "gradcam:max",
    "gradcam:lse",
    "hirescam",
    "layercam",
)
"""The maps that are attacked in turn; the first is the control."""

FIGURE2: tuple[Variant, ...] = (
    Variant("gradcam"), Variant("gradcam", "mean"), Variant("gradcam", "max"), Variant("gradcam", "lse"),
    Variant("eigencam"),
)  # fmt: skip


def audit_sham_stand_ins(
    *,
    attack: Attack | None = None,
    attackers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    count: int | None = None,
    quick: bool = True,
    plan: DigitPlan | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """The audit on a small network that is trained now, on digits on photos.

    Args:
        attack: the main attack.
        attackers: maps that are attacked in turn, see :meth:`Attack.adaptive`; ``"none"`` is the control.
        methods: registered names; all by default, each with its logit and with margins.
        count: explained images, at most the network's test images; 60 with ``quick``, else 200.
        quick: fewer passes, attackers and conditions; some minutes on two cores.
        plan: of the network.
        seed: of everything.
        folder: where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress.
    """
    tell = say or (lambda *_: None)
    plan = plan or DigitPlan.of(quick=quick, seed=seed)
    most = min(count or (60 if quick else 200), plan.test)
    main = replace(attack or QUICK_ATTACK, seed=seed)
    chosen = attackers or (ATTACKERS[:6] if quick else ATTACKERS)
    published = published_attack(main, QUICK_ATTACK.learning_rate)
    _check(main, published, chosen, methods, quick)  # now, not after the training
    store = Store(
        folder,
        {"audit": "sham", "plan": asdict(plan), "images": most, "quick": quick, "seed": seed},
    )
    study = Study(stand_in_case(net := stand_in(plan, store, tell), most, seed), store, tell)
    conditions, rows = _conditions(study, main, plan, quick=quick)
    extra: dict[str, Any] = {"plan": asdict(plan), "net": net.record, "conditions": conditions}
    tables = [condition_table(rows)]
    if plan.long_tail > 1:
        found = study.measured(main, core_variants())
        tables.append(tail_table(found, study.case.subject.labels.tolist(), plan.classes))
    return _report(
        study,
        main,
        published,
        chosen,
        methods,
        quick,
        tables,
        rows,
        extra,
        f"A network with maps of 7 x 7 cells was trained on {len(net.images)} digits on photos of {plan.classes} "
        f"classes and fooled on the same; {most} other images are explained, each by its label.",
    )


def audit_sham(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    attack: Attack | None = None,
    attackers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    held_out: int | None = None,
    quick: bool = True,
    preprocess: Any = None,
    name: str = "",
    seed: int = 0,
    batch_size: int = 8,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """The audit on a model of your own, of which copies are fine-tuned.

    Args:
        model: left as it is.
        images: inputs ``(N, C, H, W)``; some of them fool the copy, the others are explained.
        labels: their classes ``(N,)``, of those that the model knows.
        layer: whose map is attacked and explained.
        attack: the main attack; its class-weight map is replaced by Grad-CAM's where the model has none.
        attackers: maps that are attacked in turn; the control and the main one by default, with ``quick=False``
            all of :data:`ATTACKERS`.
        methods: registered names; with ``quick`` those of one pass by default, else all.
        held_out: how many images are explained and not trained on; a third by default.
        quick: fewer passes and attackers.
        preprocess: for methods that work on pixels, and to draw the images.
        name: of model and data.
        seed: of everything.
        batch_size: images at a time.
        folder: where finished parts are kept.
        say: told about the progress.

    Raises:
        CamlucidaError: fewer than six images, or labels that do not fit.
    """
    tell = say or (lambda *_: None)
    if len(images) < 6 or labels.shape != (len(images),):
        raise CamlucidaError(
            f"the audit needs six labelled images or more, got {len(images)} and labels {tuple(labels.shape)}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(
        images.device
    )
    few = held_out or max(3, len(images) // 3)
    if not 2 <= few <= len(images) - 2:
        raise CamlucidaError(
            f"held_out must be 2 to {len(images) - 2} of {len(images)} images, got {few}"
        )
    shown, taught = order[:few], order[few:]
    check_labels(labels, model, images)
    main = replace(attack or Attack(epochs=5), seed=seed)
    note = ""
    published = fitting(replace(published_attack(main), kind="sham"), model, images, layer)
    if main.cam.cam == WEIGHTS and published.cam.cam != WEIGHTS:
        main = replace(main, cam=published.cam)
        if main.kind == "sham":
            note = (
                " It does not end in pooling and one linear layer, so Grad-CAM's map was attacked."
            )
    chosen = attackers or (("none", "sham") if quick else ATTACKERS)
    if methods is None and quick:
        methods = list(dict.fromkeys(v.method for v in core_variants()))
    _check(main, published, chosen, methods, quick)
    subject = Subject(images[shown], labels[shown], layer, preprocess, seed, batch_size)
    case = Case(
        model, images[taught], labels[taught], subject, images[shown], labels[shown], name=name
    )
    key = {
        "audit": "sham", "name": name, "case": fingerprint(model, images, labels), "layer": layer,
        "preprocess": preprocess, "quick": quick, "seed": seed, "few": few,
    }  # fmt: skip
    store = Store(folder, key)
    study = Study(case, store, tell)
    return _report(
        study,
        main,
        published,
        chosen,
        methods,
        quick,
        [],
        [],
        {"layer": layer},
        f"Copies of {name or type(model).__name__} were fine-tuned on {len(taught)} images{_classes(labels[taught])} "
        f"and explained on {few} others{_classes(labels[shown])}.{note}",
    )


def stand_in_case(net: DigitNet, most: int, seed: int) -> Case:
    """A trained stand-in as a case of which ``most`` test images are explained."""
    subject = Subject(net.test[:most], net.test_labels[:most], LAYER, PREPROCESS, seed)
    return Case(
        net.model,
        net.images,
        net.labels,
        subject,
        net.test,
        net.test_labels,
        as_input,
        "the stand-in",
    )


# -------------------------------------------------------------------------------------------- pieces


def _conditions(
    study: Study, main: Attack, plan: DigitPlan, *, quick: bool
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The attack with the head alone or everything, few epochs or many, ten classes or more."""
    found: dict[str, Any] = {}
    rows: list[tuple[Any, ...]] = []
    lengths = (1, main.epochs) if quick else (1, main.epochs, 4 * main.epochs)
    studies = [study]
    if not quick and plan.classes == 10:
        more = replace(plan, classes=45, epochs=2 * plan.epochs)
        net = stand_in(more, study.store, study.say)
        case = stand_in_case(net, len(study.case.subject.inputs), plan.seed)
        studies.append(Study(case, study.store, study.say, "45 classes, "))
    parts_of_net: tuple[Trainable, ...] = ("head", "all")
    of_all = main.learning_rate / (HEAD_RATE if main.trainable == "head" else 1)
    for one in studies:
        for trainable in parts_of_net:
            for epochs in dict.fromkeys(lengths):
                rate = of_all * (HEAD_RATE if trainable == "head" else 1)
                attack = replace(main, trainable=trainable, epochs=epochs, learning_rate=rate)
                if trainable == main.trainable and epochs == main.epochs:
                    attack = main
                numbers = one.measured(attack, (*FIGURE2, Variant("cam"), Variant("cam", "mean")))
                name = f"{one.name}{trainable}, {epochs}, {attack.learning_rate:g}"
                accuracies = (one.accuracy(None), one.accuracy(attack))
                rows.append(condition_row(name, numbers, accuracies, one.hit(attack)))
                found[name] = {
                    "attack": attack.describe(),
                    "accuracy": accuracies,
                    "row": dict(zip(CONDITIONS, rows[-1], strict=True)),
                    "measured": numbers,
                }
    return found, rows


def _report(
    study: Study,
    main: Attack,
    published: Attack,
    attackers: Sequence[str],
    methods: Sequence[str] | None,
    quick: bool,
    tables: list[Table],
    conditions: Sequence[tuple[Any, ...]],
    extra: Mapping[str, Any],
    tested: str,
) -> AuditReport:
    store, case = study.store, study.case
    control = replace(main, kind="none")
    variants = all_variants(quick=quick, names=methods)
    found = study.measured(main, variants)
    quiet = study.measured(control, variants)
    worked = study.hit(main) >= WORKED
    clean = study.accuracy(None)
    broke = study.accuracy(main) < clean - KEPT
    verdicts = tuple(
        verdict(v, found[v.label], quiet.get(v.label), worked=worked, broke=broke) for v in variants
    )
    attacks = {name: named_attack(name, main, published, control) for name in attackers}
    core = tuple(v for v in core_variants() if methods is None or v.method in methods) or variants
    matrix = {name: study.measured(a, core) for name, a in attacks.items()}
    hits = {name: float("nan") if a.kind == "none" else study.hit(a) for name, a in attacks.items()}
    accuracies = {name: study.accuracy(a) for name, a in attacks.items()}
    aimed = [
        f"{name} ({100 * hits[name]:.0f} % of the way to the mask, accuracy {clean:.3f} → {accuracies[name]:.3f})"
        for name in attacks
        if name not in {"none", "sham", "location"}
        and hits[name] >= WORKED
        and accuracies[name] >= clean - KEPT
    ]
    models = [
        (name, *_of_model(study, one, main, published))
        for name, one in (
            ("clean", None),
            ("fooled", main),
            ("control, the same training without the attack", control),
        )
    ]
    labels = [v.label for v in core if any("error" not in matrix[a][v.label] for a in attacks)]
    pictures = _pictures(study, main, variants, found, quiet, attacks, labels, matrix)
    return AuditReport(
        "sham",
        "Fooling audit",
        f"{ABOUT}\n{tested} The main attack: {described(main)}, learning rate {main.learning_rate:g}, mask with "
        f"{int(study.masks[study.attacked(main)[0]].sum())} ones, {_share_of_loss(main)}.",
        summary(
            verdicts,
            worked=worked,
            broke=(clean, study.accuracy(main)) if broke else None,
            conditions=conditions,
            aimed=aimed,
        ),
        verdicts,
        (
            model_table(models),
            susceptibility_table(variants, found, quiet),
            *tables,
            matrix_table(list(attacks), labels, matrix, accuracies, hits, clean),
        ),
        pictures,
        {
            "quick": quick,
            "name": case.name,
            "main": main.describe(),
            "fine_tuning": study.records,
            "measured": found,
            "control": quiet,
            "models": {m[0]: {"accuracy": m[1], "cam_entropy": m[2]} for m in models},
            "matrix": matrix,
            "mask_reached": hits,
            "accuracy": accuracies,
            "seed": main.seed,
            "resumed_parts": store.found,
            **extra,
        },
    )


def _of_model(
    study: Study, attack: Attack | None, main: Attack, published: Attack
) -> tuple[float, float, float, float]:
    """Accuracy, mean and std of the CAM entropy, and distance of the attacked map from the mask."""
    case = study.case
    model = case.model if attack is None else study.attacked(attack)[1]
    mask = study.attacked(main)[2]
    weights, shown = (
        replace(cam, cam_layer=case.subject.layer, mode="eval")
        for cam in (replace(published, kind="sham").shown, main.shown)
    )

    def measure() -> list[float]:
        found = cam_entropy(study.trained_maps(model, weights))
        return [*mean_std(found.tolist()), study.distance(model, shown, mask)]

    name = "clean" if attack is None else study.attacked(attack)[0]
    key = digest([published.describe(), main.describe(), name])[:8]
    mean, std, far = study.store.value(f"{study.name}entropy-{name}-{key}", measure)
    return study.accuracy(attack), mean, std, far


def _classes(labels: Tensor) -> str:
    count = len(set(labels.tolist()))
    return " of one class only" if count == 1 else f" of {count} classes"


def _share_of_loss(attack: Attack) -> str:
    if attack.kind == "location":
        return f"loss: cross-entropy + {attack.strength:g} times the distance of the map"
    return f"{100 * attack.weight:g} % of the loss for the cross-entropy"


def _check(
    main: Attack,
    published: Attack,
    attackers: Sequence[str],
    methods: Sequence[str] | None,
    quick: bool,
) -> None:
    """Raise for an unknown method or map before anything is trained."""
    all_variants(quick=quick, names=methods)
    for name in attackers:
        named_attack(name, main, published, main)


def _pictures(
    study: Study,
    main: Attack,
    variants: Sequence[Variant],
    found: Mapping[str, Mapping[str, Any]],
    quiet: Mapping[str, Mapping[str, Any]],
    attacks: Mapping[str, Attack],
    labels: Sequence[str],
    matrix: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> tuple[Illustration, ...]:
    _, fooled, mask = study.attacked(main)
    subject = study.case.subject
    few = replace(subject, inputs=subject.inputs[:4], labels=subject.labels[:4])
    known = [v for v in variants if "error" not in found[v.label]]
    rows = [
        (
            v.label,
            *mean_std(found[v.label]["susceptibility"]),
            mean_std(quiet.get(v.label, {}).get("susceptibility", []))[0],
        )
        for v in known
    ]
    rows.sort(key=lambda row: -row[1])
    shown = [v for v in FIGURE2 if any(k.label == v.label for k in known)]
    pictures = []
    if shown:
        pictures.append(
            Illustration.of(
                "maps",
                "The same images explained on the clean and on the fooled model, as in Figure 2 of the paper; on "
                "the right the mask that the maps were pushed to.",
                panel_figure(study.case.model, fooled, few, shown, mask),
            )
        )
    if rows:
        pictures.append(
            Illustration.of(
                "susceptibility",
                "How far each method's maps were moved, with the control as black marks.",
                bar_figure(rows, "the control: the same training without an attack"),
            )
        )
    if len(attacks) > 1 and labels:
        values = [
            [mean_std(matrix[a][c].get("susceptibility", []))[0] for c in labels] for a in attacks
        ]
        pictures.append(
            Illustration.of(
                "attackers",
                "Each row is a copy that was fine-tuned against one map, each column a method that explains it. Which "
                "copies were broken rather than fooled, the table below says.",
                matrix_figure(list(attacks), labels, values),
            )
        )
    return tuple(pictures)
