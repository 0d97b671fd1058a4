"""What ``camlucida audit metrics`` found about the metrics of this package, kept beside them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def metric_verdicts() -> dict[str, dict[str, Any]]:
    """By number: ``outcome`` (as audits say it), ``text``, and what it was measured on, ``worlds`` and ``images``.

    Only numbers that judge a map on its own are tried; see :func:`camlucida.audits.audit_metrics`, which makes the
    file anew.

    Example:
        >>> camlucida.metrics.metric_verdicts()["energy_pointing"]["outcome"]
        'pass'
    """
    kept: dict[str, dict[str, Any]] = json.loads(
        files("camlucida.metrics").joinpath("verdicts.json").read_text(encoding="utf-8")
    )
    return kept
