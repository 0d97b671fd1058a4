"""Fooling: models that are trained to draw other maps, and which methods follow."""
