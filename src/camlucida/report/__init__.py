"""The toolkit of every page: tables, charts, sections and the page that holds them."""

from camlucida.report.page import Document, Section, save
from camlucida.report.tables import Cell, Column, Table

__all__ = ["Cell", "Column", "Document", "Section", "Table", "save"]
