"""The audits that ``camlucida audit all`` asks, by name: each answers one question about every method."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from camlucida.audits.base import AuditReport, Verdict
from camlucida.audits.request import Request, Tested
from camlucida.common.errors import CamlucidaError
from camlucida.data.samples import DataSet
from camlucida.engine.layers import default_layer
from camlucida.methods import method_row
from camlucida.targets import LogitMargin


def _own_label(tested: Tested) -> str:
    return tested.label


@dataclass(frozen=True)
class AuditEntry:
    """An audit that can be asked about any classifier.

    Attributes:
        name: short; also of its files.
        title: for people.
        asks: the question that it answers about a method.
        run: does it.
        subject: how the audit calls a method in its verdicts.
    """

    name: str
    title: str
    asks: str
    run: Callable[[Request], AuditReport]
    subject: Callable[[Tested], str] = _own_label


_AUDITS: dict[str, AuditEntry] = {}


def register_audit(row: AuditEntry) -> AuditEntry:
    """Make an audit known to ``camlucida audit all``; one of the same name is replaced."""
    _AUDITS[row.name] = row
    return row


def audits(names: Sequence[str] | None = None) -> tuple[AuditEntry, ...]:
    """The registered audits, or those of these names, in the order of registration.

    Raises:
        CamlucidaError: for an unknown name.
    """
    for name in names or ():
        if name not in _AUDITS:
            raise CamlucidaError(f"unknown audit {name!r}; known: {', '.join(_AUDITS)}")
    return tuple(row for row in _AUDITS.values() if names is None or row.name in names)


# --------------------------------------------------------------------------------------------- audits


def _sanity(request: Request) -> AuditReport:
    from camlucida.audits.sanity.audit import audit_sanity

    return audit_sanity(
        request.model,
        request.inputs,
        methods=request.methods,
        preprocess=request.preprocess,
        layer=request.layer,
        count=len(request.inputs),
        quick=request.quick,
        data=request.labels,
        seed=request.seed,
        batch_size=request.batch_size,
        folder=request.folder,
        say=request.say,
    )


def _wall(request: Request) -> AuditReport:
    """The lowest quarter of the explained layer's map is hidden from what follows."""
    from camlucida.audits.deadzone.audit import audit_dead_zone
    from camlucida.audits.deadzone.walls import Wall
    from camlucida.data.regions import Region
    from camlucida.engine.layers import list_layers

    # A pass for each channel, behind a wall that forbids short cuts, is for the full audit.
    chosen = request.of(
        lambda t: (
            not t.own_layers and not (request.quick and "channels" in method_row(t.name).cost.times)
        )
    )
    if not chosen:
        raise CamlucidaError(
            "all of the methods explain the input, or take a pass for each channel, which only the full audit takes"
        )
    layer = request.layer or default_layer(request.module, request.inputs)
    seen = list_layers(request.module, request.inputs[:1])
    rows = next((i.shape[1] for i in seen if i.name == layer and i.shape is not None), 0)
    if rows < 2:
        raise CamlucidaError(f"the map of {layer} has {rows} rows, too few for a wall")
    wall = Wall(Region.rows(rows - max(1, rows // 4)), layer)
    return audit_dead_zone(
        request.model, request.inputs, wall=wall, **_dead_options(request, chosen)
    )


def _pixel_wall(request: Request) -> AuditReport:
    """The lowest quarter of the input is hidden from the model."""
    from camlucida.audits.deadzone.audit import audit_dead_zone
    from camlucida.audits.deadzone.walls import Wall
    from camlucida.data.regions import Region

    chosen = request.of(lambda t: t.own_layers)
    if not chosen:
        raise CamlucidaError("all of the methods explain a layer")
    height = int(request.inputs.shape[-2])
    wall = Wall(Region.rows(height - max(1, height // 4)))
    found = audit_dead_zone(
        request.model, request.inputs, wall=wall, **_dead_options(request, chosen)
    )
    return replace(found, audit="deadzone-pixels", title=f"{found.title}, hidden pixels")


def _dead_options(request: Request, chosen: Sequence[Tested]) -> Mapping[str, Any]:
    return {
        "methods": list(dict.fromkeys(t.name for t in chosen)),
        "count": min(len(request.inputs), 4 if request.quick else 100),
        "quick": request.quick,
        "seed": request.seed,
        "batch_size": request.batch_size,
        "folder": request.folder,
        "say": request.say,
    }


def _logit_shift(request: Request) -> AuditReport:
    from camlucida.audits.fooling.logit_shift import audit_logit_shift

    # Every method comes with its logit and with margins: in quick runs only those that are cheap.
    chosen = request.of(lambda t: not (t.own_layers and request.quick))
    if not chosen:
        raise CamlucidaError("none of the methods explains a layer")
    few = request.inputs[: 2 if request.quick else 50]
    return audit_logit_shift(
        request.module,
        few,
        layer=request.layer,
        methods=list(dict.fromkeys(t.name for t in chosen)),
        quick=request.quick,
        preprocess=request.preprocess,
        name=request.name,
        seed=request.seed,
        folder=request.folder,
        say=request.say,
    )


def _logit_subject(tested: Tested) -> str:
    from camlucida.audits.fooling.measure import Variant

    row = method_row(tested.name)
    if row.target is not LogitMargin:
        return tested.name
    aggregator = tested.options.get("aggregator", "mean")
    return Variant(row.base.name, aggregator).label


def _faithful(request: Request) -> AuditReport:
    from camlucida.audits.trust.faithful import audit_faithfulness

    return audit_faithfulness(request)


def verdict_on(row: AuditEntry, report: AuditReport, tested: Tested) -> Verdict | None:
    """What an audit said of a method; ``None`` where it said nothing.

    The walls and the logit shift take methods by name: of one with options of its own the text says so.
    """
    subject = row.subject(tested)
    try:
        found = report[subject]
    except KeyError:
        return None
    given = tested.label.partition(":")[2].split(",")
    kept = (
        {f"aggregator={tested.options.get('aggregator')}"} if row.name == "logit-shift" else set()
    )
    if subject == tested.label or not set(given) - kept - {""} or row.subject is _own_label:
        return found
    return replace(found, text=f"{found.text} Measured with the usual options of {tested.name}.")


for _row in (
    AuditEntry(
        "sanity", "Sanity checks", "Does the map change when the model changes, and only then?", _sanity
    ),
    AuditEntry(
        "deadzone", "Dead zone", "Does the map light up what the model provably does not see?",
        _wall, lambda t: t.name,
    ),
    AuditEntry(
        "deadzone-pixels", "Dead pixels", "Does the map light up pixels that the model never gets?",
        _pixel_wall, lambda t: t.name,
    ),
    AuditEntry(
        "logit-shift", "Logit shift", "Can somebody move the map without changing any prediction?",
        _logit_shift, _logit_subject,
    ),
    AuditEntry(
        "faithfulness", "Faithfulness", "Does the model need the pixels that the map puts first?",
        _faithful,
    ),
):  # fmt: skip
    register_audit(_row)


def open_images(images: DataSet | str | os.PathLike[str], class_names: Sequence[str] | None) -> Any:
    """A data set, opened where it was only named."""
    from camlucida.data.open import open_data

    return images if isinstance(images, DataSet) else open_data(images, class_names=class_names)
