"""Explain by examples; :mod:`camlucida.studies.icam` says what makes two images near."""
