"""Run a model and look inside: tap its layers, replay its head, bring maps into form."""

from camlucida.engine.layers import Grid, default_layer, list_layers
from camlucida.engine.maps import Steps
from camlucida.engine.tap import Tap, tap

__all__ = ["Grid", "Steps", "Tap", "default_layer", "list_layers", "tap"]
