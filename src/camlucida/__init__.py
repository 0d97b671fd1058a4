"""camlucida: visual explanations of image models that you can trust."""

from camlucida.errors import (
    CamlucidaError,
    ImageError,
    LayerError,
    MethodError,
    ModelError,
    TargetError,
)
from camlucida.explain import explain
from camlucida.explanation import Comparison, Diagnostics, Explanation, Prediction
from camlucida.layers import Grid, default_layer, list_layers
from camlucida.maps import Steps
from camlucida.methods import methods
from camlucida.models import LoadedModel, load_model
from camlucida.preprocess import Preprocess
from camlucida.tap import Tap, tap
from camlucida.targets import (
    Cell,
    Cells,
    CosineSimilarity,
    DotProduct,
    ExpLogit,
    FinerMargin,
    HalfSquaredDistance,
    Logit,
    LogitMargin,
    LogProbability,
    NegativeDistance,
    Probability,
    ResidualSoftmax,
    Segmentation,
    Target,
)
from camlucida.version import __version__

__all__ = [
    "CamlucidaError",
    "Cell",
    "Cells",
    "Comparison",
    "CosineSimilarity",
    "Diagnostics",
    "DotProduct",
    "ExpLogit",
    "Explanation",
    "FinerMargin",
    "Grid",
    "HalfSquaredDistance",
    "ImageError",
    "LayerError",
    "LoadedModel",
    "LogProbability",
    "Logit",
    "LogitMargin",
    "MethodError",
    "ModelError",
    "NegativeDistance",
    "Prediction",
    "Preprocess",
    "Probability",
    "ResidualSoftmax",
    "Segmentation",
    "Steps",
    "Tap",
    "Target",
    "TargetError",
    "__version__",
    "default_layer",
    "explain",
    "list_layers",
    "load_model",
    "methods",
    "tap",
]
