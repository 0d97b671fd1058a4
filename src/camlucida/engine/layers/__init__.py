"""Find, name and check layers, and bring what they return into the form of a feature map.

A layer is a module of the model whose output is a feature map ``(N, K, h, w)``. Token sequences and
channels-last maps are brought into this form by a :class:`Grid`.
"""

from camlucida.engine.layers.calls import Call, LayerInfo, list_layers, observe
from camlucida.engine.layers.default import POOLING, default_layer
from camlucida.engine.layers.evidence import Evidence, Reading, checked, grid_of, reading, survey
from camlucida.engine.layers.grids import Grid, GridRule, check_map, single_tensor
from camlucida.engine.layers.names import INPUT, Layer, Layers, resolve, resolve_all

__all__ = [
    "INPUT",
    "POOLING",
    "Call",
    "Evidence",
    "Grid",
    "GridRule",
    "Layer",
    "LayerInfo",
    "Layers",
    "Reading",
    "check_map",
    "checked",
    "default_layer",
    "grid_of",
    "list_layers",
    "observe",
    "reading",
    "resolve",
    "resolve_all",
    "single_tensor",
    "survey",
]
