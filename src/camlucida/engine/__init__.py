"""Run a model and look inside: tap its layers, replay its head, bring maps into form."""
