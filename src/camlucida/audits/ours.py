"""The audits of this package that ``camlucida audit all`` asks: each answers one question about every method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from camlucida.audits.candidates import Candidate
from camlucida.audits.deadzone.audit import dead_zone_audit
from camlucida.audits.deadzone.walls import Wall
from camlucida.audits.fooling.logit_shift import logit_shift_audit
from camlucida.audits.registry import AUDITS, AuditRow, register
from camlucida.audits.report import AuditReport
from camlucida.audits.request import Request
from camlucida.audits.rules import ATTACK, FAITHFUL, PIXEL_WALL, SANITY, WALL
from camlucida.audits.sanity.audit import measure_sanity
from camlucida.audits.sanity.report import report_of
from camlucida.audits.trust.faithful import faithfulness_audit
from camlucida.audits.verdicts import ENOUGH
from camlucida.common.errors import CamlucidaError, LayerError, ModelError
from camlucida.data.regions import Region
from camlucida.engine.layers import list_layers
from camlucida.targets import LogitMargin

__all__ = ["list_audits", "register"]

_WALLED = "With a test wall in the model: "


def list_audits() -> tuple[AuditRow, ...]:
    """The audits that ``camlucida audit all`` asks, in the order of registration.

    Example:
        >>> [row.name for row in camlucida.audits.list_audits()][:2]
        ['sanity', 'deadzone']
    """
    return tuple(AUDITS)


@register(
    "sanity",
    title="Sanity checks",
    asks="Does the map change when the model changes, and stay the same when it does not?",
    rules=SANITY,
    images=(ENOUGH, 50),
    catches=("parameters", "class"),
)
def _sanity(request: Request) -> AuditReport:
    return report_of(measure_sanity(request))


@register(
    "deadzone",
    title="Dead zone",
    asks="Does the map light up cells that the head provably ignores?",
    rules=WALL,
    subject=lambda tested: tested.name,
    honours=(),
    preface=_WALLED,
    images=(ENOUGH, 100),
    catches=("deadzone", "blank where seen", "faded wall"),
)
def _wall(request: Request) -> AuditReport:
    """The lowest quarter of the explained layer's map is hidden from what follows."""
    # A pass for each channel, behind a wall that forbids short cuts, is for the full audit.
    chosen = _only(
        request,
        lambda one: not one.own_layers and not (request.quick and "channels" in one.row.cost.times),
        "all of the methods explain the input, or take a pass for each channel, which only the full audit takes",
    )
    trial = request.open()
    seen = list_layers(trial.model, trial.inputs[:1])
    layer = trial.explained_layer
    rows = next((i.shape[1] for i in seen if i.name == layer and i.shape is not None), 0)
    if rows < 2:
        raise CamlucidaError(f"the map of {layer} has {rows} rows, too few for a wall")
    return _behind_a_wall(chosen, rows, layer)


@register(
    "deadzone-pixels",
    title="Dead pixels",
    asks="Does the map light up pixels that the model never gets?",
    rules=PIXEL_WALL,
    subject=lambda tested: tested.name,
    honours=(),
    preface=_WALLED,
    images=(ENOUGH, 100),
    catches=("deadzone-pixels",),
)
def _pixel_wall(request: Request) -> AuditReport:
    """The lowest quarter of the input is hidden from the model."""
    chosen = _only(request, lambda one: one.own_layers, "all of the methods explain a layer")
    height = request.open().size[0]
    found = _behind_a_wall(chosen, height, None)
    return replace(found, audit="deadzone-pixels", title=f"{found.title}, hidden pixels")


def _behind_a_wall(request: Request, rows: int, layer: str | None) -> AuditReport:
    """The lowest quarter is hidden; or the highest, where nothing else reaches the output."""
    quarter = max(1, rows // 4)
    try:
        return dead_zone_audit(request, Wall(Region.rows(rows - quarter), layer))
    except (LayerError, ModelError):
        return dead_zone_audit(request, Wall(Region.rows(0, quarter - 1), layer))


def _margin(tested: Candidate) -> str:
    """``diffgradcam`` is ``gradcam`` on a margin."""
    if tested.row.target is not LogitMargin:
        return tested.name
    return Candidate(tested.row.base.name, tested.options.get("aggregator", "mean")).label


@register(
    "logit-shift",
    title="Logit shift",
    asks="Can somebody move the map without changing any prediction?",
    rules=ATTACK,
    subject=_margin,
    honours=("aggregator",),
    images=(ENOUGH, 50),
)
def _logit_shift(request: Request) -> AuditReport:
    # Every method comes with its logit and with margins: in quick runs only those that are cheap.
    chosen = _only(
        request,
        lambda one: not (one.own_layers and request.quick),
        "none of the methods explains a layer",
    )
    return logit_shift_audit(chosen, margins=not request.quick)


@register(
    "faithfulness",
    title="Faithfulness",
    asks="Does the map put first what matters to the model?",
    rules=FAITHFUL,
    images=(2 * ENOUGH, 100),
)
def _faithful(request: Request) -> AuditReport:
    return faithfulness_audit(request)


def _only(request: Request, fits: Callable[[Candidate], bool], none: str) -> Request:
    """The request with the methods that fit, with their usual options."""
    names = list(dict.fromkeys(one.name for one in request.tested() if fits(one)))
    if not names:
        raise CamlucidaError(none)
    return replace(request, methods=names)
