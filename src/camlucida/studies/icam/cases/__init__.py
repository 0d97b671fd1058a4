"""The four cases, confident or unsure and right or wrong, over a labelled folder, explained by I-CAM."""

from camlucida.explanation.diagnostics import CASES
from camlucida.studies.icam.cases.photo import box_mask, saliency_score
from camlucida.studies.icam.cases.run import four_cases
from camlucida.studies.icam.cases.study import DIALLED, HIGH, Case, CaseStudy, Dial

__all__ = [
    "CASES",
    "DIALLED",
    "HIGH",
    "Case",
    "CaseStudy",
    "Dial",
    "box_mask",
    "four_cases",
    "saliency_score",
]
