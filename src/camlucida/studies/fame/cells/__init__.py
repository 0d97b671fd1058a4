"""Does a cell of a feature map look at the patch under it? One FAME map per cell, and the numbers.

Class activation maps are enlarged as if a cell stood for the patch at its place. FAME run on single cells
(Zhang and Günther, FAME, figure 2) shows where a cell really looks.
"""

from camlucida.studies.fame.cells.analysis import (
    ITERATIONS,
    CellAnalysis,
    analyse_cells,
    depth_figure,
)
from camlucida.studies.fame.cells.depth import depth_curve, spread
from camlucida.studies.fame.cells.facts import Box, CellFacts, nominal_cell

__all__ = [
    "ITERATIONS",
    "Box",
    "CellAnalysis",
    "CellFacts",
    "analyse_cells",
    "depth_curve",
    "depth_figure",
    "nominal_cell",
    "spread",
]
