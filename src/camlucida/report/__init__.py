"""Reports: tables, charts and pages, and the report of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camlucida.report.page import Document, Section
from camlucida.report.tables import Cell, Column, Table

if TYPE_CHECKING:
    from camlucida.report.run_report import write

__all__ = ["Cell", "Column", "Document", "Section", "Table", "write"]


def __getattr__(name: str) -> Any:
    # Other reports use the tables and pages; they need no benchmark.
    if name == "write":
        from camlucida.report.run_report import write

        return write
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
