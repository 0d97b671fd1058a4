"""Explainers of other libraries, computed by these: one file each, imported when a method of it is asked for."""
