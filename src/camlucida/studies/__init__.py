"""One paper's own figures and tables: FAME's, I-CAM's, published tables done again, and a blind survey."""

from camlucida.studies import fame, icam, published, survey

__all__ = ["fame", "icam", "published", "survey"]
