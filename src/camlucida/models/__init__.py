"""Load image classifiers by name, with their preprocessing and class names."""

from camlucida.models.loaded import LoadedModel
from camlucida.models.loading import class_names_of, load_model, preprocess_of

__all__ = ["LoadedModel", "class_names_of", "load_model", "preprocess_of"]
