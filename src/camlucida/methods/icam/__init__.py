"""Integrative CAM (Singh et al. 2024, arXiv 2412.01354): one file per part of the formula."""

from camlucida.methods.icam.method import ICAM

__all__ = ["ICAM"]
