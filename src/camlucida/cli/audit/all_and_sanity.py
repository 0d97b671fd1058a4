"""``camlucida audit sanity`` and ``camlucida audit all``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from camlucida.cli.audit.group import end, write_report
from camlucida.cli.shared.console import bars, complain, console, print_json, print_lines
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    AsJson,
    AuditData,
    AuditedLayer,
    AuditedMethods,
    AuditOut,
    Count,
    Device,
    ImageBatchSize,
    Quick,
    Seed,
)
from camlucida.cli.shared.writing import claim, out_folder

Labels = Annotated[
    bool,
    typer.Option(
        "--labels/--no-labels",
        help="Train two small networks for the check with shuffled labels, or leave the check out; a quick audit of "
        "all leaves it out.",
    ),
]


@takes_model
def sanity(
    model: Model = EMBEDDED,
    data: AuditData = None,
    method: AuditedMethods = None,
    layer: AuditedLayer = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Also redraw each group of weights alone.")
    ] = False,
    labels: Labels = True,
    count: Count = None,
    batch_size: ImageBatchSize = 16,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Check that maps change when the model changes, and stay the same when it does not.

    Weights are redrawn from the output down, labels shuffled, inputs and logits shifted, another class explained,
    promised sums added up, runs repeated and put in batches. Each check is passed or failed, with its number and bound.
    """
    from camlucida.audits import audit_sanity

    options: dict[str, Any] = {
        "methods": known_methods(method or ()) or None, "layers": layer, "labels": labels, "count": count,
        "batch_size": batch_size, "quick": quick, "seed": seed, "out": out, "independent": independent,
    }  # fmt: skip
    loaded = model.load(device)
    claim(out, loaded.name, "sanity", "trust")
    write_report(
        lambda say: audit_sanity(loaded, data, **options, say=say),
        out,
        as_json=as_json,
        named=method,
    )


@takes_model
def all_(
    model: Model = EMBEDDED,
    data: AuditData = None,
    method: AuditedMethods = None,
    audit: Annotated[
        list[str] | None,
        typer.Option(
            "--audit",
            metavar="NAME",
            help="Run this audit of camlucida audits only; repeat the option for several. (default: all audits)",
        ),
    ] = None,
    layer: AuditedLayer = None,
    labels: Labels = True,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="QUESTION:METHOD=GRADE",
            help="End with exit code 1 unless the method has this grade or a better one, as in "
            "where:diffgradcam=caution; the questions are where, why-not-another, which-pixels and looked-at-all, the "
            "grades safe and caution. Repeat the option for several.",
        ),
    ] = None,
    count: Count = None,
    batch_size: ImageBatchSize = 16,
    device: Device = None,
    quick: Quick = True,
    seed: Seed = 0,
    out: AuditOut = Path("camlucida-out"),
    as_json: AsJson = False,
) -> None:
    """Which methods are safe on this model, for which question, and why?

    Every audit that fits any classifier is run, and one report says in plain words which methods to trust:
    [bold]trust.html[/], with the audits' own pages beside it.
    """
    from camlucida.audits import audit_all

    options: dict[str, Any] = {
        "methods": known_methods(method or ()) or None, "audits": audit, "layers": layer, "labels": labels,
        "count": count, "batch_size": batch_size, "quick": quick, "seed": seed, "out": out,
    }  # fmt: skip
    loaded = model.load(device)
    claim(out, loaded.name, "trust")
    with out_folder(out):
        with bars(one=True) as say:
            report = audit_all(loaded, data, **options, say=say)
        files = report.save(out)
    below = report.unmet(require or ())
    if as_json:
        print_json(report.to_dict())
    else:
        print_lines(*report.lead())
        console().print(report.table().rich())
        missing = (f"Not run: {title}: {why}" for title, why in report.missing.items())
        print_lines(*report.advice(), *missing, files[0])
    for line in below:
        complain(f"demanded and not met: {line}")
    if below:
        raise typer.Exit(1)
    end(report.untested, method)
