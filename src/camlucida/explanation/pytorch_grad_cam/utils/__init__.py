"""Targets and pictures, under the names of pytorch-grad-cam."""
