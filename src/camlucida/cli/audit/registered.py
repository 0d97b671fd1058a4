"""``camlucida audit NAME`` of the audits that have no command of their own, such as those of plug-ins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from camlucida.cli.audit.group import write_report
from camlucida.cli.shared.model import EMBEDDED, Model, takes_model
from camlucida.cli.shared.opening import known_methods
from camlucida.cli.shared.options import (
    AsJson,
    AuditData,
    AuditedLayer,
    AuditedMethods,
    AuditOut,
    Command,
    Count,
    Device,
    ImageBatchSize,
    Quick,
    Seed,
)
from camlucida.cli.shared.writing import claim
from camlucida.common.progress import Say

if TYPE_CHECKING:
    from camlucida.audits import AuditReport
    from camlucida.audits.registry import AuditRow


class Audits(TyperGroup):
    """The commands that were written by hand, and one for every other audit that is registered."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all."""
        return list(dict.fromkeys([*super().list_commands(ctx), *_rows()]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; ``None`` for an unknown one."""
        written = super().get_command(ctx, cmd_name)
        if written is None and (row := _rows().get(cmd_name)) is not None:
            return _command(row)
        return written


def _rows() -> dict[str, AuditRow]:
    from camlucida.audits import list_audits

    return {row.name: row for row in list_audits()}


def _command(row: AuditRow) -> Any:
    @takes_model
    def run(
        model: Model = EMBEDDED,
        data: AuditData = None,
        method: AuditedMethods = None,
        layer: AuditedLayer = None,
        count: Count = None,
        batch_size: ImageBatchSize = 16,
        device: Device = None,
        quick: Quick = True,
        seed: Seed = 0,
        out: AuditOut = Path("camlucida-out"),
        as_json: AsJson = False,
    ) -> None:
        from camlucida.audits import Request

        options: dict[str, Any] = {
            "methods": known_methods(method or ()) or None, "layers": layer, "count": count,
            "batch_size": batch_size, "quick": quick, "seed": seed, "out": out,
        }  # fmt: skip
        loaded = model.load(device)
        claim(out, loaded.name, row.name, "trust")
        request = Request(loaded, data, **options)
        request = replace(request, methods=request.tested())

        def asked(say: Say) -> AuditReport:
            report = row.make(replace(request, say=say))
            return replace(report, record={"model": loaded.name, **report.record})

        write_report(asked, out, as_json=as_json, named=method)

    run.__doc__ = row.asks
    made = typer.Typer(add_completion=False, rich_markup_mode="rich")
    made.command(row.name, cls=Command)(run)
    return typer.main.get_command(made)
