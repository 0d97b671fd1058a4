"""The dead-zone audit: do methods light up what the model provably cannot see?

"CAM-Based Methods Can See Through Walls" (Taimeskhanov, Sicre and Garreau, ECML 2024), on the paper's masked
network, on any model behind a wall, or on small stand-ins that train in minutes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.activity import (
    ROW,
    Chosen,
    Zones,
    all_methods,
    check_images,
    measure,
    row,
    tune_opticam,
    verdict,
)
from camlucida.audits.deadzone.figures import curve_figure, zone_picture
from camlucida.audits.deadzone.images import described, prepared
from camlucida.audits.deadzone.nets import (
    LAYER,
    NETS,
    PREPROCESS,
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
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.request import Tested
from camlucida.common.errors import CamlucidaError, LayerError
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.store import Store
from camlucida.data.regions import Region
from camlucida.data.samples import DataSet
from camlucida.engine.borrow import unwrap
from camlucida.engine.layers import INPUT, default_layer
from camlucida.explanation.subject import Photo
from camlucida.models import LoadedModel
from camlucida.report import Table

__all__ = ["DeadZone", "audit_dead_zone", "audit_dead_zone_stand_ins", "dead_zone", "zones_of"]


def zones_of(
    model: nn.Module, inputs: Tensor, layer: str, *, draws: int = 2, seed: int = 0
) -> Zones:
    """The dead pixels, and the dead cells of a layer, each proved by :func:`dead_zone`.

    Args:
        model: with its wall.
        inputs: ``(N, C, H, W)``; the first two are used, and noise.
        layer: the explained layer.
        draws: see :func:`dead_zone`.
        seed: of the noise.
    """
    few = inputs[:2]
    pixels = dead_zone(model, few, draws=draws, seed=seed)
    cells = None if layer == INPUT else dead_zone(model, few, layer, draws=draws, seed=seed)
    return Zones(pixels, cells, layer)


def audit_dead_zone(
    model: nn.Module | LoadedModel,
    images: DataSet | Tensor | Photo | Sequence[Photo],
    *,
    wall: Wall | str | None = None,
    layer: str | None = None,
    methods: Sequence[Chosen] | None = None,
    count: int | None = None,
    quick: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """Put methods to the test on a model behind a wall.

    Args:
        model: any classifier; given back as it was.
        images: photos, a data set, or a tensor that is ready. Best are images with one object on each side of
            the wall, such as :class:`camlucida.data.stack_mix.StackMix` makes them.
        wall: where it stands, a :class:`Wall` or text such as ``"rows:170-223"`` or
            ``"rows:5-6@layer4"``; ``None`` for a model that has one already.
        layer: the explained layer; by default the wall's, else the model's last feature map, or the input where
            it has none.
        methods: registered names, or pairs of a name and options; all by default. Opti-CAM is tuned to a low average
            drop, unless it has options.
        count: images at most; 20 with ``quick``, else 100.
        quick: fewer images, and fewer passes of the methods that take many.
        seed: of noise and methods.
        batch_size: images at a time.
        folder: where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress.

    Raises:
        CamlucidaError: the wall does not fit, or the images cannot be read.
    """
    report = say or (lambda *_: None)
    most = count or (20 if quick else 100)
    module, inputs, preprocess = prepared(model, images, most)
    check_images(inputs)
    stands = Wall.parse(wall) if isinstance(wall, str) else wall
    walled = module if stands is None else stands.build(module, inputs)
    explained = layer or (stands.layer if stands is not None and stands.layer else None)
    explained = explained or _last_map(walled, inputs)
    name = model.name if isinstance(model, LoadedModel) else type(unwrap(model)).__name__
    report("proving what is dead", 0, 1)
    zones = zones_of(walled, inputs, explained, seed=seed)
    if stands is not None and stands.layer is not None and not zones.pixels.empty:
        before = dead_zone(module, inputs[:2], draws=2, seed=seed)
        zones = replace(zones, wall_hides_pixels=not torch.equal(before.mask, zones.pixels.mask))
    report("proving what is dead", 1, 1)
    where = f"a wall hides {stands}" if stands is not None else "the model is taken as it is"
    record: dict[str, Any] = {
        "model": name,
        "weights_sha256": fingerprint(module),
        "wall": None if stands is None else str(stands),
        "layer": explained,
        "images": _described(images, inputs),
        "quick": quick,
        "seed": seed,
        "dead_pixels": zones.pixels.to_dict(),
        "dead_cells": None if zones.cells is None else zones.cells.to_dict(),
    }
    tested = f"{ABOUT}\n{name}: {where}. {proved(zones)}"
    if not zones.judged:
        return AuditReport(
            "deadzone",
            f"Dead-zone audit of {name}",
            tested,
            "Nothing is dead for this model, so no method can be caught lighting it up; put up a wall (wall=, or "
            "--wall on the command line), such as rows:170-223.",
            record=record,
        )
    store = Store(folder, {**record, "batch_size": batch_size, "preprocess": str(preprocess)})
    chosen = all_methods(quick=quick, names=methods)
    tuning = _tuning(walled, inputs, explained, chosen, store, quick, preprocess, report)
    chosen = _tuned(chosen, tuning)
    found = {
        one.label: _measure(
            one, walled, inputs, zones, store, "", report, i, len(chosen),
            preprocess=preprocess, seed=seed, batch_size=batch_size,
        )
        for i, one in enumerate(chosen)
    }  # fmt: skip
    verdicts = tuple(verdict(label, values, zones) for label, values in found.items())
    tables = [
        Table.of_rows(
            "activity",
            f"{name}, {len(inputs)} images, layer {explained}",
            ROW,
            [row(label, values) for label, values in found.items()],
            note(zones),
        )
    ]
    if tuning is not None:
        tables.append(tuning_table(tuning))
    drawn = [one for one in chosen if "error" not in found[one.label]]
    picture = zone_picture(walled, inputs, drawn, zones, None, preprocess, seed)
    return AuditReport(
        "deadzone",
        f"Dead-zone audit of {name}",
        tested,
        summary(verdicts),
        verdicts,
        tuple(tables),
        (picture,) if picture else (),
        {**record, "opticam": tuning, "measured": found},
    )


def audit_dead_zone_stand_ins(
    *,
    methods: Sequence[Chosen] | None = None,
    count: int | None = None,
    quick: bool = True,
    plan: WallPlan | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """The audit on small networks that are trained now: a masked one, its unmasked twin and a residual one.

    The dead zone is proved before the training. Images show a digit in the seen part, which is the label,
    and one of another class in the dead part.

    Args:
        methods: registered names, or pairs of a name and options; all by default. Opti-CAM is tuned to a low average
            drop, unless it has options.
        count: images; 20 with ``quick``, else 100.
        quick: shorter training and fewer passes of the methods that take many; a few minutes on two cores.
        plan: how the networks are trained.
        seed: of everything.
        folder: where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress.
    """
    report = say or (lambda *_: None)
    most = count or (20 if quick else 100)
    plan = plan or WallPlan.of(quick=quick, seed=seed)
    store = Store(folder, {"plan": asdict(plan), "images": most, "quick": quick, "seed": seed})
    trainer = WalledNets(plan, store, report)
    nets = [trainer.get(kind) for kind in NETS]
    inputs, labels, others = audit_images(trainer.dead_from, most, seed + 2)
    chosen = all_methods(quick=quick, names=methods)
    found: dict[str, dict[str, Any]] = {}
    tunings: dict[str, Any] = {}
    zones: dict[str, Zones] = {}
    runs: dict[str, tuple[Tested, ...]] = {}
    for net in nets:
        zones[net.kind] = _stand_in_zones(net, inputs, trainer.zone, seed)
        tunings[net.kind] = _tuning(
            net.model, inputs, LAYER, chosen, store, quick, PREPROCESS, report, net.kind
        )
        runs[net.kind] = _tuned(chosen, tunings[net.kind])
        found[net.kind] = {
            one.label: _measure(
                one, net.model, inputs, zones[net.kind], store, net.kind, report, i, len(chosen),
                preprocess=PREPROCESS, seed=seed, batch_size=20,
            )
            for i, one in enumerate(runs[net.kind])
        }  # fmt: skip
    verdicts = tuple(worst(one.label, found, zones) for one in chosen)
    masked = nets[0]
    drawn = [one for one in runs["masked"] if "error" not in found["masked"][one.label]]
    picture = zone_picture(
        masked.model, inputs, drawn, zones["masked"], (labels, others), PREPROCESS, seed
    )
    curves = Illustration.of(
        "training",
        "Accuracy after each epoch on images with two digits, of which the one in the seen part is the label.",
        curve_figure({NETS[net.kind]: net.record.get("curve", []) for net in nets}),
    )
    tables = (
        *(
            Table.of_rows(
                f"activity-{net.kind}",
                f"{NETS[net.kind].capitalize()}, {most} images",
                ROW,
                [row(label, values) for label, values in found[net.kind].items()],
                note(zones[net.kind])
                if net.kind != "unmasked"
                else "Nothing is dead for this network: the same rows, for comparison only.",
            )
            for net in nets
        ),
        accuracy_table(nets, trainer.dead_from),
        *(
            tuning_table(tuning, net.kind)
            for net in nets
            if (tuning := tunings[net.kind]) is not None
        ),
    )
    return AuditReport(
        "deadzone",
        "Dead-zone audit on stand-ins",
        f"{ABOUT}\nThree small networks were trained on digits on photos. The head of the masked ones ignores the "
        f"lower part of the last feature map; before the training it was proved that {masked.zone}. Explained is "
        f"the predicted class of {most} images with one digit in the seen part and another in the dead part. "
        f"{proved(zones['masked'])}",
        summary(verdicts),
        verdicts,
        tables,
        tuple(p for p in (picture, curves) if p),
        {
            "quick": quick,
            "seed": seed,
            "plan": asdict(plan),
            "nets": {net.kind: net.record for net in nets},
            "dead_pixels": {net.kind: net.zone.to_dict() for net in nets},
            "zones": {
                kind: {"pixels": z.pixels.to_dict(), "cells": z.cells and z.cells.to_dict()}
                for kind, z in zones.items()
            },
            "opticam": tunings,
            "measured": found,
            "resumed_parts": store.found,
        },
    )


# -------------------------------------------------------------------------------------------- pieces


def _stand_in_zones(net: WalledNet, inputs: Tensor, masked: DeadZone, seed: int) -> Zones:
    found = zones_of(net.model, inputs, LAYER, draws=2, seed=seed)
    if net.kind != "unmasked":
        return found
    if not found.pixels.empty:
        raise CamlucidaError(f"the unmasked twin should see everything, but {found.pixels}")
    # The same rows, although they are not dead here.
    return Zones(replace(masked, proof={"dead": False}), None, LAYER)


def _measure(
    one: Tested,
    model: nn.Module,
    inputs: Tensor,
    zones: Zones,
    store: Store,
    net: str,
    report: Say,
    first: int,
    methods: int,
    **options: Any,
) -> dict[str, Any]:
    title = f"measuring {one.label}" + (f" on the {net} net" if net else "")
    report(title, first, methods)
    key = f"{net}-{one.label}-{sorted(one.options.items())}"

    def progress(done: float, total: float) -> None:
        report(title, first + done / total, methods)

    found: dict[str, Any] = store.value(
        key, lambda: measure(model, inputs, one, zones, progress=progress, **options)
    )
    report(title, first + 1, methods)
    return found


def _tuning(
    model: nn.Module,
    inputs: Tensor,
    layer: str,
    chosen: Sequence[Tested],
    store: Store,
    quick: bool,
    preprocess: Any,
    report: Say,
    net: str = "",
) -> dict[str, Any] | None:
    """What Opti-CAM's options were tuned to; ``None`` where it is not asked for or cannot explain the model."""
    if not any(map(_is_tuned, chosen)):
        return None
    few = inputs[: 6 if quick else 20]
    options: dict[str, Any] = {} if not quick else {"iterations": (50,)}
    title = "tuning opticam" + (f" on the {net} net" if net else "")

    def progress(done: float, total: float) -> None:
        report(title, done, total)

    def tune() -> dict[str, Any] | None:
        try:
            return tune_opticam(
                model, few, layer, preprocess=preprocess, progress=progress, **options
            )
        except CamlucidaError:
            return None  # measuring it tells why

    tuning: dict[str, Any] | None = store.value(f"{net}-opticam-tuning", tune)
    return tuning


def _tuned(chosen: Sequence[Tested], tuning: Mapping[str, Any] | None) -> tuple[Tested, ...]:
    if tuning is None:
        return tuple(chosen)
    return tuple(
        replace(one, options=tuning["options"]) if _is_tuned(one) else one for one in chosen
    )


def _is_tuned(one: Tested) -> bool:
    """Opti-CAM is, unless it was given options."""
    return one.name == "opticam" and not one.options


def _described(images: Any, inputs: Tensor) -> dict[str, Any]:
    known = images.describe() if isinstance(images, DataSet) else {}
    return {**known, **described(inputs)}


def _last_map(model: nn.Module, inputs: Tensor) -> str:
    """The layer that is explained by default; the input of a model without feature maps."""
    try:
        return default_layer(model, inputs)
    except LayerError:
        return INPUT


def region_of(zone: DeadZone) -> Region | None:
    """The zone as whole rows at the lower edge, what STACK-MIX fills; ``None`` where it is something else."""
    if zone.rows is None or zone.rows[1] != zone.mask.shape[0] - 1:
        return None
    return Region.rows(*zone.rows)
