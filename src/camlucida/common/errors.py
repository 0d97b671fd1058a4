"""What camlucida raises: each error names what was given, what was expected and what to do."""

from __future__ import annotations


class CamlucidaError(ValueError):
    """Base of every error that camlucida raises on purpose; its text is one readable sentence."""


class ImageError(CamlucidaError):
    """An image cannot be read or has the wrong shape, type or size."""


class LayerError(CamlucidaError):
    """A layer does not exist, is not reached, is used twice or has no spatial output."""


class TargetError(CamlucidaError):
    """A target does not fit the model's output, or a class is unknown."""


class MethodError(CamlucidaError):
    """A method is unknown, has an invalid option or cannot work on this model."""


class ModelError(CamlucidaError):
    """A model cannot be loaded, or does not fit the inputs."""
