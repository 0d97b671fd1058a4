"""From a model and photos to explanations: maps, values, predictions, diagnostics and provenance."""

from camlucida.explanation.diagnostics import Diagnostics, Prediction
from camlucida.explanation.explain import explain, explain_each
from camlucida.explanation.fits import MethodFit, MethodFits, methods_for
from camlucida.explanation.overlays import LazyViews, Style
from camlucida.explanation.photo_report import photo_report
from camlucida.explanation.result import Comparison, Explanation
from camlucida.explanation.stored import Stored, StoredExplanation
from camlucida.explanation.stream import Explanations

__all__ = [
    "Comparison",
    "Diagnostics",
    "Explanation",
    "Explanations",
    "LazyViews",
    "MethodFit",
    "MethodFits",
    "Prediction",
    "Stored",
    "StoredExplanation",
    "Style",
    "explain",
    "explain_each",
    "methods_for",
    "photo_report",
]
