"""The figures and tables of single papers."""
