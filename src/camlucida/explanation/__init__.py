"""The result a user holds: maps, values, predictions, diagnostics and provenance; it can draw itself."""

from camlucida.explanation.diagnostics import Diagnostics, Prediction
from camlucida.explanation.result import Comparison, Explanation, Views

__all__ = ["Comparison", "Diagnostics", "Explanation", "Prediction", "Views"]
