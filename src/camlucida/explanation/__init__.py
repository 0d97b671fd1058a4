"""From a model and photos to explanations: maps, values, predictions, diagnostics and provenance."""

from camlucida.explanation.diagnostics import Diagnostics, Prediction
from camlucida.explanation.explain import explain
from camlucida.explanation.overlays import LazyViews, Style
from camlucida.explanation.result import Comparison, Explanation

__all__ = [
    "Comparison",
    "Diagnostics",
    "Explanation",
    "LazyViews",
    "Prediction",
    "Style",
    "explain",
]
