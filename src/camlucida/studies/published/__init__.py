"""Published tables, and ours beside them: the same protocols run here, on the same data or on stand-ins."""

from camlucida.studies.published.base import Reproduced
from camlucida.studies.published.fame_table1 import FameTable1
from camlucida.studies.published.sets import open_sets
from camlucida.studies.published.tables import TABLES, reproduce

__all__ = ["TABLES", "FameTable1", "Reproduced", "open_sets", "reproduce"]
