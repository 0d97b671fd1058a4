"""FAME's own figures: where the cells of a feature map look, and what iterations, blur and starts do to a map.

Class activation maps are enlarged as if a cell stood for the patch at its place. FAME run on single cells
(Zhang and Günther, FAME, figure 2) shows where a cell really looks.
"""

from camlucida.studies.fame.cell_maps import CellAnalysis, CellFacts, beside, cells, cells_table
from camlucida.studies.fame.depth import depth_curve, depth_figure
from camlucida.studies.fame.smoothing import Smoothing, iterations
from camlucida.studies.fame.starts import starts

__all__ = [
    "CellAnalysis",
    "CellFacts",
    "Smoothing",
    "beside",
    "cells",
    "cells_table",
    "depth_curve",
    "depth_figure",
    "iterations",
    "starts",
]
