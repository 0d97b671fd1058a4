"""The fooling audit: fine-tune a copy so that its maps lie, and see which methods fall for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from camlucida.audits.candidates import Candidate, with_margins
from camlucida.audits.fooling.figures import FIGURE2, attack_chart, moves_drawn
from camlucida.audits.fooling.measure import CORE
from camlucida.audits.fooling.nets import LAYER, PREPROCESS, DigitNet, DigitPlan, stand_in
from camlucida.audits.fooling.study import FoolingCase, Study, described
from camlucida.audits.fooling.tables import (
    CONDITIONS,
    Moves,
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
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import digest
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.explanation.subject import ModelLike
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


def audit_sham(
    model: ModelLike | None = None,
    data: AuditData | None = None,
    *,
    attack: Attack | None = None,
    attackers: Sequence[str] | None = None,
    held_out: int | None = None,
    plan: DigitPlan | None = None,
    **options: Any,
) -> AuditReport:
    """Can maps be made to lie without changing what the model decides?

    Copies of the model are fine-tuned on some of the images (SHAM); every method, on the logit and on margins,
    explains the others before and after. Without a model a small network is trained now, on digits on photos.

    Args:
        model: left as it is.
        data: see :class:`camlucida.audits.Request`; six images or more. Images without labels get the classes that the
            model predicts.
        attack: the main attack; its class-weight map is replaced by Grad-CAM's where the model has none.
        attackers: maps that are attacked in turn, see :meth:`Attack.adaptive`; ``"none"`` is the control.
        held_out: how many images are explained and not trained on; a third by default.
        plan: of the small network.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: fewer than six images, or labels that do not fit.

    Example:
        >>> labelled = torch.rand(6, 3, 32, 32), torch.arange(6)
        >>> attack = camlucida.audits.Attack(batch=2)
        >>> options = {"attack": attack, "attackers": ["none"], "methods": ["eigencam"]}
        >>> camlucida.audits.audit_sham(model, labelled, **options).audit
        'sham'
    """
    request = Request.of(audit_sham, model, data, options)
    if model is None:
        return _on_stand_in(request, attack, attackers, plan)
    return _on_own_model(request, attack, attackers, held_out)


def _on_stand_in(
    request: Request, attack: Attack | None, attackers: Sequence[str] | None, plan: DigitPlan | None
) -> AuditReport:
    quick, seed = request.quick, request.seed
    plan = plan or DigitPlan.of(quick=quick, seed=seed)
    most = min(request.count or (60 if quick else 200), plan.test)
    main = replace(attack or QUICK_ATTACK, seed=seed)
    published = published_attack(main, QUICK_ATTACK.learning_rate)
    asked = _Asked.of(request, main, published, attackers or ATTACKERS[: 6 if quick else None])
    key = {"audit": "sham", "plan": asdict(plan), "images": most, "quick": quick, "seed": seed}
    store = Store(request.out, key)
    net = stand_in(plan, store, request.say)
    study = Study(stand_in_case(net, most, seed), store, request.say)
    conditions, rows = _conditions(study, main, plan, quick=quick)
    tables = [condition_table(rows)]
    if plan.long_tail > 1:
        tables.append(
            tail_table(study.measured(main, CORE), study.case.classes.tolist(), plan.classes)
        )
    return _report(
        study,
        asked,
        f"A network with maps of 7 x 7 cells was trained on {len(net.images)} digits on photos of {plan.classes} "
        f"classes and fooled on the same; {most} other images are explained, each by its label.",
        {"plan": asdict(plan), "net": net.record, "conditions": conditions},
        tables,
        rows,
    )


def _on_own_model(
    request: Request,
    attack: Attack | None,
    attackers: Sequence[str] | None,
    held_out: int | None,
) -> AuditReport:
    trial = request.open(60, 600, whole=True)
    trial = replace(trial, layer=trial.explained_layer)
    count, model, images = len(trial.inputs), trial.model, trial.inputs
    if count < 6 or trial.layer is None:
        raise CamlucidaError(
            f"the audit needs six labelled images or more and a layer, got {count} and {trial.layer}"
        )
    labels = trial.logits().argmax(1) if trial.labels is None else trial.labels.to(images.device)
    check_labels(labels, model, images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(request.seed))
    few = held_out or max(3, count // 3)
    if not 2 <= few <= count - 2:
        raise CamlucidaError(f"held_out must be 2 to {count - 2} of {count} images, got {few}")
    shown, taught = order[:few], order[few:]
    main = replace(attack or Attack(epochs=5), seed=request.seed)
    published = fitting(replace(published_attack(main), kind="sham"), model, images, trial.layer)
    note = ""
    if main.cam.cam == WEIGHTS and published.cam.cam != WEIGHTS:
        main = replace(main, cam=published.cam)
        if main.kind == "sham":
            note = (
                " It does not end in pooling and one linear layer, so Grad-CAM's map was attacked."
            )
    if request.methods is None and request.quick:
        request = replace(request, methods=list(dict.fromkeys(one.name for one in CORE)))
    asked = _Asked.of(
        request, main, published, attackers or (ATTACKERS[:2] if request.quick else ATTACKERS)
    )
    store = request.store(replace(trial, classes=labels), "sham", held_out=few)
    of_shown = replace(trial, inputs=images[shown], classes=labels[shown])
    case = FoolingCase(of_shown, images[taught], labels[taught], images[shown], labels[shown])
    return _report(
        Study(case, store, request.say),
        asked,
        f"Copies of {trial.name} were fine-tuned on {len(taught)} images{_classes(labels[taught])} and explained on "
        f"{few} others{_classes(labels[shown])}.{note}",
        {"layer": trial.layer},
    )


def stand_in_case(net: DigitNet, most: int, seed: int) -> FoolingCase:
    """A trained stand-in as a case of which ``most`` test images are explained."""
    trial = Trial(
        net.model, net.test[:most], net.test_labels[:most], LAYER, PREPROCESS, seed, 50, "the stand-in"
    )  # fmt: skip
    return FoolingCase(trial, net.images, net.labels, net.test, net.test_labels, as_input)


# -------------------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class _Asked:
    """What is attacked, and which methods explain it."""

    main: Attack
    published: Attack
    attacks: Mapping[str, Attack]
    methods: tuple[Candidate, ...]
    core: tuple[Candidate, ...]
    quick: bool

    @property
    def control(self) -> Attack:
        return replace(self.main, kind="none")

    @classmethod
    def of(
        cls, request: Request, main: Attack, published: Attack, attackers: Sequence[str]
    ) -> _Asked:
        """Refuses an unknown method or map before anything is trained."""
        methods = with_margins(request.tested(everything=True), quick=request.quick)
        names = {one.name for one in methods}
        core = tuple(one for one in CORE if request.methods is None or one.name in names)
        control = replace(main, kind="none")
        attacks = {name: named_attack(name, main, published, control) for name in attackers}
        return cls(main, published, attacks, methods, core or methods, request.quick)


def _conditions(
    study: Study, main: Attack, plan: DigitPlan, *, quick: bool
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The attack with the head alone or everything, few epochs or many, ten classes or more."""
    found: dict[str, Any] = {}
    rows: list[tuple[Any, ...]] = []
    lengths = (1, main.epochs) if quick else (1, main.epochs, 4 * main.epochs)
    studies = [study]
    if not quick and plan.classes == 10:
        net = stand_in(replace(plan, classes=45, epochs=2 * plan.epochs), study.store, study.say)
        case = stand_in_case(net, len(study.case.trial.inputs), plan.seed)
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
                numbers = one.measured(
                    attack, (*FIGURE2, Candidate("cam"), Candidate("cam", "mean"))
                )
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
    asked: _Asked,
    tested: str,
    extra: Mapping[str, Any],
    tables: Sequence[Table] = (),
    conditions: Sequence[tuple[Any, ...]] = (),
) -> AuditReport:
    main, attacks = asked.main, asked.attacks
    found, quiet = (study.measured(one, asked.methods) for one in (main, asked.control))
    worked, clean, after = study.hit(main) >= WORKED, study.accuracy(None), study.accuracy(main)
    broke = after < clean - KEPT
    verdicts = tuple(
        verdict(one, found[one.label], quiet.get(one.label), worked=worked, broke=broke)
        for one in asked.methods
    )
    matrix = {name: study.measured(a, asked.core) for name, a in attacks.items()}
    hits = {name: float("nan") if a.kind == "none" else study.hit(a) for name, a in attacks.items()}
    accuracies = {name: study.accuracy(a) for name, a in attacks.items()}
    aimed = [
        f"{name} ({100 * hits[name]:.0f} % of the way to the mask, accuracy {clean:.3f} → {accuracies[name]:.3f})"
        for name in attacks
        if name not in {"none", "sham", "location"}
        and hits[name] >= WORKED
        and accuracies[name] >= clean - KEPT
    ]
    models = {
        "clean": None,
        "fooled": main,
        "control, the same training without the attack": asked.control,
    }
    rows = [(name, *_of_model(study, attack, asked)) for name, attack in models.items()]
    explained = [
        one.label
        for one in asked.core
        if any("error" not in matrix[name][one.label] for name in attacks)
    ]
    mask = study.masks[study.attacked(main)[0]]
    return AuditReport(
        "sham",
        "Fooling audit",
        f"{ABOUT}\n{tested} The main attack: {described(main)}, learning rate {main.learning_rate:g}, mask with "
        f"{int(mask.sum())} ones, {_share_of_loss(main)}.",
        summary(
            verdicts,
            worked=worked,
            broke=(clean, after) if broke else None,
            conditions=conditions,
            aimed=aimed,
        ),
        verdicts,
        (
            model_table(rows),
            susceptibility_table(asked.methods, found, quiet),
            *tables,
            matrix_table(list(attacks), explained, matrix, accuracies, hits, clean),
        ),
        _pictures(study, asked, found, quiet, explained, matrix),
        {
            "quick": asked.quick,
            "name": study.case.trial.name,
            "main": main.describe(),
            "fine_tuning": study.records,
            "measured": found,
            "control": quiet,
            "models": {name: {"accuracy": a, "cam_entropy": e} for name, a, e, *_ in rows},
            "matrix": matrix,
            "mask_reached": hits,
            "accuracy": accuracies,
            "seed": main.seed,
            "resumed_parts": study.store.found,
            **extra,
        },
    )


