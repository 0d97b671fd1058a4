"""Run the part of a model behind a layer on altered activations."""
