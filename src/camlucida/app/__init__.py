"""The web page: see, compare and check maps in a browser on this machine."""

from camlucida.app.serve import serve

__all__ = ["serve"]
