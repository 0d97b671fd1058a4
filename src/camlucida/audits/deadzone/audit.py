"""The dead-zone audit: do methods light up what the model provably cannot see?

"CAM-Based Methods Can See Through Walls" (Taimeskhanov, Sicre and Garreau, ECML 2024), on the paper's masked
network, on any model behind a wall, or on small stand-ins that train in minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from camlucida.audits.candidates import Candidate, usual
from camlucida.audits.deadzone.activity import (
    PAPER,
    ROW,
    Zones,
    measure,
    row,
    tune_opticam,
    verdict,
)
from camlucida.audits.deadzone.figures import curve_chart, zone_picture
from camlucida.audits.deadzone.nets import (
    LAYER,
    NETS,
    PREPROCESS,
    NetKind,
    WalledNet,
    WalledNets,
    WallPlan,
    audit_images,
)
from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.audits.deadzone.verdicts import (
    ABOUT,
    accuracy_table,
    note,
    proved,
    summary,
    tuning_table,
    worst,
)
from camlucida.audits.deadzone.walls import Wall
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial
from camlucida.audits.verdicts import Verdict
from camlucida.common.arguments import argument
from camlucida.common.errors import CamlucidaError
from camlucida.common.store import Store
from camlucida.engine.layers import INPUT
from camlucida.explanation.subject import ModelLike
from camlucida.report import Table


def audit_dead_zone(
    model: ModelLike | None = None,
    data: AuditData | None = None,
    *,
    wall: Wall | str | None = None,
    plan: WallPlan | None = None,
    **options: Any,
) -> AuditReport:
    """Do methods light up what the model provably cannot see?

    Without a model three small networks are trained now: a masked one, its unmasked twin and a residual one. Their
    images show a digit in the seen part, which is the label, and one of another class in the dead part.

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`. Best are images with one object on each side of the wall, such
            as :class:`camlucida.data.stack_mix.StackMix` makes them.
        wall: where it stands, a wall or text such as ``"rows:170-223"`` or ``"rows:5-6@layer4"``; ``None`` for a model
            that has one already.
        plan: how the small networks are trained.
        **options: the other fields of :class:`camlucida.audits.Request`. The explained layer is the wall's by default,
            or the input of a model that has no feature map. Opti-CAM is tuned to a low average drop, unless it has
            options.

    Raises:
        CamlucidaError: the wall does not fit, or the images cannot be read.

    Example:
        >>> report = camlucida.audits.audit_dead_zone(model, images, wall="rows:16-31", methods=["saliency"])
        >>> report["saliency"].value
        0.0
    """
    request = Request.of(audit_dead_zone, model, data, options)
    return _on_stand_ins(request, plan) if model is None else dead_zone_audit(request, wall)


def dead_zone_audit(request: Request, wall: Wall | str | None = None) -> AuditReport:
    """The audit of a model of one's own; see :func:`audit_dead_zone`."""
    trial = request.open(20, 100)
    stands = Wall.parse(wall) if isinstance(wall, str) else wall
    behind = trial.model if stands is None else stands.build(trial.model, trial.inputs)
    own = stands.layer if stands is not None else None
    walled = replace(trial, model=behind, layer=trial.layer or own)
    walled = replace(walled, layer=walled.explained_layer or INPUT)
    request.say("proving what is dead", 0, 1)
    zones = zones_of(walled)
    if own is not None and not zones.pixels.empty:
        before = dead_zone(trial.model, trial.inputs[:2], draws=2, seed=trial.seed)
        zones = replace(zones, wall_hides_pixels=not torch.equal(before.mask, zones.pixels.mask))
    request.say("proving what is dead", 1, 1)
    where = f"a wall hides {stands}" if stands is not None else "the model is taken as it is"
    record = {
        **request.record(trial),
        "layer": zones.layer,
        "wall": None if stands is None else str(stands),
        "dead_pixels": zones.pixels.to_dict(),
        "dead_cells": None if zones.cells is None else zones.cells.to_dict(),
    }
    title = f"Dead-zone audit of {trial.name}"
    tested = f"{ABOUT}\n{trial.name}: {where}. {proved(zones)}"
    if not zones.judged:
        said = (
            "Nothing is dead for this model, so no method can be caught lighting it up; put up a wall, such as "
            f"{argument('wall', 'rows:170-223')}."
        )
        return AuditReport("deadzone", title, tested, said, record=record)
    run = _Run(walled, zones, request, request.store(trial, "deadzone", **record))
    found, verdicts = run.measured(), run.verdicts()
    caption = f"{trial.name}, {len(trial.inputs)} images, layer {zones.layer}"
    picture = zone_picture(walled, run.drawn(), zones)
    return AuditReport(
        "deadzone",
        title,
        tested,
        summary(verdicts, zones.unseen),
        verdicts,
        (run.table("activity", caption), *run.tuning_tables()),
        (picture,) if picture else (),
        {**record, "opticam": run.tuning, "measured": found, "resumed_parts": run.store.found},
    )


def _on_stand_ins(request: Request, plan: WallPlan | None) -> AuditReport:
    """The audit on small networks that are trained now; their dead zone is proved before the training."""
    quick, seed, most = request.quick, request.seed, request.count or (20 if request.quick else 100)
    plan = plan or WallPlan.of(quick=quick, seed=seed)
    chosen = _methods(request)  # an unknown one is told before the training
    key = {"plan": asdict(plan), "images": most, "quick": quick, "seed": seed}
    store = Store(request.out, key)
    trainer = WalledNets(plan, store, request.say)
    nets = [trainer.get(kind) for kind in NETS]
    inputs, labels, others = audit_images(trainer.dead_from, most, seed + 2)
    runs: dict[NetKind, _Run] = {}
    for net in nets:
        trial = Trial(net.model, inputs, None, LAYER, PREPROCESS, seed, batch_size=20)
        zones = _stand_in_zones(net, trial, trainer.zone)
        runs[net.kind] = _Run(trial, zones, request, store, net.kind, chosen)
    found = {kind: run.measured() for kind, run in runs.items()}
    zones_by = {kind: run.zones for kind, run in runs.items()}
    verdicts = tuple(worst(one.label, found, zones_by) for one in chosen)
    masked = runs["masked"]
    picture = zone_picture(masked.trial, masked.drawn(), masked.zones, (labels, others))
    curves = curve_chart({NETS[net.kind]: net.record.get("curve", []) for net in nets})
    tables = [
        run.table(f"activity-{kind}", f"{NETS[kind].capitalize()}, {most} images")
        for kind, run in runs.items()
    ]
    return AuditReport(
        "deadzone",
        "Dead-zone audit on stand-ins",
        f"{ABOUT}\nThree small networks were trained on digits on photos. The head of the masked ones ignores the "
        f"lower part of the last feature map; before the training it was proved that {nets[0].zone}. Explained is "
        f"the predicted class of {most} images with one digit in the seen part and another in the dead part. "
        f"{proved(masked.zones)}",
        summary(verdicts, masked.zones.unseen),
        verdicts,
        (
            *tables,
            accuracy_table(nets, trainer.dead_from),
            *(table for run in runs.values() for table in run.tuning_tables()),
        ),
        tuple(p for p in (picture, curves) if p),
        {
            **key,
            "nets": {net.kind: net.record for net in nets},
            "dead_pixels": {net.kind: net.zone.to_dict() for net in nets},
            "zones": {
                kind: {"pixels": z.pixels.to_dict(), "cells": z.cells and z.cells.to_dict()}
                for kind, z in zones_by.items()
            },
            "opticam": {kind: run.tuning for kind, run in runs.items()},
            "measured": found,
            "resumed_parts": store.found,
        },
    )


def zones_of(trial: Trial, draws: int = 2) -> Zones:
    """The dead pixels, and the dead cells of the explained layer, proved on the first two images and noise."""
    few, layer = trial.inputs[:2], trial.layer or INPUT
    pixels = dead_zone(trial.model, few, draws=draws, seed=trial.seed)
    cells = None
    if layer != INPUT:
        cells = dead_zone(trial.model, few, layer, draws=draws, seed=trial.seed)
    return Zones(pixels, cells, layer)


# -------------------------------------------------------------------------------------------- pieces


def _methods(request: Request) -> tuple[Candidate, ...]:
    """All methods unless told, the paper's first; those that choose several layers also with a single one."""
    if request.methods is None:
        names = [*PAPER, *(name for name in usual(quick=False) if name not in PAPER)]
        request = replace(request, methods=names)
    found: list[Candidate] = []
    for one in request.tested():
        found += [one, replace(one, one_layer=True)] if one.row.one_layer else [one]
    return tuple(found)


@dataclass
class _Run:
    """The methods on one network."""

    trial: Trial
    zones: Zones
    request: Request
    store: Store
    net: NetKind | None = None
    chosen: Sequence[Candidate] = ()

    def __post_init__(self) -> None:
        self.chosen = self.chosen or _methods(self.request)
        self.tuning: dict[str, Any] | None = None
        self.found: dict[str, dict[str, Any]] = {}

    def measured(self) -> dict[str, dict[str, Any]]:
        """The numbers of every method, Opti-CAM tuned."""
        if any(map(_is_tuned, self.chosen)):
            self.tuning = self._part("opticam-tuning", "tuning opticam", 0, 1, self._tuned)
        if self.tuning is not None:
            options = self.tuning["options"]
            self.chosen = [
                replace(one, options=options) if _is_tuned(one) else one for one in self.chosen
            ]
        for i, one in enumerate(self.chosen):
            self.found[one.label] = self._part(
                one.key, f"measuring {one.label}", i, len(self.chosen),
                lambda progress, one=one: measure(self.trial, one, self.zones, progress),
            )  # fmt: skip
        return self.found

    def _tuned(self, progress: Any) -> dict[str, Any] | None:
        quick = self.request.quick
        options: dict[str, Any] = {"iterations": (50,)} if quick else {}
        try:
            return tune_opticam(self.trial.few(6 if quick else 20), progress=progress, **options)
        except CamlucidaError:
            return None  # measuring it tells why

    def _part(self, key: str, title: str, first: int, parts: int, compute: Any) -> Any:
        title += f" on the {self.net} net" if self.net else ""

        def progress(done: float, total: float) -> None:
            self.request.say(title, first + done / total, parts)

        progress(0, 1)
        found = self.store.value(f"{self.net or ''}-{key}", lambda: compute(progress))
        progress(1, 1)
        return found

    def verdicts(self) -> tuple[Verdict, ...]:
        """Of every method."""
        return tuple(verdict(label, values, self.zones) for label, values in self.found.items())

    def drawn(self) -> list[Candidate]:
        """The methods that can explain the network."""
        return [one for one in self.chosen if "error" not in self.found[one.label]]

    def table(self, name: str, caption: str) -> Table:
        """The numbers."""
        rows = [row(label, values) for label, values in self.found.items()]
        seen = "Nothing is dead for this network: the same rows, for comparison only."
        said = note(self.zones) if self.zones.pixels.proof.get("dead", True) else seen
        return Table.of_rows(name, caption, ROW, rows, said)

    def tuning_tables(self) -> list[Table]:
        """What Opti-CAM was tried with, where it was."""
        return [] if self.tuning is None else [tuning_table(self.tuning, self.net)]


def _is_tuned(one: Candidate) -> bool:
    """Opti-CAM is, unless it was given options."""
    return one.name == "opticam" and not one.options


def _stand_in_zones(net: WalledNet, trial: Trial, masked: DeadZone) -> Zones:
    found = zones_of(trial)
    if net.kind != "unmasked":
        return found
    if not found.pixels.empty:
        raise CamlucidaError(f"the unmasked twin should see everything, but {found.pixels}")
    # The same rows, although they are not dead here.
    return Zones(replace(masked, proof={"dead": False}), None, LAYER)
