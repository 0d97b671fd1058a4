"""``camlucida audit grades``, ``metrics`` and ``layer-scores``: grades, metrics and I-CAM's layer score on trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlucida.cli.audit.group import write_report
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    AsJson,
    AuditData,
    AuditedMethods,
    AuditOut,
    Count,
    Device,
    IcamMethod,
    ImageBatchSize,
    Quick,
    Seed,
)
from camlucida.cli.shared.writing import claim

Worlds = Annotated[
    list[str] | None,
    typer.Option(
        "--world",
        metavar="NAME",
        help="A planted world, such as watermark; repeat the option for several. (default: all, or five for metrics)",
    ),
]


def grades(
    method: AuditedMethods = None,
    world: Worlds = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Networks and sets of images of each world.")
    ] = 1,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Grade each network on other images too, and count the grades that come out again.",
        ),
    ] = False,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Are the grades of audit all right? Held against networks of which it is known what they look at.

    About a minute for each world and network.
    """
    from camlucida.audits import audit_grades

    methods = known_methods(method or ()) or None
    write_report(
        lambda say: audit_grades(methods, worlds=world, seeds=seeds, again=again, out=out, say=say),
        out,
        as_json=as_json,
    )


def metrics(
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Try this metric only; repeat the option for several. (default: all)",
        ),
    ] = None,
    world: Worlds = None,
    count: Annotated[int, typer.Option(metavar="N", help="Images of each world.")] = 12,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Do the metrics put truth above noise? Held against images of which it is known what decides."""
    from camlucida.audits import audit_metrics
    from camlucida.audits.metrics_trial import WORLDS

    write_report(
        lambda say: audit_metrics(
            metric, worlds=world or WORLDS, count=count, seed=seed, out=out, say=say
        ),
        out,
        as_json=as_json,
    )


@takes_model
def layer_scores(
    model: Model = EMBEDDED,
    data: AuditData = None,
    method: IcamMethod = "icam",
    count: Count = None,
    batch_size: ImageBatchSize = 8,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Does a low layer score of Integrative CAM say that the layer can be bypassed or pruned with little loss?"""
    from camlucida.studies.icam import audit_layer_scores

    loaded = model.load(device)
    claim(out, loaded.name, "layer-scores")
    write_report(
        lambda say: audit_layer_scores(
            loaded, data, method=method, count=count, batch_size=batch_size, quick=quick, seed=seed, say=say
        ),
        out,
        as_json=as_json,
    )  # fmt: skip
