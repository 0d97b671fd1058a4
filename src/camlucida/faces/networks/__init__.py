"""Architectures of face embedders."""
