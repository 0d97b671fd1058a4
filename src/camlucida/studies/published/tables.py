"""The published tables and figures by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import nearest
from camlucida.studies.published.base import Reproduced
from camlucida.studies.published.diff_tables import diff_table1, diff_table2, diff_table3
from camlucida.studies.published.fame_table1 import FameTable1, fame_table1
from camlucida.studies.published.fame_table2 import fame_table2
from camlucida.studies.published.figures import (
    fame_figure1,
    fame_starts,
    icam_ablation,
    icam_figure1,
    icam_layers,
)
from camlucida.studies.published.icam_table1 import icam_table1
from camlucida.studies.published.wall_table1 import wall_table1

TABLES: Mapping[str, Callable[..., Reproduced | FameTable1]] = {
    "fame-table1": fame_table1,
    "fame-table2": fame_table2,
    "fame-figure1": fame_figure1,
    "fame-starts": fame_starts,
    "icam-table1": icam_table1,
    "icam-figure1": icam_figure1,
    "icam-layers": icam_layers,
    "icam-ablation": icam_ablation,
    "wall-table1": wall_table1,
    "diff-table1": diff_table1,
    "diff-table2": diff_table2,
    "diff-table3": diff_table3,
}
"""What does each table again, by the names that ``camlucida reproduce`` knows."""


def reproduce(table: str, *inputs: Any, **options: Any) -> Reproduced | FameTable1:
    """Run the protocol behind a published table, and put ours beside it.

    Args:
        table: a key of :data:`TABLES`, such as ``"fame-table2"``.
        *inputs: what the function of the table takes first, such as what :func:`open_sets` returns.
        **options: further options of that function; ``help(TABLES[table])`` says which there are.

    Returns:
        The tables, which can be saved as a page, JSON, CSV and LaTeX.

    Raises:
        CamlucidaError: the name is unknown, or what the function of the table raises.

    Example:
        >>> camlucida.studies.published.reproduce("fame-table3")
        Traceback (most recent call last):
        camlucida.common.errors.CamlucidaError: no table is called 'fame-table3'; there are fame-table1, ...
    """
    if table not in TABLES:
        raise CamlucidaError(
            f"no table is called {table!r}; there are {', '.join(TABLES)}{nearest(table, TABLES)}"
        )
    return TABLES[table](*inputs, **options)
