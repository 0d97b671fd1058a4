"""Photos: read them, open data sets of them, and make them the input of a model."""

from camlucida.data.class_names import read_class_names, resolve_class
from camlucida.data.images import find_images, read_image
from camlucida.data.kinds import KINDS, DataKind, list_data, register
from camlucida.data.offline_photos import Picture, picture, picture_names
from camlucida.data.open import open_data
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet, Sample, SampleList

__all__ = [
    "KINDS",
    "DataKind",
    "DataSet",
    "Picture",
    "Preprocess",
    "Sample",
    "SampleList",
    "find_images",
    "list_data",
    "open_data",
    "picture",
    "picture_names",
    "read_class_names",
    "read_image",
    "register",
    "resolve_class",
]
