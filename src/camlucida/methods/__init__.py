"""The methods, one file per family, and their registry."""

from camlucida.methods.base import Context, GradientCAM, Method, Progress, RawMap
from camlucida.methods.cam import CAM
from camlucida.methods.eigencam import EigenCAM
from camlucida.methods.fame import FAME
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
from camlucida.methods.registry import Entry, build, entry, entry_of, methods, register

__all__ = [
    "CAM",
    "FAME",
    "ICAM",
    "Context",
    "EigenCAM",
    "Entry",
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
    "Method",
    "Progress",
    "RawMap",
    "Saliency",
    "SmoothGrad",
    "XGradCAM",
    "build",
    "entry",
    "entry_of",
    "full_gradient",
    "methods",
    "register",
]
