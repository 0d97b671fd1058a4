"""Load image classifiers by name, with their preprocessing and class names."""

from camlucida.models.layers import LayerRow, ModelLayers, describe_layers
from camlucida.models.loaded import LoadedModel
from camlucida.models.loading import class_names_of, load_model, outputs_said, preprocess_of

__all__ = [
    "LayerRow",
    "LoadedModel",
    "ModelLayers",
    "class_names_of",
    "describe_layers",
    "load_model",
    "outputs_said",
    "preprocess_of",
]