def _of_model(
    study: Study, attack: Attack | None, asked: _Asked
) -> tuple[float, float, float, float]:
    """Accuracy, mean and std of the CAM entropy, and distance of the attacked map from the mask."""
    trial, main = study.case.trial, asked.main
    name, model, _ = ("clean", trial.model, None) if attack is None else study.attacked(attack)
    mask = study.attacked(main)[2]
    weights, shown = (
        replace(cam, cam_layer=trial.layer, mode="eval")
        for cam in (replace(asked.published, kind="sham").shown, main.shown)
    )

    def measure() -> list[float]:
        found = cam_entropy(study.trained_maps(model, weights))
        return [*mean_std(found.tolist()), study.distance(model, shown, mask)]

    key = digest([asked.published.describe(), main.describe(), name])[:8]
    mean, std, far = study.store.value(f"{study.name}entropy-{name}-{key}", measure)
    return study.accuracy(attack), mean, std, far


def _classes(labels: torch.Tensor) -> str:
    count = len(set(labels.tolist()))
    return " of one class only" if count == 1 else f" of {count} classes"


def _share_of_loss(attack: Attack) -> str:
    if attack.kind == "location":
        return f"loss: cross-entropy + {attack.strength:g} times the distance of the map"
    return f"{100 * attack.weight:g} % of the loss for the cross-entropy"


def _pictures(
    study: Study,
    asked: _Asked,
    found: Moves,
    quiet: Moves,
    labels: Sequence[str],
    matrix: Mapping[str, Moves],
) -> tuple[Illustration, ...]:
    _, fooled, mask = study.attacked(asked.main)
    pictures = moves_drawn(study.case.trial.few(4), fooled, mask, asked.methods, found, quiet)
    if len(asked.attacks) > 1 and labels:
        values = [
            [mean_std(matrix[a][c].get("susceptibility", []))[0] for c in labels]
            for a in asked.attacks
        ]
        pictures.append(attack_chart(list(asked.attacks), labels, values))
    return tuple(pictures)
