"""One trust report: which methods are safe on this model for which question, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from camlucida.audits.ours import list_audits
from camlucida.audits.registry import AUDITS, AuditRow
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial, reason
from camlucida.audits.trust.judging import gather, judged
from camlucida.audits.trust.report import TrustReport
from camlucida.common.errors import CamlucidaError
from camlucida.engine.layers import list_layers
from camlucida.models import LoadedModel


def audit_all(
    model: nn.Module | LoadedModel,
    data: AuditData,
    *,
    audits: Sequence[str] | None = None,
    **options: Any,
) -> TrustReport:
    """Which methods are safe on this model, for which question, and why?

    Every audit that fits any classifier is asked about every method. One that cannot be run, or breaks, is left out
    and named in the report; a stopped run goes on where it was. Nothing but finished parts is written;
    :meth:`TrustReport.save` writes the report, so that a stopped run never leaves new pages beside an old report.

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`.
        audits: names of these audits only, see :func:`camlucida.audits.list_audits`.
        **options: the other fields of :class:`camlucida.audits.Request`, such as ``methods``.

    Raises:
        CamlucidaError: the model is no classifier, a method, layer or audit is unknown, no image can be read, or
            no audit can be run.

    Example:
        >>> report = camlucida.audits.audit_all(model, images, audits=["faithfulness"], methods=["gradcam"])
        >>> [method.label for method in report.methods]
        ['gradcam']
    """
    request = Request(model, data, **options)
    wanted = [AUDITS[name].name for name in audits or AUDITS.names]
    rows = [row for row in list_audits() if row.name in wanted]
    tested = request.tested()
    trial = request.open(6, 50)
    trial.few(1).ranked()  # a model without classes is refused before anything is done
    found: list[tuple[AuditRow, AuditReport]] = []
    missing: dict[str, str] = {}
    reached = 0.0
    for number, row in enumerate(rows):

        def told(
            what: str, done: float, total: float, row: AuditRow = row, number: int = number
        ) -> None:
            nonlocal reached
            share = number + min(done / total if total else 0.0, 1.0)
            reached = max(reached, share)  # an audit may count its parts one after the other
            request.say(f"{row.title}: {what}", 100 * reached, 100 * len(rows))

        told("starting", 0, 1)
        most = row.images[0 if request.quick else 1] if row.images else len(trial.inputs)
        count = min(len(trial.inputs), most)
        try:
            report = row.make(request.but(trial, methods=tested, count=count, say=told))
        except (CamlucidaError, ImportError) as error:
            missing[row.title] = str(error)
        except torch.OutOfMemoryError:
            raise  # a smaller batch helps, and the command says so
        except Exception as error:
            # One audit that does not fit the model must not take the others with it.
            missing[row.title] = f"it broke on this model ({reason(error)})"
        else:
            found.append((row, report))
    if not found:
        reasons = "; ".join(f"{title}: {why}" for title, why in missing.items())
        raise CamlucidaError(f"no audit could be run. {reasons}")
    record = {
        **request.record(trial),
        "methods": {t.label: dict(t.options) for t in tested},
        "batch_size": request.batch_size,
        "skipped_images": trial.images["skipped"],
        "resumed_parts": sum(int(r.record.get("resumed_parts", 0)) for _, r in found),
    }
    cells = _cells(trial)
    return TrustReport(
        trial.name,
        trial.images.get("name", "your images"),
        len(trial.inputs),
        tuple(judged(one, gather(one, found, trial.size, cells)) for one in tested),
        tuple(report for _, report in found),
        missing,
        record,
    )


def _cells(trial: Trial) -> tuple[int, int] | None:
    """Height and width of the explained layer's map; ``None`` where the model has none."""
    name = trial.explained_layer
    seen = [] if name is None else list_layers(trial.model, trial.inputs[:1])
    return next((i.shape[1:] for i in seen if i.name == name and i.shape is not None), None)
