"""The four cases, confident or unsure and right or wrong, over a labelled folder, explained by I-CAM."""

from camlucida.cases.photo import box_mask, saliency_score
from camlucida.cases.run import four_cases
from camlucida.cases.study import CASES, DIALLED, HIGH, Case, CaseStudy, Dial

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
