"""Metrics: attribution maps, and what is known about the images, to one number per image.

The numbers are pure functions on tensors; a :class:`Metric` says which function, with which options, on which
of an explanation's maps. ``camlucida metrics`` lists them.
"""

from camlucida.metrics.agreement import (
    SSIM,
    RankCorrelation,
    Similarity,
    pearson,
    rank_correlation,
    similarity,
    ssim,
    susceptibility,
)
from camlucida.metrics.base import Measured, Metric, MetricNeed, OneNumber, Question, Scene
from camlucida.metrics.concentration import (
    CAMEntropy,
    Complexity,
    DeadZoneActivity,
    Sparseness,
    cam_entropy,
    complexity,
    dead_zone_activity,
    effective_area,
    seen_area_lost,
    sparseness,
)
from camlucida.metrics.curves import Deletion, Insertion
from camlucida.metrics.drop import (
    ADCC,
    AverageDrop,
    adcc,
    average_drop,
    average_gain,
    average_increase,
)
from camlucida.metrics.imputation.impute import impute
from camlucida.metrics.localisation import (
    box_iou,
    energy_pointing,
    iou,
    pointing_game,
    saliency_score,
    top_k_mass,
)
from camlucida.metrics.objects import (
    BoxIoU,
    EnergyPointing,
    IoU,
    PointingGame,
    SaliencyScore,
    TopKMass,
)
from camlucida.metrics.on_trial import metric_verdicts
from camlucida.metrics.randomisation import EMPRT, SMPRT
from camlucida.metrics.ranking import removal_masks
from camlucida.metrics.regions import bounding_boxes, fill_boxes
from camlucida.metrics.registry import (
    Facts,
    MetricCost,
    MetricRow,
    Number,
    build_metric,
    describe_number,
    list_metrics,
    metric_groups,
    metric_row,
    register,
)
from camlucida.metrics.relative_stability import RelativeStability
from camlucida.metrics.road import Road, RoadDelete
from camlucida.metrics.robustness import (
    Infidelities,
    Infidelity,
    SensitivityMax,
    infidelity,
    sensitivity_max,
)
from camlucida.metrics.subsets import (
    IROF,
    FaithfulnessCorrelation,
    FFidelity,
    Monotonicity,
    SaCo,
    SensitivityN,
)

__all__ = [
    "ADCC",
    "EMPRT",
    "IROF",
    "SMPRT",
    "SSIM",
    "AverageDrop",
    "BoxIoU",
    "CAMEntropy",
    "Complexity",
    "DeadZoneActivity",
    "Deletion",
    "EnergyPointing",
    "FFidelity",
    "Facts",
    "FaithfulnessCorrelation",
    "Infidelities",
    "Infidelity",
    "Insertion",
    "IoU",
    "Measured",
    "Metric",
    "MetricCost",
    "MetricNeed",
    "MetricRow",
    "Monotonicity",
    "Number",
    "OneNumber",
    "PointingGame",
    "Question",
    "RankCorrelation",
    "RelativeStability",
    "Road",
    "RoadDelete",
    "SaCo",
    "SaliencyScore",
    "Scene",
    "SensitivityMax",
    "SensitivityN",
    "Similarity",
    "Sparseness",
    "TopKMass",
    "adcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "bounding_boxes",
    "box_iou",
    "build_metric",
    "cam_entropy",
    "complexity",
    "dead_zone_activity",
    "describe_number",
    "effective_area",
    "energy_pointing",
    "fill_boxes",
    "impute",
    "infidelity",
    "iou",
    "list_metrics",
    "metric_groups",
    "metric_row",
    "metric_verdicts",
    "pearson",
    "pointing_game",
    "rank_correlation",
    "register",
    "removal_masks",
    "saliency_score",
    "seen_area_lost",
    "sensitivity_max",
    "similarity",
    "sparseness",
    "ssim",
    "susceptibility",
    "top_k_mass",
]
