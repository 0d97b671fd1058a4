"""Integrative CAM (Singh et al. 2024, arXiv 2412.01354): one file per part of the formula."""

from camlucida.methods.icam.alpha import (
    Derivatives,
    Smooth,
    SoftmaxMoments,
    alpha,
    automatic_derivatives,
    derivatives,
    exp_derivatives,
    identity_derivatives,
    softmax_derivatives,
)
from camlucida.methods.icam.layer_map import LayerMap, entry_weights, fuse, layer_map
from camlucida.methods.icam.method import ICAM
from camlucida.methods.icam.perturb import (
    dynamic_range,
    mdd,
    mds,
    perturb,
    perturbation_weights,
    svim,
)
from camlucida.methods.icam.scores import (
    distance,
    input_term,
    layer_scores,
    layer_term,
    layer_weights,
    select_layers,
)

__all__ = [
    "ICAM",
    "Derivatives",
    "LayerMap",
    "Smooth",
    "SoftmaxMoments",
    "alpha",
    "automatic_derivatives",
    "derivatives",
    "distance",
    "dynamic_range",
    "entry_weights",
    "exp_derivatives",
    "fuse",
    "identity_derivatives",
    "input_term",
    "layer_map",
    "layer_scores",
    "layer_term",
    "layer_weights",
    "mdd",
    "mds",
    "perturb",
    "perturbation_weights",
    "select_layers",
    "softmax_derivatives",
    "svim",
]
