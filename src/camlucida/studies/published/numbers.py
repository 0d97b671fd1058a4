"""Published numbers, with the conditions they were measured under."""

from __future__ import annotations

from collections.abc import Mapping

from camlucida.training.salience.recipe import ARMS, PUBLISHED

FAME_TABLE2: Mapping[str, Mapping[str, float]] = {
    "gradcam": {
        "iou@0.3": 38.8, "iou@0.5": 23.4, "iou@0.7": 10.2,
        "road_delete@10": 0.267, "road_delete@30": 1.035, "road_delete@50": 2.256,
    },
    "hirescam": {
        "iou@0.3": 38.8, "iou@0.5": 23.4, "iou@0.7": 10.2,
        "road_delete@10": 0.267, "road_delete@30": 1.035, "road_delete@50": 2.256,
    },
    "gradcam-ew": {
        "iou@0.3": 40.2, "iou@0.5": 24.4, "iou@0.7": 10.7,
        "road_delete@10": 0.252, "road_delete@30": 0.975, "road_delete@50": 2.124,
    },
    "fullgrad": {
        "iou@0.3": 48.8, "iou@0.5": 33.1, "iou@0.7": 13.1,
        "road_delete@10": 0.253, "road_delete@30": 1.020, "road_delete@50": 2.289,
    },
    "fame": {
        "iou@0.3": 46.1, "iou@0.5": 29.1, "iou@0.7": 10.8,
        "road_delete@10": 0.425, "road_delete@30": 1.150, "road_delete@50": 2.167,
    },
}  # fmt: skip
"""FAME, Table 2: ResNet-50 (torchvision's V2 weights), 5,000 validation images of ImageNet, the last block of
layer4. IoU in percent, ROAD-Delete in logits of the true class. The authors' reorganised code says of the scripts
behind it that boxes were scaled wrongly on photos that are not square and FAME's maps were ranked as coloured
pictures, and that no table has been made anew since."""

FAME_TABLE1: dict[str, dict[str, tuple[float, float]]] = {
    "gradcam": {"ar-glass": (72.6, 77.9), "scface-medium": (67.6, 69.9), "cfp-fp": (74.9, 85.2)},
    "gradcam-ew": {"ar-glass": (60.4, 90.1), "scface-medium": (59.1, 80.6), "cfp-fp": (59.3, 94.4)},
    "corrrise": {"ar-glass": (58.4, 91.2), "scface-medium": (57.4, 80.4), "cfp-fp": (56.3, 96.1)},
    "fggb": {"ar-glass": (58.1, 83.7), "scface-medium": (58.5, 75.6), "cfp-fp": (58.7, 90.9)},
    "fame": {"ar-glass": (56.1, 92.1), "scface-medium": (57.2, 82.0), "cfp-fp": (55.8, 96.2)},
}  # fmt: skip
"""FAME (Zhang and Günther, arXiv 2605.12017), table 1: Delete (lower is better) and Insert (higher) for
IResNet101 of AdaFace, normalised area under the verification accuracy times 100, probe only, P = 0 to 100 by
tens."""

DIFF_TABLE1: Mapping[str, tuple[float, float]] = {ARMS[arm]: n for arm, n in PUBLISHED.items()}
"""DiffGradCAM (Piland, Sweet and Czajka, arXiv 2506.08514v1), Table 1: accuracy (headed AUROC there) of
DenseNet-121 on iris presentation attacks of 7 classes, mean and standard deviation over 5 seeds."""

DIFF_TABLE2: Mapping[str, tuple[float, float]] = {
    "MeanDiffGradCAM": (0.001, 0.001),
    "MaxDiffGradCAM": (0.101, 0.0801),
    "LSE-DiffGradCAM": (0.069, 0.0761),
}
"""Table 2: mean squared distance from Grad-CAM, DenseNet-121, 5,000 validation images of ImageNet; of the first
row the paper says that both numbers are below 0.001. It does not say how maps are scaled, nor their resolution."""

DIFF_TABLE3: Mapping[str, tuple[float, float]] = {
    "GradCAM": (0.2420, 0.0723),
    "EigenCAM": (0.0579, 0.0857),
    "MeanDiffGradCAM": (0.0460, 0.0398),
    "MaxDiffGradCAM": (0.1200, 0.0621),
    "LSE-DiffGradCAM": (0.1050, 0.0632),
}
"""Table 3: mean squared distance of the maps before and after one epoch of fine-tuning with SHAM; same model and
images."""
