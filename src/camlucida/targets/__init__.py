"""What is explained: a scalar per image.

A target is a callable from the model's output ``(N, ...)`` to ``(N,)``, vectorised over the batch. Contrast
is a property of the target, not of the method: DiffGradCAM is Grad-CAM on a :class:`LogitMargin`.
"""

from camlucida.targets.base import Negated, Target
from camlucida.targets.classes import (
    Classes,
    ClassTarget,
    ExpLogit,
    Logit,
    LogProbability,
    Probability,
    Segmentation,
)
from camlucida.targets.custom import Custom, TargetLike, as_target, target_values
from camlucida.targets.embeddings import CosineSimilarity, DotProduct, NegativeDistance
from camlucida.targets.features import Cell, Cells, HalfSquaredDistance
from camlucida.targets.finer import FinerMargin, ResidualSoftmax
from camlucida.targets.kinds import Kind, Label, Nothing, OneLogit, Value, for_kind
from camlucida.targets.margin import Aggregator, Contrast, LogitMargin
from camlucida.targets.registry import TARGETS, TargetRow, build_target, list_targets, register

__all__ = [
    "TARGETS",
    "Aggregator",
    "Cell",
    "Cells",
    "ClassTarget",
    "Classes",
    "Contrast",
    "CosineSimilarity",
    "Custom",
    "DotProduct",
    "ExpLogit",
    "FinerMargin",
    "HalfSquaredDistance",
    "Kind",
    "Label",
    "LogProbability",
    "Logit",
    "LogitMargin",
    "Negated",
    "NegativeDistance",
    "Nothing",
    "OneLogit",
    "Probability",
    "ResidualSoftmax",
    "Segmentation",
    "Target",
    "TargetLike",
    "TargetRow",
    "Value",
    "as_target",
    "build_target",
    "for_kind",
    "list_targets",
    "register",
    "target_values",
]
