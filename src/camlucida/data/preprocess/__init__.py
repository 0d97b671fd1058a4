"""How a photo becomes the tensor a model receives; the numbers travel with the model."""

from camlucida.data.preprocess.base import Preprocess
from camlucida.data.preprocess.own import OwnPreprocess, PreprocessLike, as_preprocess
from camlucida.data.preprocess.values import IMAGENET_MEAN, IMAGENET_STD, Channels, Interpolation

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Channels",
    "Interpolation",
    "OwnPreprocess",
    "Preprocess",
    "PreprocessLike",
    "as_preprocess",
]
