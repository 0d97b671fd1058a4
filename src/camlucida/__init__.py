"""camlucida: visual explanations of image models that you can trust."""

from camlucida.common.errors import (
    CamlucidaError,
    ImageError,
    LayerError,
    MethodError,
    ModelError,
    TargetError,
)
from camlucida.common.version import __version__
from camlucida.data.preprocess import Preprocess
from camlucida.engine.layers import Grid, default_layer, list_layers
from camlucida.engine.maps import Steps
from camlucida.engine.tap import Tap, tap
from camlucida.explanation import Comparison, Diagnostics, Explanation, Prediction
from camlucida.explanation.explain import explain
from camlucida.methods import list_methods
from camlucida.models import LoadedModel, load_model
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
    "list_methods",
    "load_model",
    "tap",
]
