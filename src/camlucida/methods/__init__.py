"""The methods, one file per family, and their registry."""

from camlucida.methods.ablationcam import AblationCAM
from camlucida.methods.attention import AttentionRollout, LeGrad
from camlucida.methods.base import GradientCAM, Method, RawMap
from camlucida.methods.build import build, build_as, read_method
from camlucida.methods.cam import CAM
from camlucida.methods.controls import BrightnessMap, CentreMap, EdgeMap, RandomMap, RedrawnMap
from camlucida.methods.corrrise import CorrRISE
from camlucida.methods.describe import MethodPage, describe_method
from camlucida.methods.eigencam import EigenCAM, EigenGradCAM
from camlucida.methods.fame import FAME
from camlucida.methods.fggb import FGGB
from camlucida.methods.fullgrad import FullGrad, full_gradient
from camlucida.methods.gradcam import GradCAM, GradCAMEW, HiResCAM, LayerCAM, XGradCAM
from camlucida.methods.gradcampp import GradCAMpp
from camlucida.methods.icam import ICAM
from camlucida.methods.input_gradient import (
    InputGradient,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)
from camlucida.methods.occlusion import CellOcclusion, Occlusion
from camlucida.methods.opticam import OptiCAM
from camlucida.methods.refinecam import RefineCAM
from camlucida.methods.registry import (
    MethodRow,
    list_methods,
    method_name,
    method_row,
    register,
    row_of,
)
from camlucida.methods.rise import RISE
from camlucida.methods.scorecam import ISCAM, SSCAM, ScoreCAM
from camlucida.methods.shapleycam import ShapleyCAM
from camlucida.methods.smoothing import AugSmooth, BothSides, EigenSmooth
from camlucida.methods.task import Progress, Task

__all__ = [
    "CAM",
    "FAME",
    "FGGB",
    "ICAM",
    "ISCAM",
    "RISE",
    "SSCAM",
    "AblationCAM",
    "AttentionRollout",
    "AugSmooth",
    "BothSides",
    "BrightnessMap",
    "CellOcclusion",
    "CentreMap",
    "CorrRISE",
    "EdgeMap",
    "EigenCAM",
    "EigenGradCAM",
    "EigenSmooth",
    "FullGrad",
    "GradCAM",
    "GradCAMEW",
    "GradCAMpp",
    "GradientCAM",
    "HiResCAM",
    "InputGradient",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "LeGrad",
    "Method",
    "MethodPage",
    "MethodRow",
    "Occlusion",
    "OptiCAM",
    "Progress",
    "RandomMap",
    "RawMap",
    "RedrawnMap",
    "RefineCAM",
    "Saliency",
    "ScoreCAM",
    "ShapleyCAM",
    "SmoothGrad",
    "Task",
    "XGradCAM",
    "build",
    "build_as",
    "describe_method",
    "full_gradient",
    "list_methods",
    "method_name",
    "method_row",
    "read_method",
    "register",
    "row_of",
]
