"""Metrics: attribution maps, and what is known about the images, to one number per image."""
