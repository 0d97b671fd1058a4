"""Slow, obvious re-implementations straight from the formulas of the specification."""
