"""camlucida: visual explanations of image models that you can trust.

What most people need stands here; the subpackages (``camlucida.methods``, ``camlucida.metrics``, ``camlucida.audits``,
...) hold the rest. Each is loaded when it is first used, so that the import is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camlucida.common.version import __version__

if TYPE_CHECKING:
    from camlucida.audits import list_audits
    from camlucida.common.errors import (
        CamlucidaError,
        ImageError,
        LayerError,
        MethodError,
        ModelError,
        TargetError,
    )
    from camlucida.common.plugins import load_plugins
    from camlucida.data import Preprocess, list_data
    from camlucida.engine.layers import Grid, default_layer, list_layers
    from camlucida.engine.maps import Steps
    from camlucida.engine.tap import Tap, tap
    from camlucida.explanation import (
        Comparison,
        Diagnostics,
        Explanation,
        Prediction,
        explain,
        explain_each,
        methods_for,
    )
    from camlucida.methods import describe_method, list_methods
    from camlucida.metrics import list_metrics
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
        list_targets,
    )

_ROOMS = (
    "app", "audits", "benchmark", "common", "data", "engine", "explanation", "faces", "methods", "metrics", "models",
    "report", "studies", "targets", "training",
)  # fmt: skip
_HOMES = (
    "common.errors",
    "common.plugins",
    "targets",
    "engine",
    "data",
    "models",
    "methods",
    "explanation",
    "metrics",
    "audits",
)
"""Where the names of this page live, from the ground up: each of these is loaded by those behind it anyway."""

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
    "app",
    "audits",
    "benchmark",
    "common",
    "data",
    "default_layer",
    "describe_method",
    "engine",
    "explain",
    "explain_each",
    "explanation",
    "faces",
    "list_audits",
    "list_data",
    "list_layers",
    "list_methods",
    "list_metrics",
    "list_targets",
    "load_model",
    "load_plugins",
    "methods",
    "methods_for",
    "metrics",
    "models",
    "report",
    "studies",
    "tap",
    "targets",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"camlucida.{name}")
    for home in _HOMES if name in __all__ else ():
        if hasattr(module := import_module(f"camlucida.{home}"), name):
            globals()[name] = value = getattr(module, name)
            return value
    raise AttributeError(f"module 'camlucida' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
