"""The audits that ``camlucida audit all`` asks, by name: each answers one question about every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from camlucida.audits.report import AuditReport
from camlucida.audits.request import Request, Tested
from camlucida.audits.rules import ATTACK, FAITHFUL, PIXEL_WALL, SANITY, WALL, Rule
from camlucida.common.errors import CamlucidaError
from camlucida.common.registry import Registry, Row
from camlucida.engine.layers import default_layer
from camlucida.methods import method_row
from camlucida.targets import LogitMargin


@dataclass(frozen=True)
class AuditRow(Row[AuditReport]):
    """An audit that can be asked about any classifier; ``make`` takes a :class:`Request` and returns its report.

    Attributes:
        title: for people.
        asks: the question that it answers about a method.
        rules: what its findings mean for the questions of the trust report.
        subject: how the audit calls a method in its verdicts.
        honours: the options of a method that the audit follows, measuring the others as they usually are; all of
            them where it is ``None``.
        preface: said before its findings in the trust report.
    """

    what: ClassVar[str] = "audit"

    make: Callable[[Request], AuditReport]
    title: str
    asks: str
    rules: tuple[Rule, ...] = ()
    subject: Callable[[Tested], str] = lambda tested: tested.label
    honours: tuple[str, ...] | None = None
    preface: str = ""

    def is_usual(self, tested: Tested) -> bool:
        """Whether the audit leaves out options of a method that the user gave."""
        return self.honours is not None and not set(tested.given) <= set(self.honours)


AUDITS = Registry(AuditRow)


def register(
    name: str, *, title: str, asks: str, **facts: Any
) -> Callable[[Callable[[Request], AuditReport]], Callable[[Request], AuditReport]]:
    """Decorator that makes an audit known to ``camlucida audit all``; also for audits outside the package.

    Args:
        name: short; also of its files.
        title: for people.
        asks: the question that it answers about a method.
        **facts: the other fields of :class:`AuditRow`.

    Raises:
        CamlucidaError: the name is taken by another function.
    """

    def add(make: Callable[[Request], AuditReport]) -> Callable[[Request], AuditReport]:
        AUDITS.add(AuditRow(name, make, title, asks, **facts))
        return make

    return add


def list_audits() -> tuple[AuditRow, ...]:
    """The audits that ``camlucida audit all`` asks, in the order of registration."""
    return tuple(AUDITS)


# --------------------------------------------------------------------------------------------- audits

_WALLED = "With a test wall in the model: "


@register(
    "sanity",
    title="Sanity checks",
    asks="Does the map change when the model changes, and only then?",
    rules=SANITY,
)
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


@register(
    "deadzone",
    title="Dead zone",
    asks="Does the map light up what the model provably does not see?",
    rules=WALL,
    subject=lambda tested: tested.name,
    honours=(),
    preface=_WALLED,
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


@register(
    "deadzone-pixels",
    title="Dead pixels",
    asks="Does the map light up pixels that the model never gets?",
    rules=PIXEL_WALL,
    subject=lambda tested: tested.name,
    honours=(),
    preface=_WALLED,
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


def _logit_subject(tested: Tested) -> str:
    from camlucida.audits.fooling.measure import Variant

    row = method_row(tested.name)
    if row.target is not LogitMargin:
        return tested.name
    aggregator = tested.options.get("aggregator", "mean")
    return Variant(row.base.name, aggregator).label


@register(
    "logit-shift",
    title="Logit shift",
    asks="Can somebody move the map without changing any prediction?",
    rules=ATTACK,
    subject=_logit_subject,
    honours=("aggregator",),
)
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


@register(
    "faithfulness",
    title="Faithfulness",
    asks="Does the model need the pixels that the map puts first?",
    rules=FAITHFUL,
)
def _faithful(request: Request) -> AuditReport:
    from camlucida.audits.trust.faithful import audit_faithfulness

    return audit_faithfulness(request)
